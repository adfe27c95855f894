"""What the manifests say is done or refused: nothing in them is passed over."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from gateways import rendered
from tree import TOPOLOGIES, Tree

from shadow_local.database import Database
from shadow_local.processes import Node, component_command, deployment_command
from shadow_local.translate.cluster import warnings
from shadow_local.translate.deployments import deployments
from shadow_local.translate.document import Untranslated, expand, of_kind, repository
from shadow_local.translate.mesh import KINDS, Mesh, build_mesh
from shadow_local.translate.services import Ports, candidates, inference_services

Manifest = dict[str, Any]

# Free text, or what only a pod has; see ONLY_IN_PODS and ONLY_IN_CLUSTERS.
WITHOUT_A_MEANING_HERE = {
    "annotations",
    "labels",
    "matchLabels",
    "resources",
    "securityContext",
    "secret",
}
# Their keys are names of the user's choosing: headers, labels, selectors.
OPEN_MAPPINGS = {"headers", "set", "add", "selector", "withoutHeaders"}


@pytest.mark.parametrize("stage", ["shadow-added", "mirroring-on", "shadow-promoted"])
def test_the_candidates_are_the_manifests_own(tmp_path: Path, stage: str) -> None:
    """Also once one of them is promoted, when the former primary has the role shadow."""
    tree = Tree(tmp_path / "tree")
    for option in ("report", "second-shadow/standard"):
        tree.switch_on(option)
    manifests = tree.objects(f"manifests/stages/{stage}")
    (report,) = [item for item in manifests if item["metadata"]["name"].endswith("-report")]
    pod = report["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    (named,) = [v["value"] for v in pod["containers"][0]["env"] if v["name"] == "SHADOW_CANDIDATES"]
    assert candidates(manifests) == tuple(named.split(","))
    assert candidates(manifests) == judged(manifests)


def test_without_labels_the_candidates_are_the_shadows() -> None:
    """As who writes InferenceServices of their own may leave them out."""
    manifests = copy.deepcopy(list(rendered("standard")))
    for item in manifests:
        item["metadata"].pop("labels", None)
    assert candidates(manifests) == judged(manifests) == ("triple-minimal-inference",)


def judged(manifests: list[Manifest]) -> tuple[str, ...]:
    """By what is run of them."""
    return tuple(service.name for service in inference_services(manifests) if service.judged)


def translate(manifests: list[Manifest], folder: Path) -> Mesh:
    """Everything that `shadow-local up` reads from manifests, without starting a thing."""
    services = inference_services(manifests)
    pods = {(s.name, kind): [Ports(1, 2)] for s in services for kind in KINDS}
    for service in services:
        for component in (service.predictor, service.transformer):
            component_command(service, component, Ports(1, 2), 3, node(folder))
    mesh = build_mesh(manifests, pods, 8080, lambda: 8081)
    for deployment in deployments(manifests):
        deployment_command(deployment, Ports(1, 2), mesh.upstreams, node(folder))
    return mesh


def node(folder: Path) -> Node:
    """A place for processes whose database is never asked."""
    uri = "postgresql://transformer@127.0.0.1:5432/predictions"
    return Node(
        repository(), folder, secret=lambda *_: "x", local_uri=lambda _: uri, storage=folder
    )


def mappings(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping in a manifest in which an unknown field has to be noticed."""
    if isinstance(value, dict):
        if path.rsplit(".", 1)[-1] not in OPEN_MAPPINGS or set(value) & {"request", "response"}:
            yield path, value
        for name, item in value.items():
            if name not in WITHOUT_A_MEANING_HERE:
                yield from mappings(item, f"{path}.{name}" if path else name)
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from mappings(item, f"{path}[{position}]")


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_rendered_manifests_are_translated(topology: str, tmp_path: Path) -> None:
    """The repository's own manifests hold nothing that this runner leaves out."""
    translate(rendered(topology), tmp_path)


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_field_planted_anywhere_is_refused(topology: str, tmp_path: Path) -> None:
    """An unknown field in any mapping stops the start, with its object, path and value."""
    planted = 0
    for number, manifest in enumerate(rendered(topology)):
        if manifest["kind"] in ("ConfigMap", "CronJob", "NetworkPolicy"):
            continue
        paths = [path for path, _ in mappings(manifest)]
        for position, path in enumerate(paths):
            changed = copy.deepcopy(rendered(topology))
            list(mappings(changed[number]))[position][1]["planted"] = "weed"
            with pytest.raises(Untranslated) as refused:
                translate(changed, tmp_path)
            below = f"{path}.planted" if path else "planted"
            name = manifest["metadata"]["name"]
            expected = f"{manifest['kind']} {name}: {below} is 'weed'"
            assert str(refused.value).startswith(expected)
            planted += 1
    assert planted > 100


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    [
        ("VirtualService", "spec.http.1.route.0.destination.host", "other.ns.svc", "not a Service"),
        ("VirtualService", "spec.http.1.route.0.destination.port.number", 8080, "not a Service"),
        ("VirtualService", "spec.http.1.mirrors.0.destination.host", "gone", "not a Service"),
        ("VirtualService", "spec.http.1.mirrors.0.percentage.value", 101, "from 0 to 100"),
        ("VirtualService", "spec.http.1.timeout", "60", "a time such as"),
        ("VirtualService", "spec.http.1.fault", {"abort": {}}, "does not translate"),
        ("VirtualService", "spec.gateways", ["mesh"], "not rendered"),
        ("Service", "spec.ports.0.targetPort", 8088, "nothing listens on targetPort 8088"),
        ("Service", "spec.selector", {"component": "explainer"}, "not a Service"),
        (
            "DestinationRule",
            "spec.trafficPolicy.connectionPool.http.maxRetries",
            0,
            "Istio ignores 0",
        ),
        ("DestinationRule", "spec.host", "gone.ns.svc.cluster.local", "not a Service"),
        ("DestinationRule", "spec.subsets", [{"name": "v1"}], "does not translate"),
        ("InferenceService", "metadata.annotations", {}, "deploymentMode"),
        ("InferenceService", "spec.explainer", {}, "add it for the cluster alone"),
        ("InferenceService", "spec.predictor.minReplica", 1, "does not translate"),
        (
            "InferenceService",
            "spec.transformer.containers.0.image",
            "a/gone:1",
            "is not built from",
        ),
        ("InferenceService", "spec.transformer.containers.0.env.2.value", 2025, "in quotes"),
        ("InferenceService", "spec.transformer.containers.0.command", ["sh"], "on top"),
        ("InferenceService", "spec.transformer.containers.0.args", ["--http_port=1"], "itself"),
        ("InferenceService", "spec.transformer.volumes", [], "mounts"),
        ("InferenceService", "spec.predictor.containers.0.ports.0.containerPort", 9090, "on top"),
        (
            "InferenceService",
            "spec.predictor.containers.0.readinessProbe.httpGet.port",
            1,
            "port is 1; the container listens on port 8080",
        ),
    ],
)
def test_a_mistake_is_refused(tmp_path: Path, kind: str, path: str, value: Any, words: str) -> None:
    """Values that would break the deployment on a cluster do not start here either."""
    refuses(rendered("standard"), tmp_path, (kind, path, value), words)


