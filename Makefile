# The commands of this repository. They need python3 (3.11 or newer), make and a C library; uv and
# everything else is installed into ignored folders here. Outside of them only uv's cache is written.

.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

UV_VERSION := 0.13.9
UV := $(or $(shell command -v uv),$(CURDIR)/.tools/bin/uv)
export UV
BOOTSTRAP := $(shell test -x "$(UV)" || echo .tools/bin/uv)
# An interpreter of the machine is used; uv fetches none.
export UV_PYTHON_DOWNLOADS ?= never
# The tests start hundreds of servers; without kept bytecode each would compile what it imports.
unexport PYTHONDONTWRITEBYTECODE
# They are another Python's, whose packages do not run in ours.
unexport PYTHONPATH PYTHONHOME

# What `make up NAME=value` can set: names that the recipes here expand, or that what they start reads.
VARIABLES := AGAINST ARGS CHROMIUM CRD_DIR DOCKER DOCKER_ARGS EXAMPLES FILE GATEWAY_PORT HTML IMAGES ISTIO_EDGE
VARIABLES += KUSTOMIZATION LONG_TESTS MIRROR_HOST_SUFFIX MIRROR_PERCENTAGE MODEL ONLY PLATFORMS POSTGRES_URI
VARIABLES += PREDICT_URL PROJECT PROJECTS PROMTOOL REGISTRY REPLICAS REQUESTS REVISION SELECTED SERVE_SINCE SHADOW_CANDIDATES
VARIABLES += SOURCE SQL TAG TIMES TOPOLOGY UV VERSION WITHOUT X_API_KEY
# Other programs' own: installers', kubectl's, docker's, libpq's, pytest's, the shell's, make's.
OTHERS := %_PROXY %_proxy CI COLUMNS DOCKER_% GIT_% HOME KUBECONFIG MAKE% NO_COLOR OPENAI_API_KEY PATH PG% PIP_% PYTEST_%
OTHERS += PYTHON% REQUESTS_CA_BUNDLE SHELL SSL_CERT_% TMPDIR UV_%
# Make itself takes any name and ignores it. What a make around this one passes on is meant for other files.
ifeq ($(MAKELEVEL),0)
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
MISTYPED := $(firstword $(filter-out $(VARIABLES) $(OTHERS),$(GIVEN)))
NEAREST := import difflib, sys; name, *known = sys.argv[1:]; near = difflib.get_close_matches(name.upper(), known, 1); \
	print(f"did you mean {near[0]}?" if near else "there are " + ", ".join(known))
ifneq ($(MISTYPED),)
$(error $(MISTYPED) is not a variable of this Makefile; $(shell python3 -c '$(NEAREST)' '$(MISTYPED)' $(VARIABLES)))
endif
endif

IMAGES := minimal-predictor minimal-transformer shadow-report
EXAMPLES := examples/gallery examples/generative examples/own-transformer examples/runtime examples/scikit-learn examples/scripted
# What its train.py writes; files of other names are someone's own.
TRAINED := $(addprefix examples/,scikit-learn/models/first.joblib scikit-learn/models/retrained.joblib runtime/iris-models) \
	$(addprefix examples/gallery/models/,progress* tickets* digits*)
PROJECTS := embedded-postgres $(IMAGES) $(EXAMPLES) local
# The images that the manifests name.
SETTINGS := manifests/settings/settings.yaml
REGISTRY ?= $(shell sed -n 's/^ *image-registry: *//p' $(SETTINGS))
TAG ?= $(shell sed -n 's/^ *image-tag: *"\{0,1\}\([^" ]*\).*/\1/p' $(SETTINGS))
# Images for more than one platform cannot be kept here, only pushed.
DOCKER ?= docker
DOCKER_BUILD = DOCKER_BUILDKIT=1 $(DOCKER) $(if $(PLATFORMS),buildx build --push --platform $(PLATFORMS),build)
SOURCE ?= $(shell git remote get-url origin)
REVISION ?= $(shell git describe --always --dirty --abbrev=40 --exclude='*')

# Many tests wait for servers: four suites at a time, the longest first, keep two cores busy; with five they wait for the cores.
LONG_TESTS := local/test minimal-transformer/test shadow-report/test minimal-transformer/faults local/program
LONG_TESTS += shadow-report/compare local/manifests local/examples minimal-predictor/test
LONG_TESTS += shadow-report/statistics
TESTS := $(LONG_TESTS) $(filter-out $(LONG_TESTS),$(PROJECTS:%=%/test))
TYPES := $(PROJECTS:%=%/types)

