"""What a control plane found once, planted again: each is refused in one line before a start."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from gateways import rendered
from runs import Start
from tree import (
    LONG_NAMES,
    OPTIONS,
    OPTIONS_OF,
    OTHER_SETTINGS,
    SETTINGS,
    STAGES_OF_THEIR_OWN,
    TOPOLOGIES,
    Tree,
)

from shadow_local.translate import cluster
from shadow_local.translate.cluster import (
    RefusedByCluster,
    checked,
    problems,
    topology_of,
    warnings,
)
from shadow_local.translate.document import Manifest, of_kind, render, repository
from shadow_local.translate.forms import variables_of
from shadow_local.translate.patches import misplaced
from shadow_local.translate.selectors import shut

InRuntime = tuple[Manifest, Manifest, list[Manifest]]
NAME = "MLSERVER_MODEL_NAME"
# The second shadow's mirror has a Service with a longer name than the first one's.
LONG_WITH_SECOND = LONG_NAMES | {"entry": "entry-of-22-characters"}
DENIES_BY_PATH: Manifest = {
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "api-key", "namespace": "istio-system"},
    "spec": {
        "action": "DENY",
        "selector": {"matchLabels": {"istio": "ingressgateway"}},
        "rules": [
            {
                "to": [{"operation": {"paths": ["/serving/*"]}}],
                "when": [{"key": "request.headers[x-api-key]", "notValues": ["secret"]}],
            }
        ],
    },
}


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    "settings",
    [{}, OTHER_SETTINGS, LONG_WITH_SECOND],
    ids=["defaults", "other settings", "long names"],
)
def test_nothing_of_ours_is_refused(
    tmp_path: Path, topology: str, settings: dict[str, str]
) -> None:
    """Nor warned of: root, stages and options, with the settings as they come, others, and the
    longest names.
    """
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    values = tree.settings() | settings
    if topology == "follow":
        # Of these it warns: see the two tests below.
        tree.replace(OPTIONS, "  - follow-later", "  # - follow-later")
        values["gateway-namespace"] = values["gateway"].partition("/")[0]
    tree.choose_settings(values)
    for manifests in map(render, stages(tree)):
        assert list(problems(manifests)) == []
        assert list(warnings(manifests)) == []


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_no_option_of_ours_is_above_the_one_that_it_changes(tmp_path: Path, topology: str) -> None:
    """Whatever the settings: they change names, and these targets are kinds and labels."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    for folder in stages(tree):
        assert list(misplaced(folder)) == []


def stages(tree: Tree) -> list[Path]:
    """The root and the stages that render something of their own."""
    own = [tree.folder / "manifests/stages" / stage for stage in STAGES_OF_THEIR_OWN]
    return [tree.folder, *own]


@pytest.mark.parametrize("topology", ["standard", "knative"])
@pytest.mark.parametrize(("connections", "is_told"), [(576, False), (577, True)])
def test_connections_beyond_the_calls_that_are_let_through_are_warned_of(
    tmp_path: Path, topology: str, connections: int, is_told: bool
) -> None:
    """Envoy drops copies past http2MaxRequests over HTTP/1 too (upstream_rq_active_overflow)."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    limits = f"manifests/mirroring/{topology}/shadow-limits.yaml"
    tree.replace(limits, "maxConnections: 64", f"maxConnections: {connections}")
    manifests = render(tree.folder)
    assert list(problems(manifests)) == []
    told = [
        line for line in warnings(manifests) if "http2MaxRequests counts those of HTTP/1" in line
    ]
    assert bool(told) is is_told


@pytest.mark.parametrize("topology", ["standard", "knative"])
@pytest.mark.parametrize(("share", "is_told"), [("0", True), ("0.0", True), ("0.5", False)])
def test_a_mirror_that_copies_nothing_is_warned_of(
    tmp_path: Path, topology: str, share: str, is_told: bool
) -> None:
    """A cluster takes it for what is meant; the routes to both shadows, and of gRPC, are named."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    tree.choose_settings(tree.settings() | {"mirror-percentage": share})
    manifests = render(tree.folder)
    assert list(problems(manifests)) == []
    told = [line for line in warnings(manifests) if "so none of them gets a pair" in line]
    assert len({line.partition(" calls to ")[2] for line in told}) == (4 if is_told else 0)


def test_a_shadow_that_two_follow_is_warned_of(tmp_path: Path) -> None:
    """The follower and follow-later, where both are on; the second shadow has a follower alone."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("follow")
    tree.switch_on("follow-later")
    tree.switch_on("second-shadow/follow")
    on, *others = (list(warnings(render(folder))) for folder in stages(tree))
    (line,) = on
    assert line.startswith(
        "CronJob mirrored-inference-follow-later: Deployment mirrored-inference-follower sends the "
        "same calls to triple-minimal-inference, some of them twice"
    )
    assert others == [[]] * len(others)


@pytest.mark.parametrize("namespace", ["edge", "istio-system"])
def test_a_policy_that_lets_in_another_namespace_than_the_gateways_is_warned_of(
    tmp_path: Path, namespace: str
) -> None:
    """Where the setting is as it came; one that somebody wrote says where the pods are."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("follow")
    tree.choose_settings(tree.settings() | {"gateway": f"{namespace}/public"})
    assert list(warnings(render(tree.folder))) == []  # no policy, nobody shut out
    tree.switch_on("network-policies/follow")
    said = "\n".join(warnings(render(tree.folder)))
    where = "gateways of the namespace istio-system, and the routes' Gateway is in edge: unless"
    assert where in said if namespace == "edge" else said == ""
    tree.choose_settings(tree.settings() | {"gateway-namespace": "envoy-gateway-system"})
    assert list(warnings(render(tree.folder))) == []