def test_an_object_that_may_change_what_callers_get_is_refused(tmp_path: Path) -> None:
    """Such as a filter in the proxy; the message says where it may stand."""
    of_proxy = {"kind": "EnvoyFilter", "metadata": {"name": "any"}}
    with pytest.raises(Untranslated, match=r"^EnvoyFilter any: .* for the cluster alone"):
        translate([*rendered("standard"), of_proxy], tmp_path)


def test_an_object_off_the_calls_path_is_passed_over(tmp_path: Path) -> None:
    """A folder on top may bring a budget or its keys, and is rehearsed all the same."""
    manifests = rendered("standard")
    others = [
        {"kind": kind, "metadata": {"name": "any"}}
        for kind in ("PodDisruptionBudget", "ExternalSecret", "Secret", "Namespace")
    ]
    assert translate([*manifests, *others], tmp_path) == translate(manifests, tmp_path)


def refuses(
    manifests: list[Manifest], folder: Path, planted: tuple[str, str, Any], words: str
) -> None:
    """The value at the path in the first object of the kind is refused in these words."""
    kind, path, value = planted
    changed = copy.deepcopy(manifests)
    target: Any = next(item for item in changed if item["kind"] == kind)
    *parents, last = path.split(".")
    for step in parents:
        target = target[int(step) if step.isdigit() else step]
    target[last] = value
    with pytest.raises(Untranslated, match=re.escape(words)):
        translate(changed, folder)