REQUESTS ?= 200
GATEWAY_PORT ?= 8080
export REQUESTS GATEWAY_PORT TOPOLOGY

.PHONY: $(TESTS) $(TYPES) installed help demo up traffic report noise psql install test check bench soak soak-follow pictures format lock release images sbom deploy schema clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(IMAGES:%=%/.venv/runs) local/.venv/runs ## Run the whole deployment here, send traffic, show the verdict, stop (REQUESTS=200, MODEL=llm, HTML=folder for the pages)
demo: $(if $(filter llm,$(MODEL)),examples/generative/.venv/runs)
	@local/.venv/bin/shadow-local demo $(if $(MODEL),--model "$(MODEL)")

up: $(IMAGES:%=%/.venv/runs) local/.venv/runs ## Run it in the foreground until Ctrl-C (GATEWAY_PORT=8080, TOPOLOGY=standard|knative|follow, MODEL=llm, REPLICAS=1)
up: $(if $(filter llm,$(MODEL)),examples/generative/.venv/runs)
up: $(patsubst %/pyproject.toml,%/.venv/runs,$(wildcard $(KUSTOMIZATION)/pyproject.toml))
# A folder elsewhere may stand on one of the examples, whose packages were changed since.
up: $(wildcard examples/*/.venv/runs examples/*/*/.venv/runs)
	@local/.venv/bin/shadow-local up $(if $(MODEL),--model "$(MODEL)")

traffic: local/.venv/runs ## Send the requests of a file through the gateway of a running `make up` (FILE=requests.jsonl, TIMES=1)
	@local/.venv/bin/shadow-local traffic "$(FILE)"

report: shadow-report/.venv/runs local/.venv/runs ## Compare what a running `make up`, or POSTGRES_URI, has recorded (HTML=report.html, ARGS=options of compare)
	@# A verdict is an answer, not a failure of make; shadow-report itself exits with its code.
	@local/.venv/bin/shadow-local report $(if $(HTML),--html "$(HTML)") $(ARGS) || [ $$? -ge 10 ]

noise: shadow-report/.venv/runs local/.venv/runs ## Send the primary of a running `make up` its own calls once more: how often does it differ from itself (ARGS=options of replay)
	@local/.venv/bin/shadow-local noise $(ARGS)

psql: local/.venv/runs ## Look into the tables of a running `make up`, or of POSTGRES_URI (SQL='SELECT ...')
	@local/.venv/bin/shadow-local psql $(if $(SQL),--expanded --command "$$SQL")

install: $(or $(PROJECT),which)/.venv/runs ## Install one project, such as PROJECT=examples/scikit-learn
	@echo "$(PROJECT) is installed, in $(PROJECT)/.venv"
which/.venv/runs:
	@echo "Say which project: make install PROJECT=<one of $(PROJECTS)>" >&2; exit 2

# A suite's output is held back until it ends; its start and its end are printed past that, on descriptor 3.
test: installed ## Run every test of every project, the others too when one fails (a quarter of an hour on two cores)
	@exec 3>&1; code=0; export BROKEN="$$(mktemp)"; trap 'rm -f "$$BROKEN"' EXIT; \
	PROGRESS=3 $(MAKE) --keep-going --jobs=4 --output-sync=target $(TESTS) || code=$$?; \
	if [ -s "$$BROKEN" ]; then printf 'broken; run it alone by: make %s\n' $$(cat "$$BROKEN") >&2; fi; \
	echo "$(words $(TESTS)) suites ran, $$(wc -l < "$$BROKEN" | tr -d ' ') of them broken"; exit $$code

.SECONDEXPANSION:
$(TESTS): $$(@D)/.venv/tests
	@echo "-- $@ starts" >&$${PROGRESS:-1}; echo "== $@"; code=0; \
	(cd $(@D) && exec $(BATCH) .venv/bin/pytest $(KEPT) $(SELECTED)) || code=$$?; \
	[ $$code = 0 ] || echo $@ >> $${BROKEN:-/dev/null}; \
	printf -- '-- %s ends after %d:%02d\n' $@ $$((SECONDS / 60)) $$((SECONDS % 60)) >&$${PROGRESS:-1}; exit $$code
