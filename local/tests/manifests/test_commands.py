"""The pages' commands against the rendering: every folder, name, label, key and target in them."""

from __future__ import annotations

import json
import re
import shlex
import tempfile
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from tree import REPOSITORY, SETTINGS, TOPOLOGIES, Tree, kustomize, parse

PAGES = ("README.md", "manifests/README.md", "docs/your-own-model.md", "docs/operations.md")
FENCED = re.compile(r"^ *```(\w*)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:kubectl|make) [^`]+)`")
# Of several commands on a line, also of `name=$(command)`.
BETWEEN = re.compile(r"&&|\||=\$\(|\)$")
VARIABLES = {"PROFILE_NAME": "profile", "ENTRY": "entry", "SHADOW": "shadow"}
PGO = "postgres-operator.crunchydata.com"
# Made by the command before.
OF_A_PAGE = {("job", "verdict"), ("job", "retention-now")}

Words = list[str]


def commands(page: str) -> list[Words]:
    """A page's kubectl and make commands, with the variables that it exports filled in."""
    text = (REPOSITORY / page).read_text()
    settings = yaml.safe_load((REPOSITORY / SETTINGS).read_text())["data"]
    for variable, setting in VARIABLES.items():
        text = re.sub(rf"\$(?:{variable}\b|{{{variable}[^}}]*}})", settings[setting], text)
    fenced = [block for language, block in FENCED.findall(text) if language in ("", "bash")]
    lines = "\n".join(fenced).replace("\\\n", " ").splitlines()
    lines += INLINE.findall(FENCED.sub("", text))
    parts = [part for line in lines for part in BETWEEN.split(line.removeprefix("$ "))]
    return [
        shlex.split(part, comments=True)
        for part in parts
        if re.match(r"\s*(kubectl|make) [^.]", part)
    ]


ALL = [(page, words) for page in PAGES for words in commands(page)]
KUBECTL = [words for _, words in ALL if words[0] == "kubectl"]


def after(words: Words, *options: str) -> list[str]:
    """The values of an option, however often it is given; `--name=value` or `--name value`."""
    values = [words[i + 1] for i, word in enumerate(words) if word in options]
    joined = tuple(f"{option}=" for option in options if option.startswith("--"))
    return values + [word.split("=", 1)[1] for word in words if joined and word.startswith(joined)]


@cache
def deployed() -> list[dict[str, Any]]:
    """Both topologies with every option, and the database."""
    found = [yaml.safe_load((REPOSITORY / "postgres-crd.yml").read_text())]
    with tempfile.TemporaryDirectory() as folder:
        for topology in TOPOLOGIES:
            tree = Tree(Path(folder, topology))
            tree.choose_topology(topology)
            tree.switch_on_options(topology)
            found += tree.objects()
    return found + parse(kustomize(REPOSITORY / "manifests/database"))


def everywhere(value: Any, key: str) -> list[Any]:
    """Every value below a key, however deep."""
    if isinstance(value, list):
        return [found for item in value for found in everywhere(item, key)]
    if not isinstance(value, dict):
        return []
    below = [found for item in value.values() for found in everywhere(item, key)]
    return below + ([value[key]] if key in value else [])


def test_the_pages_have_commands() -> None:
    """What follows looks at all of them: the deployment's own page has most."""
    assert len(KUBECTL) >= 30
    assert {page for page, _ in ALL} == set(PAGES)


def test_every_folder_and_file_is_there_and_renders() -> None:
    """`-k` leads to a kustomization that kubectl renders, `-f` to a file."""
    folders = {folder for words in KUBECTL for folder in after(words, "-k", "kustomize")}
    assert {".", "manifests/database", "manifests/stages/shadow-promoted"} <= folders
    for folder in folders:
        if "..." not in folder:
            assert kustomize(REPOSITORY / folder)
    for words in KUBECTL:
        for file in after(words, "-f"):
            assert (REPOSITORY / file).is_file()