@pytest.mark.parametrize(
    ("kind", "path", "value", "words"),
    [
        ("HTTPRoute", "spec.rules.0.matches.0.path.type", "RegularExpression", "only Exact and"),
        ("HTTPRoute", "spec.rules.0.filters.0.type", "RequestMirror", "nothing else"),
        ("HTTPRoute", "spec.rules.0.backendRefs", [], "one backend is needed"),
        ("HTTPRoute", "spec.rules.0.backendRefs.0.name", "gone", "not a Service"),
        ("HTTPRoute", "spec.rules.0.timeouts.request", "60", "a time such as"),
        ("HTTPRoute", "spec.parentRefs", [], "a gateway is needed"),
        ("GRPCRoute", "spec.rules.0.matches.0.method.type", "RegularExpression", "only Exact"),
        ("GRPCRoute", "spec.rules.0.matches.0.headers.0.type", "RegularExpression", "only Exact"),
        ("GRPCRoute", "spec.rules.0.backendRefs.0.port", 80, "not a Service"),
        ("Deployment", "spec.replicas", 2, "one process"),
        ("Deployment", "spec.selector.matchLabels", {"app": "other"}, "the pods have"),
        ("Deployment", "spec.template.spec.containers.0.command", ["sh"], "on top"),
        ("Deployment", "spec.template.spec.volumes", [], "mounts"),
    ],
)
def test_a_mistake_without_a_mesh_is_refused(
    tmp_path: Path, kind: str, path: str, value: Any, words: str
) -> None:
    """The Gateway API's routes and the follower are read as closely."""
    refuses(rendered("follow"), tmp_path, (kind, path, value), words)


@pytest.mark.parametrize("name", TOPOLOGIES)
def test_every_option_is_translated(tmp_path: Path, name: str) -> None:
    """None of them stops `make up`; the live verdict gets the file of the option rules."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(name)
    tree.switch_on_options(name)
    manifests = tree.objects()
    mesh = translate(manifests, tmp_path / "run")
    (judge,) = [item for item in deployments(manifests) if item.component == "live-verdict"]
    command, _ = deployment_command(judge, Ports(7, 8), mesh.upstreams, node(tmp_path / "run"))
    assert "--port=7" in command.words
    assert "--address=127.0.0.1" in command.words, "nobody else on this network reads it"
    rules = Path(command.words[-1].removeprefix("--rules="))
    assert rules.is_relative_to(tmp_path / "run")
    assert rules.read_text() == (tree.folder / "manifests/options/rules/rules.yaml").read_text()


def test_an_address_of_another_database_is_refused_with_whose_it_is(
    tmp_path: Path, postgres_uri: str
) -> None:
    """Each pod may have its own."""
    changed = copy.deepcopy(rendered("follow"))
    (follower,) = (item for item in changed if item["kind"] == "Deployment")
    (container,) = follower["spec"]["template"]["spec"]["containers"]
    (address,) = (each for each in container["env"] if each["name"] == "POSTGRES_URI")
    database = Database(tmp_path)
    database.uri = postgres_uri
    address["value"] = urlsplit(database.of_role("report"))._replace(path="/staging").geturl()
    at = replace(node(tmp_path), local_uri=lambda uri: database.local_uri(uri, "report"))
    upstreams = translate(changed, tmp_path).upstreams
    (deployment,) = deployments(changed)
    with pytest.raises(Untranslated, match=r"^Deployment .*: POSTGRES_URI .* to predictions\."):
        deployment_command(deployment, Ports(7, 8), upstreams, at)


@pytest.mark.parametrize("args", [["--model_name=cancer"], ["--model_name", "cancer"]])
def test_a_models_name_is_read_in_either_form(args: list[str]) -> None:
    """The predict URL has it, as the transformer answers under that name alone."""
    manifests = copy.deepcopy(rendered("standard"))
    for item in manifests:
        if item["kind"] == "InferenceService":
            item["spec"]["transformer"]["containers"][0]["args"] = args
    paths = {service.call_path for service in inference_services(manifests)}
    assert paths == {"v1/models/cancer:predict"}


def test_a_config_map_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A pod that mounts it would never start on a cluster."""
    volumes = [{"name": "rules", "configMap": {"name": "gone"}}]
    planted = ("Deployment", "spec.template.spec.volumes", volumes)
    refuses(rendered("follow"), tmp_path, planted, "the kustomization has the ConfigMaps")