# BLAS's threads wait for each other by spinning, on cores that the other suites want: a fit of 0.1 s took 5 s of both.
$(TESTS): export OMP_NUM_THREADS = 1
# Suites that interrupt each other less often need 7 % less time together.
$(TESTS): BATCH := $(if $(shell command -v chrt),chrt --batch 0)
# What passed tests wrote, such as a database of 350 files each, goes with them.
$(TESTS): KEPT := --override-ini=tmp_path_retention_policy=failed
# A kubectl that renders once and ends need not collect its garbage: a quarter less CPU for each of hundreds.
$(TESTS): export GOGC = 400
# They start the other projects' programs.
$(filter local/%,$(TESTS)): $(patsubst %,%/.venv/runs,$(IMAGES) $(EXAMPLES))
local/test: SELECTED := --ignore=tests/examples --ignore=tests/manifests --ignore=tests/program
local/examples: SELECTED := tests/examples
local/manifests: SELECTED := tests/manifests
local/program: SELECTED := tests/program
minimal-transformer/test: SELECTED := --ignore=tests/faults
minimal-transformer/faults: SELECTED := tests/faults
shadow-report/test: SELECTED := --ignore=tests/compare --ignore=tests/statistics
shadow-report/compare: SELECTED := tests/compare
shadow-report/statistics: SELECTED := tests/statistics

check: installed ## Formatting, lint, types, imports, locks, shell, Dockerfiles, YAML, workflows, links
	@local/.venv/bin/ruff format --check .
	@local/.venv/bin/ruff check .
	@$(MAKE) --jobs=2 --output-sync=target $(TYPES)
	@local/.venv/bin/shellcheck .ci/run
	@local/.venv/bin/hadolint Dockerfile $(wildcard $(PROJECTS:%=%/Dockerfile))
	@local/.venv/bin/shadow-local check
	@local/.venv/bin/yamllint --strict kustomization.yaml postgres-crd.yml manifests .github $(wildcard examples/*/*.yaml examples/*/*/*.yaml)
	@$(call schema,github-workflows,$(wildcard .github/workflows/*.yml))
	@$(call schema,dependabot,.github/dependabot.yml)
	@$(call schema,github-issue-forms,$(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml)))
	@$(call schema,github-issue-config,.github/ISSUE_TEMPLATE/config.yml)
	@python3 tools/links.py
	@python3 tools/lock.py --check $(PROJECTS)

# GitHub's own schemas, as the package brings them along; nothing is downloaded.
schema = local/.venv/bin/check-jsonschema --quiet --builtin-schema vendor.$(1) $(2)

$(TYPES): $$(@D)/.venv/tests
	@echo "== $(@D)"
	@cd $(@D) && .venv/bin/mypy && if grep -q importlinter pyproject.toml; then .venv/bin/lint-imports; fi

format: local/.venv/tests ## Format the code
	@local/.venv/bin/ruff format .
	@local/.venv/bin/ruff check --fix .

bench: $(IMAGES:%=%/.venv/tests) local/.venv/tests ## Measure against stock KServe in the same run; writes docs/benchmarks.md (ONLY=hop, AGAINST=folder of another checkout)
	@$(if $(AGAINST),$(MAKE) -C "$(AGAINST)" minimal-transformer/.venv/runs shadow-report/.venv/runs)
	@against="$$(cd "$(or $(AGAINST),.)" && pwd)"; cd local && .venv/bin/python -m bench \
		$(if $(ONLY),--only $(ONLY)) $(if $(AGAINST),--against "$$against") $(ARGS)

soak: $(IMAGES:%=%/.venv/runs) local/.venv/tests ## Ten minutes of load while Postgres comes and goes
	@cd local && .venv/bin/python -m bench.soak

soak-follow: $(IMAGES:%=%/.venv/runs) local/.venv/tests ## 100,000 calls followed while the follower and its candidate are killed (ARGS="--calls 10000")
	@cd local && .venv/bin/python -m bench.follow $(ARGS)

pictures: shadow-report/.venv/tests ## The README's pictures, from a demo's pages in a browser (docs/pictures)
	@pages="$$(mktemp -d)"; trap 'rm -rf "$$pages"' EXIT; \
	$(MAKE) demo REQUESTS=4000 HTML="$$pages" && \
	shadow-report/.venv/bin/python tools/pictures.py "$$pages" docs/pictures

lock: $(BOOTSTRAP) ## Resolve the newest versions and pin them (PROJECT=... for one)
	@python3 tools/lock.py $(or $(PROJECT),$(PROJECTS))

release: local/.venv/tests ## Write VERSION everywhere, check, commit and tag; pushing the tag publishes (VERSION=1.2.0)
	@python3 tools/release.py prepare $(VERSION)
	@local/.venv/bin/python local/tests/manifests/goldens.py > /dev/null
	@$(MAKE) check || { echo "Nothing was committed; \`git reset --hard\` takes the version back." >&2; exit 1; }
	@git commit --quiet --all --message "Release $(VERSION)"
	@git tag --annotate "v$(VERSION)" --message "$(VERSION)"
	@echo "v$(VERSION) is committed and tagged; publish it by: git push --follow-tags"

images: ## Build the three images (REGISTRY, TAG; PLATFORMS=linux/amd64,linux/arm64 builds for both and pushes)
	@for image in $(IMAGES); do \
		$(DOCKER_BUILD) --tag $(REGISTRY)/$$image:$(TAG) --build-arg IMAGE=$$image --build-arg VERSION=$(TAG) \
			--build-arg SOURCE=$(SOURCE) --build-arg REVISION=$(REVISION) $(DOCKER_ARGS) .; \
	done

sbom: | $(BOOTSTRAP) ## List what each image installs, as CycloneDX in sbom/
	@mkdir -p sbom
	@for project in $(patsubst %/requirements.lock,%,$(wildcard $(PROJECTS:%=%/requirements.lock))); do \
		"$(UV)" export --quiet --project $$project --no-dev --format cyclonedx1.5 > sbom/$${project##*/}.cdx.json; \
	done