@pytest.mark.parametrize(
    ("first", "second", "changed"),
    [
        ("live-verdict", "alerts", "PrometheusRule mirrored-inference-shadow-deployment"),
        ("rules", "report", "CronJob mirrored-inference-report"),
        ("second-shadow/standard", "report", "CronJob mirrored-inference-report"),
        ("pass-paths", "second-shadow/standard", "InferenceService quadruple-minimal-inference"),
    ],
)
def test_an_option_above_the_one_that_it_changes_is_warned_of(
    tmp_path: Path, first: str, second: str, changed: str
) -> None:
    """Kustomize leaves its patches out without a word."""
    tree = Tree(tmp_path / "tree")
    for lines, warned in (((first, second), [changed]), ((second, first), [])):
        components = "".join(f"  - {line}\n" for line in lines)
        kind = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        (tree.folder / OPTIONS).write_text(f"{kind}components:\n{components}")
        name = first.partition("/")[0]
        assert list(misplaced(tree.folder)) == [
            f"{tree.folder}/{OPTIONS}: the option {name} changes {item}, which is added after it; "
            f"put the line of {name} below that of the option that adds it."
            for item in warned
        ]


def test_no_example_is_refused() -> None:
    """Nor warned of: every folder of examples/ that is a kustomization."""
    below = repository() / "examples"
    found = [*below.glob("*/kustomization.yaml"), *below.glob("*/*/kustomization.yaml")]
    assert found
    for manifests in (checked(file.parent) for file in found):
        assert list(warnings(manifests)) == []


@pytest.mark.parametrize(
    ("topology", "profile", "primary", "refused"),
    [
        ("standard", "prokube-demo-profile", "double-minimal-inference", False),
        ("standard", "prokube-demo-profile", "double-minimal-custom-inference", True),
        ("knative", "prokube-demo-profile", "double-minimal-custom-inference", False),
        ("standard", "p" * 26, "double-minimal-inference", False),
        ("standard", "p" * 27, "double-minimal-inference", True),
        ("standard", "prokube-demo-profile", "n" * 30, False),
        ("standard", "prokube-demo-profile", "n" * 31, True),
        ("standard", "prokube-demo-profile", "2nd-model", True),
        ("standard", "prokube-demo-profile", "model.v2", True),
        ("knative", "prokube-demo-profile", "Model", True),
    ],
)
def test_names_are_refused_where_kserve_refuses_them(
    tmp_path: Path, topology: str, profile: str, primary: str, refused: bool
) -> None:
    """A host label of 64 characters, which KServe reports in an event alone; and its own rule."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.choose_settings(tree.settings() | {"profile": profile, "primary": primary})
    found = [line for line in problems(render(tree.folder)) if primary in line]
    assert bool(found) == refused
    assert all("\n" not in line and SETTINGS in line for line in found)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    "option", [name for name, fits in OPTIONS_OF.items() if fits != TOPOLOGIES]
)
def test_an_option_of_another_topology_is_refused(
    tmp_path: Path, topology: str, option: str
) -> None:
    """Its objects would be taken, and do nothing or shut the callers out."""
    tree, fits = Tree(tmp_path / "tree"), OPTIONS_OF[option]
    tree.choose_topology(topology)
    tree.switch_on(option)
    for folder in (tree.folder, tree.folder / "manifests/stages/shadow-added"):
        found = list(problems(render(folder)))
        assert len(found) == (topology not in fits)
        said = f"an option for {', '.join(fits)} is on, and the topology is {topology}"
        assert all(said in line for line in found)
        assert all("manifests/options/kustomization.yaml" in line for line in found)


@pytest.mark.parametrize("option", ["report", "live-verdict", "rules", "second-shadow/standard"])
def test_an_option_that_a_folder_on_top_names_is_refused(tmp_path: Path, option: str) -> None:
    """No setting reaches it there."""
    tree = Tree(tmp_path / "tree")
    folder = tree.folder / "team"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(
        f"resources: [../manifests/mirroring]\ncomponents: [../manifests/options/{option}]\n"
    )
    with pytest.raises(RefusedByCluster) as raised:
        checked(folder)
    place = f"{tree.folder}/manifests/options/kustomization.yaml"
    assert f"switch its option on in {place}, and leave it out" in str(raised.value)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_topology_has_all_that_is_its_own(topology: str) -> None:
    """Its name where the check and the reader look for it, and the options with a form for each."""
    own = {f"network-policies/{topology}", f"second-shadow/{topology}"}
    own |= {f"second-shadow/{topology}/network-policies"}
    unlisted = own - OPTIONS_OF.keys()
    assert not unlisted, f"manifests/options, and {OPTIONS}: no folder and line {unlisted}"
    unfit = {option for option in own if OPTIONS_OF[option] != (topology,)}
    assert not unfit, f"shadow-deployment/fits in manifests/options: not {topology} in {unfit}"
    manifests = repository() / "manifests"
    assert topology_of(render(manifests / "mirroring" / topology)) == topology, (
        f"shadow-deployment/topology in manifests/mirroring/{topology}/kustomization.yaml"
    )
    for file in (repository() / "Makefile", manifests / "mirroring/kustomization.yaml"):
        assert re.search(rf"(TOPOLOGY=|  - ).*\b{topology}\b", file.read_text()), (
            f"{file} does not name the topology {topology}"
        )
    page = manifests / "README.md"
    assert f"`{topology}`" in page.read_text(), f"{page} does not name the topology `{topology}`"


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("side", ["primary", "shadow"])
def test_an_entry_that_hides_a_model_is_refused(tmp_path: Path, topology: str, side: str) -> None:
    """Its direct path would be the callers' path."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.choose_settings(tree.settings() | {"entry": tree.settings()[side]})
    (line,) = problems(render(tree.folder))
    assert f"called like InferenceService {tree.settings()[side]}, whose path" in line
    assert SETTINGS in line