def test_an_object_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    """A kind that nobody translates is named, not skipped."""
    unknown = {"kind": "EnvoyFilter", "metadata": {"name": "magic"}}
    with pytest.raises(Untranslated, match="EnvoyFilter magic"):
        translate([*rendered("standard"), unknown], tmp_path)


@pytest.mark.parametrize("position", [0, 2])
def test_a_route_that_takes_calls_from_the_mirror_is_warned_of(
    tmp_path: Path, position: int
) -> None:
    """Of batch callers, with a timeout of their own, before the one that copies and not behind it;
    the calls' address is the same.
    """
    manifests = copy.deepcopy(rendered("standard"))
    (callers,) = (
        item
        for item in of_kind(manifests, "VirtualService")
        if item["metadata"]["name"] == "mirrored-inference.callers"
    )
    mirrored = next(route for route in callers["spec"]["http"] if route.get("mirrors"))
    uri = {"regex": "/serving/prokube-demo-profile/mirrored-inference/v1/models/[^/]+:predict"}
    long = mirrored | {"name": "long", "match": [{"uri": uri}], "timeout": "300s"}
    del long["mirrors"]
    callers["spec"]["http"].insert(position, long)
    found = list(warnings(manifests))
    assert [line.partition("stands")[0] for line in found] == [
        "VirtualService mirrored-inference.callers: its route long "
    ] * (position == 0)
    entry = "/serving/prokube-demo-profile/mirrored-inference/"
    assert translate(manifests, tmp_path).entry_path == entry


def test_two_primaries_are_refused(tmp_path: Path) -> None:
    """Callers have one answer; shadows may be several."""
    doubled = [
        copy.deepcopy(item) for item in rendered("standard") if item["kind"] == "InferenceService"
    ]
    for item in doubled:
        item["metadata"]["name"] += "-again"
    with pytest.raises(Untranslated, match="both have SHADOW_ROLE"):
        translate([*rendered("standard"), *doubled], tmp_path)


def test_a_host_that_its_gateway_does_not_admit_is_refused(tmp_path: Path) -> None:
    """Istio drops such a host without a word; here it is named."""
    changed = copy.deepcopy(rendered("knative"))
    gateway = next(item for item in changed if item["kind"] == "Gateway")
    gateway["spec"]["servers"][0]["hosts"] = ["*.example.com"]
    with pytest.raises(Untranslated, match="is not admitted by Gateway"):
        translate(changed, tmp_path)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("$(A)/$(B)", "one/$(B)"),
        ("$$(A)", "$(A)"),
        ("$A", "$A"),
        ("$(A", "$(A"),
    ],
)
def test_variables_are_expanded_as_in_a_pod(text: str, expanded: str) -> None:
    """Only `$(NAME)` of a variable that came before is replaced."""
    assert expand(text, {"A": "one"}) == expanded
