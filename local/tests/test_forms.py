"""Settings and variables that are not what they should be are found before anything is rendered."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways import rendered
from jsonschema import Draft202012Validator
from runs import Start
from tree import LONG_NAMES, OTHER_SETTINGS, SETTINGS, TOPOLOGIES, Tree

from shadow_local.translate import forms, written
from shadow_local.translate.arguments import check_arguments, check_rules
from shadow_local.translate.cluster import checked, warnings
from shadow_local.translate.document import image_name, render, repository
from shadow_local.translate.forms import Malformed, check_settings, check_variables, faults

FORMS: dict[str, Any] = yaml.safe_load(Path(forms.__file__).with_name("forms.yaml").read_text())
GROUPS = [name for name in FORMS if name != "$defs"]
BASE = "manifests/inference/base/inference-service.yaml"

WRONG_SETTINGS = [
    ("domain", "https://models.example.com"),
    ("domain", "models.example.com:443"),
    ("domain", "Models.example.com"),
    ("domain", "models.*.com"),
    ("profile", "Team_Credit"),
    ("profile", "-team"),
    ("profile", "p" * 64),
    ("gateway", "public"),
    ("gateway", "gateways/public/one"),
    ("gateway", "gateways/"),
    ("gateway-namespace", "istio.system"),
    ("gateway-label", "ingress gateway"),
    ("entry", "2nd-entry"),
    ("entry", "a/b"),
    ("primary", "Fraud"),
    ("shadow", "fraud.v2"),
    ("shadow", "fraud-"),
    ("second-shadow", ""),
    ("mirror-percentage", "200"),
    ("mirror-percentage", "-1"),
    ("mirror-percentage", "20%"),
    ("mirror-percentage", "a fifth"),
    ("mirror-percentage", "nan"),
    ("mirror-content-length", "[0-9"),
    ("mirror-content-length", ""),
    ("mirror-grpc-copies", "0"),
    ("mirror-port", "80890"),
    ("mirror-port", "http"),
    ("mirror-port-name", "copies"),
    ("mirror-port-name", "http_copies"),
    ("second-mirror-port", "0"),
    ("follow-concurrency", "1.5"),
    ("follow-concurrency", "4096"),
    ("follow-rate", "1000/min"),
    ("follow-rate", "0/s"),
    ("predict-timeout-seconds", "60s"),
    ("predict-timeout-seconds", "1m"),
    ("primary-min-replicas", "-1"),
    ("shadow-max-replicas", "0"),
    ("standard-scale-metric", "rps"),
    ("standard-scale-target", "80%"),
    ("knative-scale-metric", "cpu"),
    ("knative-scale-target", "twenty"),
    ("shadow-version", "v" * 257),
    ("image-registry", "https://ghcr.io/prokube"),
    ("image-registry", "ghcr.io/prokube/"),
    ("image-registry", "ghcr.io/ProKube"),
    ("image-tag", "ghcr.io/prokube:1"),
    ("image-tag", "-1"),
    ("runbook", "https://wiki.example.com/operations#alerts"),
    ("runbook", "our wiki"),
]


def settings_of(tree: Tree, **changed: Any) -> None:
    values = {name.replace("_", "-"): value for name, value in changed.items()}
    tree.choose_settings(tree.settings() | values)


@pytest.mark.parametrize("group", GROUPS)
def test_forms_are_schemas_that_say_what_they_ask_for(group: str) -> None:
    """Each has a description, which is the remedy."""
    for name, form in FORMS[group]["properties"].items():
        Draft202012Validator.check_schema(form)
        reference = form.get("$ref", "#/$defs/").removeprefix("#/$defs/")
        assert {**FORMS["$defs"].get(reference, {}), **form}.get("description"), name


def test_no_description_ends_at_a_number_sign() -> None:
    """YAML takes what follows one for a comment, unless the text stands in quotes."""
    text = Path(forms.__file__).with_name("forms.yaml").read_text()
    assert re.findall(r"description: [^\"'].*? #.*", text) == []


def test_every_setting_has_a_form(tmp_path: Path) -> None:
    assert FORMS["settings"]["properties"].keys() == Tree(tmp_path / "tree").settings().keys()


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_every_variable_that_stands_there_has_a_form(tmp_path: Path, topology: str) -> None:
    """Of our own containers, with every option on."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    found = {
        (group, name)
        for group in GROUPS
        for variables in forms.variables_of(group, tree.objects())
        for name in variables
    }
    assert len(found) > 8
    assert [name for group, name in found if name not in FORMS[group]["properties"]] == []