def plant(path: str, value: Any) -> Callable[[Manifest], None]:
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]

    def planted(item: Manifest) -> None:
        place: Any = item
        for part in parents:
            place = place[part]
        place[last] = value

    return planted


PLANTED = [
    # C3: the mirror's Service may move the gateway's own port 80.
    (
        "knative",
        "Service",
        plant("spec/ports/0/port", 80),
        "Istio may move the gateway's own port 80",
    ),
    # C5: bodies that the gateway cannot hold.
    (
        "standard",
        "VirtualService",
        plant("spec/http/1/match/0/headers/content-length/regex", "[0-9]{1,7}"),
        "a stuck shadow stalls the caller",
    ),
    (
        "standard",
        "VirtualService",
        plant("spec/http/1/match/0/headers", {}),
        "a stuck shadow stalls the caller",
    ),
    # Nor bodies of six digits alone, by a slip for {1,6}.
    (
        "standard",
        "VirtualService",
        plant("spec/http/1/match/0/headers/content-length/regex", "[0-9]{6}"),
        "copies no body of 10 to 10,000 bytes, whose length is not [0-9]{6}. Set mirror-content",
    ),
    # C6: KServe's own VirtualService.
    (
        "knative",
        "VirtualService",
        plant("metadata/name", "double-minimal-inference"),
        "KServe overwrites",
    ),
    # C8: an autoscaler that has nowhere to go.
    ("standard", "InferenceService", plant("spec/transformer/maxReplicas", 0), "never scales"),
    ("standard", "InferenceService", plant("spec/predictor/minReplicas", 4), "never scales"),
    (
        "standard",
        "InferenceService",
        plant("spec/predictor/scaleMetric", "rps"),
        "in Standard mode",
    ),
    ("knative", "InferenceService", plant("spec/predictor/scaleMetric", "cpu"), "in Knative mode"),
    ("standard", "InferenceService", plant("spec/predictor/scaleTarget", 400), "1 to 100"),
    # C11: one side gives up before the other.
    ("knative", "InferenceService", plant("spec/predictor/timeout", 30), "the gateway waits 60 s"),
    (
        "knative",
        "InferenceService",
        plant("spec/transformer/containers/0/env/12/value", "45"),
        "kills a stopping transformer after 60 s, which takes 75 s",
    ),
    (
        "standard",
        "InferenceService",
        plant("spec/transformer/containers/0/env/12/value", "600"),
        (
            "Kubernetes kills a stopping transformer after 75 s, which takes 635 s (preStop, "
            "SHUTDOWN_GRACE_SECONDS and SHUTDOWN_DRAIN_SECONDS); raise its "
            "terminationGracePeriodSeconds to 635 or more."
        ),
    ),
    (
        "follow",
        "InferenceService",
        plant("spec/transformer/terminationGracePeriodSeconds", 64),
        "Kubernetes kills a stopping transformer after 64 s, which takes 65 s",
    ),
    # Names that only their controllers refuse.
    ("standard", "CronJob", plant("metadata/name", "j" * 53), "of at most 52"),
    ("standard", "CronJob", plant("spec/schedule", "every 6h"), "its schedule is 'every 6h', wh"),
    ("standard", "CronJob", plant("spec/schedule", "0 3 * *"), "its schedule is '0 3 * *', which"),
    ("standard", "CronJob", plant("spec/timeZone", "Europe/Berlinn"), "refuses; is Europe/Berlin "),
    ("standard", "Service", plant("metadata/name", "s" * 64), "of at most 63"),
    ("follow", "HTTPRoute", plant("spec/hostnames/0", "*"), "the host that callers use"),
]


@pytest.mark.parametrize(("topology", "kind", "change", "words"), PLANTED)
def test_a_finding_is_found_again(
    topology: str, kind: str, change: Callable[[Manifest], None], words: str
) -> None:
    """Each in one line that names the object."""
    changed = copy.deepcopy(rendered(topology))
    of_kind = [item for item in changed if item["kind"] == kind]
    item = next((i for i in of_kind if i["metadata"]["namespace"] == "istio-system"), of_kind[0])
    change(item)
    (line,) = problems(changed)
    assert words in line
    assert item["metadata"]["name"] in line