DEPLOYED = $(or $(KUSTOMIZATION),$(if $(TOPOLOGY),manifests/mirroring/$(TOPOLOGY),.))
deploy: local/.venv/runs shadow-report/.venv/runs ## Check the deployment, then apply it to kubectl's current context (TOPOLOGY=follow, or KUSTOMIZATION=manifests/stages/...)
	@local/.venv/bin/shadow-local check
	@! command -v kubectl > /dev/null || [ -n "$${KUBERNETES_SERVICE_HOST:-}" ] || kubectl config current-context > /dev/null 2>&1 || \
	{ echo "kubectl has no current context and would ask localhost:8080: choose a cluster (kubectl config use-context). What it would get: kubectl kustomize $(DEPLOYED)" >&2; exit 2; }
	kubectl apply -k $(DEPLOYED)

schema: embedded-postgres/.venv/runs ## Make the tables in the database of POSTGRES_URI
	@embedded-postgres/.venv/bin/python -m embedded_postgres

clean: ## Remove everything that these commands installed or wrote, but pages and models of your own
	rm -rf .tools sbom local/.run $(PROJECTS:%=%/.venv) $(PROJECTS:%=%/uv.lock) examples/*/.venv examples/*/uv.lock
	rm -rf $(TRAINED)
	find . -name __pycache__ -prune -exec rm -rf {} +

# An installer's words are shown only when it fails, and not when that was Ctrl-C.
INDEX_REMEDY = Without a network, connect; behind a proxy, set HTTPS_PROXY; with a mirror, set UV_DEFAULT_INDEX and PIP_INDEX_URL to its URL. Then run the same again.
VERSIONS_REMEDY = What its pyproject.toml names excludes each other. Where you changed its dependencies, run: make lock PROJECT=$(1)
install = trap 'exit 130' INT; said=$$({ $(2); } 2>&1) || { grep -v '^WARNING: Retrying' <<< "$$said" || true; \
	remedy="$(INDEX_REMEDY)"; case "$$said" in *"no version of"* | *"not found in"*) ;; *"No solution found"*) remedy="$(VERSIONS_REMEDY)";; esac; \
	echo "$(1) was not installed. $$remedy"; exit 1; } >&2

# What a project needs to run (`runs`) and to be tested (`tests`); the files are stamps.
%/.venv/runs: %/pyproject.toml | $(BOOTSTRAP)
	@echo "installing $*"
	@$(call install,$*,"$(UV)" sync --quiet --project $* --no-dev --inexact)
	@touch $@

# All of them; what one waits for on the network or the disk, another one uses.
installed: $(BOOTSTRAP)
	@$(MAKE) --silent --jobs=3 $(PROJECTS:%=%/.venv/tests)

%/.venv/tests: %/pyproject.toml | $(BOOTSTRAP)
	@echo "installing $* and what its tests need"
	@$(call install,$*,"$(UV)" sync --quiet --project $*)
	@touch $@ $*/.venv/runs

.tools/bin/uv:
	@echo "installing uv $(UV_VERSION) into .tools"
	@$(call install,uv,python3 -m venv .tools && .tools/bin/python -m pip install -qq --no-cache-dir uv==$(UV_VERSION))