@pytest.mark.parametrize(
    "settings",
    [{}, OTHER_SETTINGS, LONG_NAMES, {"domain": "*"}, {"mirror-percentage": "0.5"}],
    ids=["defaults", "other settings", "long names", "every host", "a small share"],
)
def test_sound_settings_pass(tmp_path: Path, settings: dict[str, str]) -> None:
    """For the root, each topology's folder and the stages."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | settings)
    check_settings(tree.folder)
    check_settings(tree.folder / "manifests/mirroring/follow")
    check_settings(tree.folder / "manifests/stages/shadow-promoted")


@pytest.mark.parametrize(("name", "value"), WRONG_SETTINGS)
def test_a_setting_that_is_not_what_it_should_be_is_one_line(
    tmp_path: Path, name: str, value: str
) -> None:
    """The file, the setting, its value, and what is expected; also where Kustomize cannot go on."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | {name: value})
    for folder in (tree.folder, tree.folder / "manifests/stages/shadow-added"):
        with pytest.raises(Malformed) as refusal:
            check_settings(folder)
        (line,) = str(refusal.value).splitlines()
        assert line.startswith(f"{tree.folder / SETTINGS}: {name} is {value!r}; set it to ")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"shadow": "double-minimal-inference"}, "shadow is 'double-minimal-inference'; set it to"),
        ({"second_shadow": "triple-minimal-inference"}, "another value than that of shadow"),
        ({"second_mirror_port": "8089"}, "another value than that of mirror-port"),
        ({"mirror_percentage": 20}, "mirror-percentage is 20; set it to the same in quotes"),
        ({"primary_version": None}, "primary-version is None; set it to at most 256 characters"),
    ],
)
def test_what_settings_have_to_do_with_each_other(
    tmp_path: Path, changed: dict[str, Any], words: str
) -> None:
    """Names that have to differ, and numbers that YAML does not take for texts."""
    tree = Tree(tmp_path / "tree")
    settings_of(tree, **changed)
    with pytest.raises(Malformed, match=words):
        check_settings(tree.folder)


def test_each_wrong_setting_has_a_line(tmp_path: Path) -> None:
    """Not one after the other, at each try."""
    tree = Tree(tmp_path / "tree")
    settings_of(tree, profile="Team_Credit", image_registry="https://ghcr.io", gateway="public")
    tree.replace(SETTINGS, "image-tag", "image-tags")
    with pytest.raises(Malformed) as refusal:
        check_settings(tree.folder)
    lines = str(refusal.value).splitlines()
    assert [line.partition(": ")[2].split(" is ")[0] for line in lines] == [
        "image-tag",
        "no replacement reads the setting image-tags;",
        "profile",
        "gateway",
        "image-registry",
    ]


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("miror-port", "is mirror-port meant?"), ("colour", "take it out.")],
)
def test_a_setting_that_nothing_reads_is_refused(tmp_path: Path, name: str, remedy: str) -> None:
    """But not one of the user's own, once a replacement reads it."""
    tree = Tree(tmp_path / "tree")
    tree.replace(SETTINGS, "\ndata:\n", f'\ndata:\n  {name}: "8089"\n')
    with pytest.raises(Malformed) as raised:
        check_settings(tree.folder)
    assert str(raised.value) == (
        f"{tree.folder}/{SETTINGS}: no replacement reads the setting {name}; {remedy}"
    )
    source = f"- source: {{kind: ConfigMap, name: settings, fieldPath: data.{name}}}\n"
    with (tree.folder / "manifests/settings/replacements.yaml").open("a") as file:
        file.write(f"{source}  targets: []\n")
    check_settings(tree.folder)


def test_settings_that_are_not_yaml_name_the_line(tmp_path: Path) -> None:
    tree = Tree(tmp_path / "tree")
    tree.replace(SETTINGS, "domain: inference.example.com", "domain: *.example.com")
    with pytest.raises(Malformed, match=r"settings\.yaml, line \d+: .* in quotes\.$"):
        check_settings(tree.folder)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("settings", [{}, OTHER_SETTINGS], ids=["defaults", "other settings"])