@pytest.mark.parametrize(
    "schedule", ["*/5 * * * *", "0 3 1,15 * MON-FRI", "0 0-6/2 * JAN ?", "@daily", "@every 90m"]
)
def test_a_schedule_that_kubernetes_reads_is_taken(schedule: str) -> None:
    """Its own words among them."""
    manifests = copy.deepcopy(list(rendered("standard")))
    job = next(item for item in manifests if item["kind"] == "CronJob")
    job["spec"]["schedule"] = schedule
    assert not list(problems(manifests))


@pytest.mark.parametrize(
    ("spool", "volume", "storage", "words"),
    [
        ("1073741824", "1280Mi", "2Gi", None),
        ("1073741824", None, None, None),
        (None, "1280Mi", "1280Mi", None),
        (None, "1279Mi", "2Gi", "sizeLimit of the volume spool is 1279Mi, and SPOOL_MAX_BYTES is"),
        ("4294967296", "5Gi", "6Gi", None),
        ("4294967296", "5G", "6Gi", "Set it to 5120Mi or more, a quarter above."),
        (
            "4294967296",
            "5Gi",
            "2Gi",
            "the limit of ephemeral-storage of kserve-container is 2Gi, and SPOOL_MAX_BYTES is 429",
        ),
    ],
)
def test_a_limit_that_the_spool_can_outgrow_is_refused(
    spool: str | None, volume: str | None, storage: str | None, words: str | None
) -> None:
    """The kubelet would evict the pod, and its records with it."""
    changed = copy.deepcopy(list(rendered("standard")))
    for item in (item for item in changed if item["kind"] == "InferenceService"):
        transformer = item["spec"]["transformer"]
        (container,) = transformer["containers"]
        (variable,) = (one for one in container["env"] if one["name"] == "SPOOL_MAX_BYTES")
        variable["value"] = spool
        volumes = {one["name"]: one for one in transformer["volumes"]}
        volumes["spool"]["emptyDir"] = {"sizeLimit": volume} if volume else {}
        container["resources"]["limits"].pop("ephemeral-storage")
        if storage:
            container["resources"]["limits"]["ephemeral-storage"] = storage
    found = list(problems(changed))
    assert len(found) == (2 if words else 0)
    assert all(str(words) in line for line in found)


@pytest.mark.parametrize(
    ("body", "room", "refused"),
    [
        (None, "134217728", False),
        (None, "134217727", True),
        ("134217728", None, False),
        ("134217729", None, True),
    ],
)
def test_a_transformer_that_does_not_start_for_want_of_room_is_refused(
    body: str | None, room: str | None, refused: bool
) -> None:
    """As it refuses itself, with the pod restarted over and over."""
    changed = copy.deepcopy(list(rendered("standard")))
    for item in (item for item in changed if item["kind"] == "InferenceService"):
        for name, value in (("MAX_BODY_BYTES", body), ("MAX_IN_FLIGHT_BYTES", room)):
            if value:
                env = item["spec"]["transformer"]["containers"][0]["env"]
                env.append({"name": name, "value": value})
    found = list(problems(changed))
    assert len(found) == (2 if refused else 0)
    assert all("twice MAX_BODY_BYTES" in line for line in found)


def test_the_transformer_has_the_limits_that_the_check_takes() -> None:
    """Where no variable says them."""
    program = """
import json
from minimal_transformer.settings import CallSettings, RecordSettings
fields = {**CallSettings.model_fields, **RecordSettings.model_fields}
names = ("spool_max_bytes", "max_body_bytes", "max_in_flight_bytes")
print(json.dumps([fields[name].default for name in names]))
"""
    python = repository() / "minimal-transformer/.venv/bin/python"
    asked = subprocess.run([python, "-c", program], capture_output=True, text=True, check=True)
    assert json.loads(asked.stdout) == [
        cluster.SPOOL_MAX_BYTES,
        cluster.MAX_BODY_BYTES,
        cluster.MAX_IN_FLIGHT_BYTES,
    ]