def test_every_name_is_one_that_is_deployed() -> None:
    """`kind/name`, `get kind name` and `wait kind/name`, in the namespace that is given."""
    names = {(item["kind"].lower(), item["metadata"]["name"]) for item in deployed()}
    profile = yaml.safe_load((REPOSITORY / SETTINGS).read_text())["data"]["profile"]
    kinds = {kind for kind, _ in names}
    seen = set()
    for words in KUBECTL:
        named = [tuple(word.rsplit("=", 1)[-1].split("/")) for word in words if "/" in word]
        named += list(pairwise(words))
        for kind, name in (pair for pair in named if len(pair) == 2):
            if kind in kinds | {"job"} and not name.startswith("-") and "=" not in name:
                assert (kind, name) in names | OF_A_PAGE, words
                assert after(words, "-n") == [profile], words
                seen.add(kind)
    assert {"inferenceservice", "virtualservice", "cronjob", "postgrescluster"} <= seen


def test_every_label_selects_something() -> None:
    """The labels of our objects, those of our selectors of KServe's pods, and the operator's."""
    cluster = next(item for item in deployed() if item["kind"] == "PostgresCluster")
    known = {(f"{PGO}/cluster", cluster["metadata"]["name"])}
    known.add((f"{PGO}/role", "master"))  # the operator's own, on the one pod that takes writes
    for key in ("labels", "matchLabels", "selector"):
        known |= {
            pair
            for labels in everywhere(deployed(), key)
            for pair in labels.items()
            if isinstance(pair[1], str)
        }
    selectors = [selector for words in KUBECTL for selector in after(words, "-l")]
    assert len(selectors) >= 3
    for selector in selectors:
        for label in selector.split(","):
            assert tuple(label.split("=")) in known


def test_every_container_is_there() -> None:
    """`-c`, in a pod of ours or of the operator."""
    names = {item["name"] for items in everywhere(deployed(), "containers") for item in items}
    asking = [words for words in KUBECTL if {"exec", "logs"} & set(words)]
    asked = {after(words, "-c")[0] for words in asking if "-c" in words}
    assert asked == {"database", "kserve-container"}
    assert asked <= names | {"database"}


def test_a_secret_by_hand_has_the_keys_that_the_pods_read() -> None:
    """Neither a key too few nor one that nobody reads."""
    text = json.dumps(deployed())
    made = 0
    for words in KUBECTL:
        if "secret" not in words:
            continue
        name = words[words.index("generic") + 1]
        keys = {value.split("=")[0] for value in after(words, "--from-literal", "--from-file")}
        references = everywhere(deployed(), "secretKeyRef")
        read = {reference["key"] for reference in references if reference["name"] == name}
        for secret in everywhere(deployed(), "secret"):
            if secret["secretName"] == name:
                read |= {item["key"] for item in secret.get("items", [])}
        assert name in text
        assert keys == read
        made += 1
    assert made == 2


def test_what_is_waited_for_is_in_the_status() -> None:
    """The operator writes the name of the ConfigMap once the schema is in; so does our file say."""
    cluster = next(item for item in deployed() if item["kind"] == "PostgresCluster")
    waits = [value for words in KUBECTL for value in after(words, "--for")]
    done = f"jsonpath={{.status.databaseInitSQL}}={cluster['spec']['databaseInitSQL']['name']}"
    assert set(waits) == {"condition=Ready", done}


@pytest.mark.parametrize("page", PAGES)
def test_every_make_target_is_there(page: str) -> None:
    """`make` names a target of the Makefile, and variables that it or a program here reads."""
    makefile = (REPOSITORY / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    program = (REPOSITORY / "local/src/shadow_local/cli.py").read_text()
    for words in commands(page):
        if words[0] == "make":
            assert words[1] in targets
            for variable in (word.split("=")[0] for word in words[2:] if "=" in word):
                assert re.search(rf"\b{variable}\b", makefile + program), words