def test_the_settings_are_found_in_the_objects(
    tmp_path: Path, topology: str, settings: dict[str, str]
) -> None:
    """As they were written, each where it is all that a field says."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    tree.choose_settings(tree.settings() | settings)
    # `follow` copies all, whatever the settings say.
    meant = tree.settings() | ({"mirror-percentage": "100"} if topology == "follow" else {})
    found = {pair for item in tree.objects() for pair in written.settings_of(item)}
    assert found <= meant.items()
    assert len(found) == {"standard": 24, "knative": 28, "follow": 20}[topology]
    written.check_written(tree.objects())


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_base_without_settings_to_read_is_checked_by_its_objects(
    tmp_path: Path, topology: str
) -> None:
    """One that is remote, or that somebody has rendered into a file."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    settings_of(tree, profile="Team_A", mirror_percentage="150", primary_max_replicas="0")
    vendored = tmp_path / "vendored"
    vendored.mkdir()
    (vendored / "base.yaml").write_text(tree.text())
    (vendored / "kustomization.yaml").write_text("resources: [base.yaml]\n")
    with pytest.raises(Malformed) as refusal:
        checked(vendored)
    said = [line.partition(": ")[2].split(" here;")[0] for line in str(refusal.value).splitlines()]
    percentage = ["the setting mirror-percentage is '150'"] if topology != "follow" else []
    assert sorted(said) == [
        *percentage,
        "the setting primary-max-replicas is '0'",
        "the setting profile is 'Team_A'",
    ]


# By group and variable: values that the program takes, and values with which it does not start.
SAMPLES = {
    "transformer": {
        "ACCESS_LOG": (["1", "false"], ["2", "maybe"]),
        "LOG_FORMAT": (["json"], ["JSON lines"]),
        "SHUTDOWN_GRACE_SECONDS": (["0", "2.5"], ["30s", "3601"]),
        "SHUTDOWN_DRAIN_SECONDS": (["3600"], ["-1", "half a minute"]),
        "MAX_CONNECTIONS": (["16"], ["15", "1e9", "many"]),
        "FORWARD_HEADERS": (["traceparent, x-b3-*", "a"], ["x tenant", "a;b"]),
        "RETURN_HEADERS": (["retry-after"], ["a:b"]),
        "PREDICT_TIMEOUT_SECONDS": (["0.5", "86400"], ["0", "60s", "86401"]),
        "MAX_BODY_BYTES": (["1024"], ["1023", "1Mi"]),
        "MAX_IN_FLIGHT_BYTES": (["268435456"], ["1024", "256Mi"]),
        "OPENAI_PREDICTOR_PREFIX": (["/openai"], ["openai"]),
        "PASS_PATHS": (["/generate,/v1/rerank", "/generate, /x"], ["generate", "/a, b"]),
        "MAX_STREAMS": (["1"], ["0", "100001"]),
        "STREAM_IDLE_TIMEOUT_SECONDS": (["30"], ["0", "1m"]),
        "PREDICTOR_READY_PATH": (["/health"], ["health"]),
        "PREPROCESS": (["package.module:function"], ["package.module", "a-b:c"]),
        "POSTPROCESS": (["m:f"], ["m:"]),
        "SHADOW_ROLE": (["primary"], ["blue", "Shadow"]),
        "INFERENCE_SERVICE": (["n" * 253], ["n" * 254]),
        "MODEL_VERSION": (["2024.11"], ["v" * 257]),
        "SPOOL_MAX_BYTES": (["65536"], ["65535", "1Gi", "a lot"]),
        "SPOOL_FSYNC": (["0"], ["always"]),
        "RECORD_HEADERS": (["x-tenant,user-agent"], ["authorization", "X-Api-Key"]),
        "RECORD_MAX_BODY_BYTES": (["0", "8388608"], ["67108865", "8MiB"]),
        "RECORD_SAMPLE": (["0.1", "1", "1e-3"], ["10%", "1.1", "nan"]),
        "RECORD_REDACT": (
            ["$.user.ssn, rows[*].id", "$['a,b'], $..x[?@.c == ','].d", "['\\''].a"],
            ["$.applicant[ssn", "$", "$.a, ,$.b", "$..", "$.a[?@.b ==]", "$.a[1"],
        ),
        "RECORD_STREAM_RAW": (["1"], ["on demand"]),
        "RECORD_ERRORS": (["yes"], ["some"]),
    },
    "minimal-predictor": {
        "MODEL_NAME": (["model.v2_a-b"], ["a model", "a/b"]),
        "FACTOR": (["-2.5", ".5", "1e3"], ["three", "1e999", "nan", "1_000", "2x"]),
    },
    "shadow-report": {
        "MIRROR_PERCENTAGE": (["100", "0.5"], ["0", "200", "20%"]),
        "FOLLOW_RATE": (["1000/s", "50", "0.5/h"], ["0/s", "1000/min", "fast", "00.0/m"]),
    },
}
# Said by Kubernetes, or with a password; and what this program takes as any text.
WITHOUT_SAMPLE = {"POSTGRES_URI", "POSTGRES_SECRET_DIR", "SPOOL_DIR"}
# Each prints which of the samples the program refuses, and which variables it has.
ASKED = {
    "transformer": """
from minimal_transformer import settings as s
IS_OURS = lambda each: isinstance(each, type) and issubclass(each, s._EnvironmentSettings)
CLASSES = list(filter(IS_OURS, vars(s).values()))
NAMES = [name.upper() for each in CLASSES for name in each.model_fields]
NEEDED = {"POSTGRES_URI": "postgresql://me@db/predictions", "SHADOW_ROLE": "shadow"}
def read(name):
    for each in CLASSES:
        each.from_environment()
""",
    "minimal-predictor": """
from minimal_predictor.settings import Settings, read_settings
NAMES, NEEDED = [name.upper() for name in Settings.model_fields], {}
def read(name):
    read_settings()
""",
    "shadow-report": """
from shadow_report.replay.candidate import parse_rate
from shadow_report.settings import configured_mirror_share
NAMES, NEEDED = ["MIRROR_PERCENTAGE", "FOLLOW_RATE"], {}
def read(name):
    parse_rate(os.environ[name]) if name == "FOLLOW_RATE" else configured_mirror_share()
""",
}
FRAME = """
import json, os, sys
{}
def is_refused(name, value):
    os.environ.clear()
    os.environ.update(NEEDED | {{name: value}})
    try:
        read(name)
    except (ValueError, SystemExit):
        return True
    return False
samples = json.load(sys.stdin)
print(json.dumps([NAMES, [sample for sample in samples if is_refused(*sample)]]))
"""