@pytest.mark.parametrize(
    ("port", "holder"),
    [
        ("8089", None),
        ("14999", None),
        ("15000", "Istio itself"),
        ("15021", "Istio itself"),
        ("15090", "Istio itself"),
        ("15091", None),
        ("8081", "Knative's local gateway"),
        ("8888", "Gateway public"),
        ("8080", "its callers, whichever Gateway is theirs"),
        ("443", "its callers, whichever Gateway is theirs"),
        ("9443", None),
    ],
)
def test_a_mirror_port_that_is_taken_is_refused(
    tmp_path: Path, port: str, holder: str | None
) -> None:
    """By Istio, by Knative, or by another Gateway of the same pods that is rendered with it."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("knative")
    tree.choose_settings(tree.settings() | {"mirror-port": port})
    others = [
        {
            "kind": "Gateway",
            "metadata": {"name": name, "namespace": "istio-system"},
            "spec": {"selector": {"istio": pods}, "servers": [{"port": {"number": number}}]},
        }
        for name, pods, number in (("public", "ingressgateway", 8888), ("inner", "edge", 9443))
    ]
    found = list(problems([*render(tree.folder), *others]))
    assert len(found) == (holder is not None)
    assert all(f"port {port} of the gateway's pods is that of {holder}; set" in o for o in found)


@pytest.mark.parametrize(
    ("topology", "kind", "path", "added", "words"),
    [
        (
            "standard",
            "InferenceService",
            "transformer/containers/0/env",
            {"name": "SPOOL_DIR", "value": "/spool"},
            "SPOOL_DIR stands twice in `env` of kserve-container in its transformer",
        ),
        (
            "follow",
            "InferenceService",
            "transformer/containers/0/env",
            {"name": "RECORD_MAX_BODY_BYTES", "value": "1"},
            "RECORD_MAX_BODY_BYTES stands twice in `env` of kserve-container in its transformer",
        ),
        (
            "knative",
            "InferenceService",
            "predictor/containers/0/ports",
            {"containerPort": 8080, "protocol": "TCP"},
            "8080/TCP stands twice in `ports` of kserve-container in its predictor",
        ),
        (
            "follow",
            "Deployment",
            "template/spec/containers/0/volumeMounts",
            {"name": "tmp", "mountPath": "/etc/prediction-db"},
            "/etc/prediction-db stands twice in `volumeMounts` of follow in its template",
        ),
    ],
)
def test_what_stands_twice_is_refused(
    topology: str, kind: str, path: str, added: Manifest, words: str
) -> None:
    """An appended variable does not change the one that is there."""
    changed = copy.deepcopy(list(rendered(topology)))
    item = next(item for item in changed if item["kind"] == kind)
    place = item["spec"]
    for part in path.split("/"):
        place = place[int(part) if part.isdigit() else part]
    place.append(added)
    (line,) = problems(changed)
    assert line.startswith(f"{kind} {item['metadata']['name']}: {words}")


def test_the_topology_follow_writes_over_what_the_base_says(tmp_path: Path) -> None:
    """Wherever it stands there."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("follow")
    base = "manifests/inference/base/inference-service.yaml"
    tree.replace(
        base, '          - name: RECORD_MAX_BODY_BYTES\n            value: "1048576"\n', ""
    )
    place = "          - name: SPOOL_DIR"
    said = '          - {name: RECORD_MAX_BODY_BYTES, value: "5000"}'
    tree.replace(base, place, f"{said}\n{place}")
    manifests = checked(tree.folder)
    for variables in variables_of("transformer", manifests):
        assert variables["RECORD_MAX_BODY_BYTES"] == "8388608"


def test_a_policy_that_cuts_off_tcp_is_found_again() -> None:
    """C2: denying by HTTP's fields denies all of a TCP port; with ports named it does not."""
    (line,) = problems([*rendered("standard"), DENIES_BY_PATH])
    assert "AuthorizationPolicy api-key" in line
    assert "every call to the TCP" in line
    narrow = copy.deepcopy(DENIES_BY_PATH)
    narrow["spec"]["rules"][0]["to"][0]["operation"]["ports"] = ["8080", "8443"]
    assert not list(problems([*rendered("standard"), narrow]))
    narrow["spec"]["rules"][0]["to"].append({"operation": {"paths": ["/other"]}})
    assert len(list(problems([*rendered("standard"), narrow]))) == 1


@pytest.mark.parametrize(("pattern", "refused"), [("[0-9]{1,6}", True), ("[0-9]{1,4}", False)])
def test_small_buffers_want_a_smaller_limit(tmp_path: Path, pattern: str, refused: bool) -> None:
    """C5: with Istio's profile EDGE a gateway holds 32 KiB of a copy."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | {"mirror-content-length": pattern})
    assert bool(list(problems(render(tree.folder), edge=True))) == refused


@pytest.mark.parametrize(
    ("ready", "asked", "still"),
    [
        ("/health", [], "readinessProbe and livenessProbe still ask for /v1/models/model;"),
        ("/health", ["readinessProbe"], "predictor's livenessProbe still asks for"),
        ("/health", ["readinessProbe", "livenessProbe"], None),
        ("/v2/health/ready", [], None),
        (None, [], None),
    ],
)
def test_probes_that_a_plain_container_never_answers_are_warned_of(
    ready: str | None, asked: list[str], still: str | None
) -> None:
    """The transformer was told of another path, and the kubelet was not."""
    manifests = copy.deepcopy(list(rendered("standard")))
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    (predictor,), (transformer,) = (
        service["spec"][kind]["containers"] for kind in ("predictor", "transformer")
    )
    transformer["env"].append({"name": "PREDICTOR_READY_PATH", "value": ready})
    for probe in asked:
        predictor[probe]["httpGet"]["path"] = ready
    found = list(warnings(manifests))
    assert len(found) == (still is not None)
    assert all(str(still) in line and service["metadata"]["name"] in line for line in found)


@pytest.mark.parametrize(
    ("ports", "probed", "words"),
    [
        ([8080], [8080, 8080], None),
        ([8000], [8000, 8000], None),
        ([8000], [8080, 8080], "readinessProbe and livenessProbe ask port 8080, and KServe sends"),
        (
            [8000],
            [8000, 8080],
            "its predictor's livenessProbe asks port 8080, and KServe sends the",
        ),
        ([], [8000, 8000], "ask port 8000, and KServe sends the calls to 8080"),
        ([8000, 9000], [9000, 9000], None),
        ([8000], ["http", "http"], None),
    ],
)
def test_a_probe_of_another_port_than_the_calls_is_warned_of(
    ports: list[int], probed: list[int | str], words: str | None
) -> None:
    """A server that listens on the one is never ready, on the other never called."""
    manifests = copy.deepcopy(list(rendered("standard")))
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    container["ports"] = [{"containerPort": port} for port in ports]
    for probe, port in zip(("readinessProbe", "livenessProbe"), probed, strict=True):
        container[probe]["httpGet"]["port"] = port
    found = list(warnings(manifests))
    assert len(found) == (words is not None)
    assert all(str(words) in line and service["metadata"]["name"] in line for line in found)


@pytest.mark.parametrize("topology", ["standard", "knative", "follow"])
def test_a_policy_that_shuts_the_port_of_calls_is_warned_of(tmp_path: Path, topology: str) -> None:
    """Of several over one pod each opens what it says."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on(f"network-policies/{topology}")
    manifests = tree.objects()
    assert not list(shut(manifests))
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    for port in container["ports"]:
        port["containerPort"] = 8000
    found = list(shut(manifests))
    if topology == "knative":  # whose proxy calls the container from within the pod
        assert not found
        return
    (line,) = found
    name = service["metadata"]["name"]
    assert f"{name}: its predictor is called on port 8000, where NetworkPolicy " in line
    policy = next(
        item
        for item in of_kind(manifests, "NetworkPolicy")
        if item["spec"]["podSelector"]["matchLabels"].items()
        >= {"serving.kserve.io/inferenceservice": name, "component": "predictor"}.items()
    )
    wider = {
        **policy,
        "spec": {**policy["spec"], "ingress": [{"ports": [{"port": 7000, "endPort": 8000}]}]},
    }
    assert not list(shut([*manifests, wider]))


@pytest.mark.parametrize(
    ("kind", "args", "probes", "words"),
    [
        ("transformer", ["--model_name", "model"], {}, None),
        (
            "transformer",
            ["--model_name", "cancer"],
            {},
            "'cancer', and /v1/models/model of its readinessProbe is of another one;",
        ),
        ("transformer", ["--model_name=cancer"], {}, "its transformer is called 'cancer'"),
        (
            "transformer",
            ["--model_name=cancer"],
            {"readinessProbe": "/v1/models/cancer"},
            None,
        ),
        (
            "predictor",
            ["--model_name=cancer"],
            {},
            (
                "/v1/models/model of its readinessProbe and livenessProbe is of another one; that "
                "is answered with 404, and the pod is never ready"
            ),
        ),
        (
            "predictor",
            ["--model_name", "model", "--model_name=cancer"],
            {"readinessProbe": "/v2/models/cancer/ready"},
            (
                "of its livenessProbe is of another one; that is answered with 404, and the pod is "
                "restarted over and over"
            ),
        ),
        (
            "predictor",
            ["--model_name=cancer"],
            {"readinessProbe": "/v2/models/cancer/ready", "livenessProbe": "/v2/health/live"},
            None,
        ),
        ("predictor", ["--model_name", "$(MODEL_NAME)"], {}, None),
        ("predictor", [], {}, None),
    ],
)
def test_a_probe_that_asks_for_another_model_is_warned_of(
    kind: str, args: list[str], probes: dict[str, str], words: str | None
) -> None:
    """A server answers 404 for any model but its own, so that the pod is never ready."""
    manifests = copy.deepcopy(list(rendered("standard")))
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    (container,) = service["spec"][kind]["containers"]
    container["args"] = args
    for probe, path in probes.items():
        container[probe]["httpGet"]["path"] = path
    found = list(warnings(manifests))
    assert len(found) == (words is not None)
    assert all(str(words) in line and service["metadata"]["name"] in line for line in found)


@pytest.mark.parametrize(
    ("primary", "shadow", "words"),
    [
        (["--model_name=cancer"], ["--model_name", "cancer"], None),
        (["--model_name=cancer"], ["--model_name=$(NAME)"], None),
        (["--model_name=cancer"], ["--model_name=iris"], ("'iris'", "'cancer'")),
        (["/base", "--served-model-name=a"], ["/tuned", "--served-model-name", "b", "a"], None),
        (["/base"], ["/tuned", "--served-model-name=b"], None),
        (["--served-model-name=a"], ["--served-model-name=b", "--lora-modules", "a=/a"], None),
        (
            ["/base", "--served-model-name=a"],
            ["/tuned", "--served-model-name", "b", "c", "--port=8080"],
            ("'b' or 'c'", "'a'"),
        ),
    ],
)
def test_a_shadow_that_does_not_know_its_primarys_model_is_refused(
    primary: list[str], shadow: list[str], words: tuple[str, str] | None
) -> None:
    """Its copies are the primary's calls, and name the model as callers do."""
    manifests = copy.deepcopy(list(rendered("standard")))
    services = [item for item in manifests if item["kind"] == "InferenceService"]
    for service, args in zip(services, (primary, shadow), strict=True):
        kserves = args[0].startswith("--model_name")
        for kind in ("predictor", "transformer"):
            (container,) = service["spec"][kind]["containers"]
            container["args"] = args if kserves or kind == "predictor" else []
        if not kserves:
            container["env"].append({"name": "PREDICTOR_READY_PATH", "value": "/health"})
    found = list(problems(manifests))
    assert len(found) == (words is not None)
    for line in found:
        given, wanted = words or ("", "")
        assert f"{services[1]['metadata']['name']}: it knows its model as {given}," in line
        assert f"that of {services[0]['metadata']['name']}, {wanted}," in line