@pytest.mark.parametrize("group", SAMPLES)
def test_the_programs_agree(group: str) -> None:
    """What the check refuses of the variables, the program that reads them refuses, and no more."""
    project = "minimal-transformer" if group == "transformer" else group
    samples = [
        [name, value]
        for name, (sound, wrong) in SAMPLES[group].items()
        for value in (*sound, *wrong)
    ]
    asked = subprocess.run(
        [repository() / project / ".venv/bin/python", "-c", FRAME.format(ASKED[group])],
        input=json.dumps(samples),
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert asked.returncode == 0, asked.stderr
    names, refused = json.loads(asked.stdout)
    assert set(names) - WITHOUT_SAMPLE == SAMPLES[group].keys(), "SAMPLES"
    listed = {*FORMS[group]["properties"], *FORMS[group].get("also", ())}
    assert set(names) <= listed, "translate/forms.yaml"
    wrong = [[n, value] for n, (_, values) in SAMPLES[group].items() for value in values]
    assert refused == [sample for sample in samples if sample in wrong]
    by_check = [[n, v] for n, v in samples if list(faults(group, {n: v}))]
    assert by_check == refused


def with_variable(tree: Tree, name: str, value: str) -> None:
    """Put a transformer's variable where manifests/README.md says, for both sides."""
    line = f'- {{name: {name}, value: "{value}"}}'
    tree.replace(
        BASE, "          - name: SPOOL_DIR", f"          {line}\n          - name: SPOOL_DIR"
    )


def test_a_variable_names_the_file_that_says_it(tmp_path: Path) -> None:
    """Once, although both sides have it; a reference and an empty value are none."""
    tree = Tree(tmp_path / "tree")
    with_variable(tree, "RECORD_REDACT", "$.applicant[ssn")
    tree.replace("manifests/inference/shadow/shadow.yaml", 'value: "3"', "value: three")
    with pytest.raises(Malformed) as refusal:
        check_variables(tree.folder, render(tree.folder))
    folder = tree.folder / "manifests/inference"
    assert sorted(str(refusal.value).splitlines()) == [
        (
            f"{folder}/base/inference-service.yaml: RECORD_REDACT is '$.applicant[ssn'; set it to "
            "JSON paths with commas between them, such as $.user.ssn."
        ),
        f"{folder}/shadow/shadow.yaml: FACTOR is 'three'; set it to a finite number such as 2.",
    ]


def test_a_variable_in_small_letters_is_checked_too(tmp_path: Path) -> None:
    """The programs read it so."""
    tree = Tree(tmp_path / "tree")
    with_variable(tree, "record_sample", "10%")
    with pytest.raises(Malformed, match=r"inference-service\.yaml: RECORD_SAMPLE is '10%'; set it"):
        check_variables(tree.folder, render(tree.folder))


def test_a_variable_that_no_file_says_names_its_object(tmp_path: Path) -> None:
    """A strategic patch, a generator: it is checked wherever it comes from."""
    item = next(o for o in rendered("standard") if o["kind"] == "InferenceService")
    name = item["metadata"]["name"]
    env = [{"name": "SPOOL_MAX_BYTES", "value": "2Gi"}]
    transformer = {"containers": [{"image": "a/feature-transformer:1", "env": env}]}
    changed = {**item, "spec": {"transformer": transformer}}
    with pytest.raises(Malformed, match=f"^InferenceService {name}: SPOOL_MAX_BYTES is '2Gi'; set"):
        check_variables(tmp_path, [changed])


@pytest.mark.parametrize("value", [2025, 2025.1, True])
def test_a_variable_that_is_no_text_is_one_line(tmp_path: Path, value: float) -> None:
    """Such as a version without quotes; the file that says it is looked for all the same."""
    (tmp_path / "kustomization.yaml").write_text("resources: []\n")
    env = [{"name": "MODEL_VERSION", "value": value}]
    transformer = {"containers": [{"image": "a/minimal-transformer:1", "env": env}]}
    item = next(o for o in rendered("standard") if o["kind"] == "InferenceService")
    with pytest.raises(Malformed, match=f": MODEL_VERSION is {value}; set it to the same in quo"):
        check_variables(tmp_path, [{**item, "spec": {"transformer": transformer}}])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            {"gateway": "public"},
            (
                "gateway is 'public'; set it to its namespace/name, such as istio-system/"
                "istio-ingressgateway."
            ),
        ),
        (
            {"mirror-percentage": "20%"},
            "mirror-percentage is '20%'; set it to a number from 0 to 100 without %, such as 20.",
        ),
    ],
)
def test_the_check_and_the_run_say_it_before_kustomize(
    start: Start, tmp_path: Path, settings: dict[str, str], line: str
) -> None:
    """Kustomize's own message would name neither the file nor the setting."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | settings)
    for command in ("check", "up", "report"):
        run = start(
            command,
            *("--kustomization", str(tree.folder)),
            *(("--postgres-uri", "postgresql://me@127.0.0.1:1/gone") * (command == "report")),
        )
        assert run.ends() == 1
        said = f"shadow-local: {tree.folder / SETTINGS}: {line}\n"
        assert run.output.read_text() == said


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_redaction_under_follow_is_warned_of(start: Start, tmp_path: Path, topology: str) -> None:
    """What is redacted in a request cannot be sent; the check passes, and says what to do."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    assert list(warnings(render(tree.folder))) == []
    with_variable(tree, "RECORD_REDACT", "$.user.ssn")
    run = start("check", "--kustomization", str(tree.folder))
    assert run.ends() == 0
    first, *more = run.output.read_text().splitlines()
    assert "found nothing that a cluster would refuse" in first
    assert len(more) == (topology == "follow")
    for line in more:
        assert line.startswith("RECORD_REDACT is '$.user.ssn', and the topology follow sends")
        assert "by the topology standard" in line