@pytest.mark.parametrize(
    ("args", "env", "said"),
    [
        (["--api-key=secret"], [], "--api-key"),
        (["--api-key", "secret"], [], "--api-key"),
        ([], ["VLLM_API_KEY"], "VLLM_API_KEY"),
        (["--api-key-file=x", "--port=8080"], ["OPENAI_API_KEY"], None),
    ],
)
def test_a_server_that_asks_for_a_key_is_warned_of(
    args: list[str], env: list[str], said: str | None
) -> None:
    """None reaches it: the gateway's own is not passed on, and nobody sends another."""
    manifests = render(repository() / "examples" / "vllm")
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    (container,) = service["spec"]["predictor"]["containers"]
    container["args"] += args
    container["env"] += [{"name": name, "value": "secret"} for name in env]
    found = list(warnings(manifests))
    assert len(found) == (said is not None)
    assert all(f": {said} has its predictor ask for a key" in line for line in found)


def test_of_several_deployments_each_may_name_its_model() -> None:
    """Nobody says which of the primaries a shadow's calls are copied from."""
    manifests = copy.deepcopy(list(rendered("standard")))
    services = [item for item in manifests if item["kind"] == "InferenceService"]
    for service, name in zip(services, ("cancer", "iris"), strict=True):
        for kind in ("predictor", "transformer"):
            service["spec"][kind]["containers"][0]["args"] = [f"--model_name={name}"]
    assert len(list(problems(manifests))) == 1
    another = copy.deepcopy(services[0])
    another["metadata"]["name"] = "another"
    assert not list(problems([*manifests, another]))


@pytest.mark.parametrize("kind", ["Namespace", "PostgresCluster"])
def test_evidence_that_would_be_deleted_with_the_models_is_warned_of(kind: str) -> None:
    """`kubectl delete -k .` leaves it, as README.md promises, while nothing of it is in there."""
    holder = {"apiVersion": "v1", "kind": kind, "metadata": {"name": "team-a"}, "spec": {}}
    (line,) = warnings([*rendered("standard"), holder])
    assert line.startswith(f"{kind} team-a: ")
    assert "takes the evidence with it" in line
    assert not list(warnings([holder]))


@pytest.fixture
def in_a_runtime() -> InRuntime:
    """A model and the spec of its ready-made runtime, and all objects of that deployment."""
    manifests = render(repository() / "examples" / "runtime")
    service, runtime = (
        next(item["spec"] for item in manifests if item["kind"] == kind)
        for kind in ("InferenceService", "ServingRuntime")
    )
    return service["predictor"]["model"], runtime, manifests


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda model, _: model.update(args=["--model_name={{.Name}}"]),
            "double-minimal-inference",
        ),
        (lambda model, _: model.update(env=[{"name": NAME, "value": "iris"}]), "'iris'"),
        (lambda _, runtime: runtime["containers"][0]["env"][0].update(value="iris"), "'iris'"),
        (
            lambda model, _: model.update(
                env=[{"name": NAME, "value": "iris"}],
                readinessProbe={"httpGet": {"path": "/v2/models/iris/ready"}},
            ),
            None,
        ),
    ],
)
def test_a_runtimes_probe_that_asks_for_another_model_is_warned_of(
    in_a_runtime: InRuntime, change: Callable[[Manifest, Manifest], object], words: str | None
) -> None:
    """Its container is the runtime's, with what the model says; each side's alone."""
    model, runtime, manifests = in_a_runtime
    change(model, runtime)
    found = list(warnings(manifests))
    assert bool(found) == (words is not None)
    assert all(str(words) in line and "/v2/models/model/ready" in line for line in found)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda *_: None, None),
        (lambda model, _: model.pop("protocolVersion"), None),
        (
            lambda model, _: model.update(protocolVersion="v1"),
            "protocolVersion is 'v1', which ServingRuntime mlserver does not support; set it to v2",
        ),
        (lambda model, _: model.update(protocolVersion="grpc-v2"), "protocolVersion is 'grpc-v2'"),
        (
            lambda model, runtime: (
                model.update(protocolVersion="v1"),
                runtime.pop("protocolVersions"),
            ),
            None,
        ),
        (
            lambda model, _: model["modelFormat"].update(name="xgboost"),
            (
                "modelFormat is 'xgboost', which ServingRuntime mlserver does not support; its "
                "supportedModelFormats are ['sklearn 1']"
            ),
        ),
        (lambda model, _: model["modelFormat"].update(version="1"), None),
        (lambda model, _: model["modelFormat"].update(version="2"), "modelFormat is 'sklearn 2'"),
        (lambda model, _: model["modelFormat"].update(version="1.3"), "is 'sklearn 1.3'"),
        (
            lambda model, runtime: (
                model["modelFormat"].update(version="1"),
                runtime["supportedModelFormats"][0].pop("version"),
            ),
            "modelFormat is 'sklearn 1'",
        ),
        (lambda model, _: model.update(runtime="of-the-cluster", protocolVersion="v1"), None),
        (
            lambda model, _: model.update(runtime="kserve-tritonserver", protocolVersion="v1"),
            "protocolVersion is 'v1', and kserve-tritonserver spe",
        ),
        (lambda _, runtime: runtime.update(disabled=True), "ServingRuntime mlserver is disabled"),
    ],
)
def test_a_model_that_its_runtime_does_not_support_is_refused(
    in_a_runtime: InRuntime, change: Callable[[Manifest, Manifest], object], words: str | None
) -> None:
    """As KServe does, in a condition of the InferenceService; a runtime of the cluster's own that
    is not rendered cannot be asked.
    """
    model, runtime, manifests = in_a_runtime
    change(model, runtime)
    found = list(problems(manifests))
    assert bool(found) == (words is not None)
    assert all(str(words) in line and "InferenceService" in line for line in found)