def sampled(topology: str, **shares: str) -> list[dict[str, Any]]:
    """The rendered deployment, whose transformers record these shares, by the side's component."""
    manifests = copy.deepcopy(list(rendered(topology)))
    for item in manifests:
        side = item["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        if item["kind"] == "InferenceService" and side in shares:
            (transformer,) = item["spec"]["transformer"]["containers"]
            transformer["env"].append({"name": "RECORD_SAMPLE", "value": shares[side]})
    return manifests


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_sides_that_record_other_shares_are_warned_of(topology: str) -> None:
    """In follow a share of the primary's alone is in no figure of the report."""
    (line,) = warnings(sampled(topology, primary="0.1"))
    assert "RECORD_SAMPLE is 0.1 in InferenceService double-minimal-inference, 1 in " in line
    assert ("neither followed nor judged" in line) == (topology == "follow")
    assert list(warnings(sampled(topology, primary="0.10", shadow="0.1"))) == []
    assert list(warnings(sampled(topology, shadow="1"))) == []
    (line,) = warnings(sampled(topology, shadow="0.5"))
    assert "0.5 in InferenceService triple-minimal-inference" in line


# By variable: the program that does not read it, and the one that is meant.
UNKNOWN = [
    ("RECORD_REDAKT", "minimal-transformer", "RECORD_REDACT"),
    ("record_sampel", "minimal-transformer", "RECORD_SAMPLE"),
    ("SPOOL_MAX", "minimal-transformer", "SPOOL_MAX_BYTES"),
    ("FAKTOR", "minimal-predictor", "FACTOR"),
    ("MIRROR_PERCENT", "shadow-report", "MIRROR_PERCENTAGE"),
    ("SERVE_SINCE_ROLOUT", "shadow-report", "SERVE_SINCE_ROLLOUT"),
    ("COLOUR", "minimal-transformer", None),
]


def given(name: str, program: str, image: str | None = None) -> list[dict[str, Any]]:
    """The rendered deployment, with a variable more in each container of a program."""
    manifests = copy.deepcopy(list(rendered("standard")))
    for _, _, container in forms.own_containers(manifests):
        if image_name(container["image"]) == program:
            container["env"].append({"name": name, "value": "x"})
            container["image"] = image or container["image"]
    return manifests


@pytest.mark.parametrize(("name", "program", "meant"), UNKNOWN)
def test_a_variable_that_its_program_does_not_read_is_warned_of(
    name: str, program: str, meant: str | None
) -> None:
    """Once, with the one that is meant; not in an image of somebody else's."""
    (line,) = warnings(given(name, program))
    remedy = f"is {meant} meant?" if meant else "take it out."
    assert line.endswith(f": {program} reads no variable {name}; {remedy}")
    assert list(warnings(given(name, program, "registry/of-ones-own:1"))) == []


@pytest.mark.parametrize(
    "name", ["HTTPS_PROXY", "PGCONNECT_TIMEOUT", "PYTHONPATH", "TZ", "spool_fsync"]
)
def test_a_variable_that_is_read_is_not_warned_of(name: str) -> None:
    """By Python, a library, libpq, or by the program itself in small letters."""
    assert list(warnings(given(name, "minimal-transformer"))) == []


def test_a_hook_may_read_variables_of_its_own() -> None:
    """But for what is nearly one of ours."""
    manifests = given("PREPROCESS", "minimal-transformer")
    for _, _, container in forms.own_containers(manifests):
        container["env"].append({"name": "FEATURE_STORE", "value": "http://features"})
    assert {line.split()[2] for line in warnings(manifests)} == {
        "minimal-predictor",
        "shadow-report",
    }
    for _, _, container in forms.own_containers(manifests):
        container["env"].append({"name": "RECORD_REDAKT", "value": "$.a"})
    assert any(
        "minimal-transformer reads no variable RECORD_REDAKT" in w for w in warnings(manifests)
    )


def rules_of(tree: Tree, text: str, *options: str) -> Path:
    """The option `rules`, with this text in its file."""
    for option in ("rules", *options):
        tree.switch_on(option)
    file = tree.folder / "manifests/options/rules/rules.yaml"
    file.write_text(text)
    return file


def test_rules_that_nothing_is_judged_by_are_warned_of(tmp_path: Path) -> None:
    """Without a report, and with one whose line comes after theirs."""
    tree = Tree(tmp_path / "tree")
    rules_of(tree, "rules: []")
    (line,) = warnings(render(tree.folder))
    assert line.startswith("ConfigMap mirrored-inference-rules-")
    assert "switch on `report` or `live-verdict`, above the line of `rules`" in line
    tree.switch_on("live-verdict")
    assert list(warnings(render(tree.folder))) == []
    late = Tree(tmp_path / "late")
    rules_of(late, "rules: []", "live-verdict")
    with (late.folder / "manifests/options/kustomization.yaml").open("r+") as file:
        lines = file.read().splitlines(keepends=True)
        lines.sort(key=lambda line: line.startswith("  - live-verdict"))
        file.seek(0)
        file.writelines(lines)
    assert len(list(warnings(render(late.folder)))) == 1


@pytest.mark.parametrize("option", ["report", "live-verdict"])
def test_rules_that_the_report_refuses_are_refused(tmp_path: Path, option: str) -> None:
    """In its own words, with the file that is to be mended."""
    tree = Tree(tmp_path / "tree")
    text = "rules:\n  - {path: score, compare: number, absolut: 25}\n"
    file = rules_of(tree, text, option)
    with pytest.raises(Malformed) as refusal:
        checked(tree.folder)
    assert re.fullmatch(rf"{file}: rule 1: .*\babsolut\b.*\.", str(refusal.value))
    file.write_text(text.replace("absolut", "absolute"))
    checked(tree.folder)


def test_rules_in_a_config_map_of_ones_own_are_named_by_it(tmp_path: Path) -> None:
    """No file says just this text; the rules are read all the same."""
    tree = Tree(tmp_path / "tree")
    rules_of(tree, "absolut: 1", "live-verdict")
    tree.replace(
        "manifests/options/rules/kustomization.yaml", "files: [rules.yaml]", "literals: [x=y]"
    )
    check_rules(tree.folder, render(tree.folder))
    tree.replace("manifests/options/rules/kustomization.yaml", "[x=y]", "['rules.yaml=absolut: 1']")
    with pytest.raises(
        Malformed, match=r"^ConfigMap mirrored-\S+-rules-\w+, rules.yaml: .*\babsolut\b"
    ):
        check_rules(tree.folder, render(tree.folder))


def test_what_nobody_can_read_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without shadow-report the check passes, and says what it has left out."""
    tree = Tree(tmp_path / "tree")
    rules_of(tree, "absolut: 1", "report")
    manifests = render(tree.folder)
    assert list(warnings(manifests)) == []
    monkeypatch.setattr("shadow_local.translate.arguments.repository", lambda: tmp_path)
    check_rules(tree.folder, manifests)
    check_arguments(tree.folder, manifests)
    (line,) = warnings(manifests)
    assert "`make install PROJECT=shadow-report`" in line


# By option: what to write wrong where, and shadow-report's words for it.
WRONG_ARGUMENTS = [
    ("retention", "--keep, 30d", "--keep, 7days", "--keep is '7days'"),
    ("retention", "--keep, 30d", "--keep=12h", "--keep is '12h', less than a day"),
    ("retention", "[maintain", "[maintains", "No such command 'maintains'"),
    ("report", "[compare", "[compare, --max-disagreement=1x", "--max-disagreement is '1x'"),
    ("report", "--since-rollout", "--since=yesterday", "--since is 'yesterday'"),
    ("report", "--since-rollout", "--since-rolout", "--since-rolout"),
    ("live-verdict", "--port=8080", "--port=http", "Invalid value for '--port'"),
    ("live-verdict", "[serve", "[serve, --every=1", "--every is '1'"),
    ("follow-later", "--rate=$(FOLLOW_RATE)", "--rate=fast", "--rate is 'fast'"),
]


@pytest.mark.parametrize(("option", "right", "wrong", "words"), WRONG_ARGUMENTS)
def test_arguments_that_the_report_refuses_are_refused(
    tmp_path: Path, option: str, right: str, wrong: str, words: str
) -> None:
    """In its own words, with the file that is to be mended where one says the same."""
    tree = Tree(tmp_path / "tree")
    if option != "retention":
        tree.switch_on(option)
    files = (tree.folder / "manifests/options" / option).iterdir()
    (file,) = (file for file in files if "args:" in file.read_text())
    tree.replace(str(file), right, wrong)
    with pytest.raises(Malformed) as refusal:
        check_arguments(tree.folder, render(tree.folder))
    (line,) = str(refusal.value).splitlines()
    assert line.startswith(f"{file}: ")
    assert words in line


def test_sound_arguments_pass(tmp_path: Path) -> None:
    """Of every option of each topology, with rules and what stands there by reference; none needs a
    database.
    """
    manifests = []
    for topology in TOPOLOGIES:
        tree = Tree(tmp_path / topology)
        tree.choose_topology(topology)
        tree.switch_on_options(topology)
        manifests += render(tree.folder)
    # What two of them have alike is asked once.
    check_arguments(tree.folder, manifests)