@pytest.mark.parametrize(
    ("option", "settings", "file"),
    [
        (None, {"entry": "triple-minimal-inference"}, SETTINGS),
        ("network-policies/follow", {}, OPTIONS),
    ],
)
def test_the_files_of_a_copy_are_named_as_they_are_there(
    tmp_path: Path, option: str | None, settings: dict[str, str], file: str
) -> None:
    """Of a kustomization on top of it; those of a base that was rendered elsewhere are its own."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | settings)
    if option:
        tree.switch_on(option)
    on_copy, on_rendered = tmp_path / "copy", tmp_path / "rendered"
    for folder, resource in ((on_copy, "../tree/manifests/mirroring"), (on_rendered, "all.yaml")):
        folder.mkdir()
        (folder / "kustomization.yaml").write_text(f"resources: [{resource}]\n")
    (on_rendered / "all.yaml").write_text(tree.text())
    for folder, place in ((on_copy, f" {tree.folder}/{file}"), (on_rendered, f" {file} of its b")):
        with pytest.raises(RefusedByCluster) as raised:
            checked(folder)
        assert place in str(raised.value)


def test_the_command_says_one_line_and_fails(start: Start, tmp_path: Path) -> None:
    """`shadow-local check` and `up` say the same, before anything is started."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | {"primary": "n" * 31})
    for command in ("check", "up"):
        run = start(command, "--kustomization", str(tree.folder))
        assert run.ends() == 1
        (line,) = run.output.read_text().splitlines()
        assert line.startswith(f"shadow-local: InferenceService {'n' * 31}: KServe cannot make")
    run = start("check", "--kustomization", str(tree.folder / "manifests/database"))
    assert run.ends() == 0


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_topology_that_the_stages_do_not_have_is_said(start: Start, topology: str) -> None:
    """`make deploy TOPOLOGY=follow` writes nothing down; a stage after it would take it back."""
    run = start("check", "--strict", TOPOLOGY=topology)
    assert run.ends() == (topology != "standard")
    lines = run.output.read_text().splitlines()
    assert f"mirroring/{topology}: found nothing that a cluster would refuse in" in lines[0]
    warning = (
        f"The stages apply standard; write `- {topology}` into "
        "manifests/mirroring/kustomization.yaml before the first of them."
    )
    fails = "--strict: with a warning it fails."
    assert lines[1:] == ([] if topology == "standard" else [warning, fails])
    if topology == "follow":
        lenient = start("check", TOPOLOGY=topology)
        assert lenient.ends() == 0
        assert lenient.output.read_text().splitlines() == lines[:-1]


def test_make_deploy_asks_before_it_applies(tmp_path: Path) -> None:
    """A name that KServe cannot use ends it in one line; kubectl is not even started."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | {"shadow": "n" * 31})
    done = _make_deploy(f"KUSTOMIZATION={tree.folder}")
    assert done.returncode == 2
    assert "kubectl" not in done.stdout
    line, _make = done.stderr.splitlines()
    assert line.startswith(f"shadow-local: InferenceService {'n' * 31}: KServe cannot make")


def test_make_deploy_needs_a_cluster_that_was_chosen() -> None:
    """Without one kubectl asks localhost:8080, where the gateway of a `make up` may answer."""
    done = _make_deploy(
        KUBECONFIG=os.devnull, PATH=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    )
    assert done.returncode == 2
    assert "found nothing that a cluster would refuse" in done.stdout
    assert "kubectl has no current context" in done.stderr
    assert "kubectl apply" not in done.stdout


def _make_deploy(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    # A make that runs these tests in parallel would have this one warn about its job server.
    hidden = {"MAKEFLAGS", "KUBERNETES_SERVICE_HOST"}
    outside = {name: value for name, value in os.environ.items() if name not in hidden}
    return subprocess.run(
        ["make", "deploy", *words],
        cwd=repository(),
        env=outside | env,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
