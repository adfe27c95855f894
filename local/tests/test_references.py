"""An overlay renames objects and leaves what names them: refused, whatever it is that does."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from gateways import rendered
from tree import MIRRORED, TOPOLOGIES, Tree

from shadow_local.translate.cluster import RefusedByCluster, checked, problems, warnings
from shadow_local.translate.document import Manifest, render, repository
from shadow_local.translate.forms import Malformed
from shadow_local.translate.references import dangling, unnamed

PRIMARY, SHADOW = "double-minimal-inference", "triple-minimal-inference"
PROFILE = "prokube-demo-profile"


DATABASE = "prediction-db-pguser-transformer", "prediction-db-cluster-cert"
OF_RETENTION = "prediction-db-pguser-maintenance"


def _secrets(*names: str, namespace: str = PROFILE) -> list[Manifest]:
    return [{"kind": "Secret", "metadata": {"name": o, "namespace": namespace}} for o in names]


def overlay(tree: Tree, text: str, *objects: Manifest) -> Path:
    """A kustomization over the tree's, with objects of its own."""
    folder = tree.folder / "team"
    folder.mkdir()
    (folder / "objects.yaml").write_text(yaml.safe_dump_all(objects))
    resources = ["../manifests/mirroring", *(["objects.yaml"] if objects else [])]
    (folder / "kustomization.yaml").write_text(f"resources: {resources}\n{text}\n")
    return folder


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("text", ["namespace: team-a", "namePrefix: a-", "nameSuffix: -a"])
def test_an_overlay_that_renames_is_refused(tmp_path: Path, topology: str, text: str) -> None:
    """It renders, and no call would arrive."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    with pytest.raises(RefusedByCluster) as raised:
        checked(overlay(tree, text))
    place = f"{tree.folder}/manifests/settings/settings.yaml"
    assert f"set the names in {place} instead, as manifests/README.md shows" in str(raised.value)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("namespace: team-a", ["DestinationRule", "VirtualService", "HTTPRoute", "GRPCRoute"]),
        (
            "namePrefix: a-\nnamespace: team-a",
            ["DestinationRule", "VirtualService", "HTTPRoute", "GRPCRoute", "NetworkPolicy"],
        ),
        (
            "nameSuffix: -a",
            ["VirtualService", "HTTPRoute", "Service", "NetworkPolicy", "PodMonitor", "CronJob"],
        ),
    ],
)
def test_each_object_that_names_another_is_found(
    tmp_path: Path, topology: str, text: str, kinds: list[str]
) -> None:
    """With every option on, all of a kind that the topology has."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    overlay(tree, text)
    manifests = tree.objects("team")
    found = {tuple(line.split(":")[0].split()[:2]) for line in dangling(manifests)}
    there = {(item["kind"], item["metadata"]["name"]) for item in manifests}
    assert {kind for kind, _ in found} >= {kind for kind, _ in there} & set(kinds)
    assert found <= there


def test_what_is_added_next_to_the_deployment_is_left_alone(tmp_path: Path) -> None:
    """Budgets, Secrets, hosts and routes of services that are rendered elsewhere, or nowhere."""
    env = [
        {"op": "add", "path": "/spec/transformer/containers/0/env/-", "value": variable}
        for variable in (
            {"name": "FEATURES", "value": f"http://features.{PROFILE}.svc:80/v1"},
            {"name": "OTHERS", "value": f"http://{SHADOW}.{PROFILE}.svc, db.example.com:5432"},
            {
                "name": "TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "prediction-db", "key": "token"}},
            },
        )
    ]
    metadata = {"namespace": PROFILE}
    folder = overlay(
        Tree(tmp_path / "tree"),
        yaml.safe_dump(
            {"patches": [{"target": {"kind": "InferenceService"}, "patch": json.dumps(env)}]}
        ),
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "prediction-db-pguser-transformer", **metadata},
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "primary", **metadata},
            "spec": {"selector": {"matchLabels": {"serving.kserve.io/inferenceservice": PRIMARY}}},
        },
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "model-of-today", **metadata},
            "spec": {"selector": {"matchLabels": {"serving.kserve.io/inferenceservice": "churn"}}},
        },
        {
            "apiVersion": "networking.istio.io/v1",
            "kind": "VirtualService",
            "metadata": {"name": "of-today", **metadata},
            "spec": {
                "gateways": ["ours"],
                "http": [{"route": [{"destination": {"host": f"churn.{PROFILE}.svc"}}]}],
            },
        },
    )
    assert checked(folder)


def at(path: str, change: Callable[[Any], Any]) -> Callable[[Manifest], None]:
    """What makes a change of the value at a path."""
    *parents, last = [int(part) if part.isdigit() else part for part in path.split("/")]

    def changed(item: Manifest) -> None:
        place: Any = item
        for part in parents:
            place = place[part]
        place[last] = change(place[last])

    return changed


def moved(text: str) -> str:
    return text.replace(f".{PROFILE}", ".team-b")


HTTP = "spec/http/1"
SELECTED = "spec/selector/serving.kserve.io~1inferenceservice"
CONTAINER = "spec/template/spec/containers/0"
PLANTED = [
    ("standard", "VirtualService", at(f"{HTTP}/route/0/destination/host", moved), "transformer.te"),
    (
        "standard",
        "VirtualService",
        at(f"{HTTP}/mirrors/0/destination/host", lambda host: host.replace("triple", "tripel")),
        f"is {SHADOW}-transformer meant?",
    ),
    (
        "standard",
        "VirtualService",
        at(f"{HTTP}/route/0/destination/host", lambda _: "double-minimal"),
        f"double-minimal.{PROFILE} is a Service that none of these objects makes",
    ),
    ("standard", "DestinationRule", at("spec/host", moved), "-shadow-grpc.team-b is not a Service"),
    ("knative", "VirtualService", at(f"{HTTP}/rewrite/authority", moved), "-transformer.team-b is"),
    (
        "knative",
        "VirtualService",
        at(
            f"{HTTP}/mirrors/0/destination/host",
            lambda host: host.replace("istio-system", "gateways"),
        ),
        "-mirror.gateways is not a Service; here it is",
    ),
    (
        "knative",
        "VirtualService",
        at("spec/gateways/0", lambda _: "copies"),
        "none of these objects is a Gateway copies",
    ),
    (
        "follow",
        "HTTPRoute",
        at("spec/rules/0/backendRefs/0/name", lambda _: "double-minimal-transformer"),
        f"is {PRIMARY}-transformer meant?",
    ),
    (
        "follow",
        "HTTPRoute",
        at("spec/rules/0/matches/0/path/value", lambda path: path.replace(PROFILE, "team-b")),
        f"it is about team-b, and the models are in {PROFILE}",
    ),
    (
        "follow",
        "Deployment",
        at(f"{CONTAINER}/args/1", lambda _: f"--to=http://{SHADOW}-transformer.team-b"),
        f"{SHADOW}-transformer.team-b is not a Service",
    ),
    (
        "standard",
        "Service",
        at("spec/selector", lambda _: {"serving.kserve.io/inferenceservice": "double"}),
        f"it selects pods of double, and the InferenceServices here are {PRIMARY} and {SHADOW}.",
    ),
]


@pytest.mark.parametrize(("topology", "kind", "change", "words"), PLANTED)
def test_a_name_that_leads_nowhere_is_refused(
    topology: str, kind: str, change: Callable[[Manifest], None], words: str
) -> None:
    """In one line that names the object, and what was meant."""
    manifests = copy.deepcopy(list(rendered(topology)))
    item = next(item for item in manifests if item["kind"] == kind)
    change(item)
    (line,) = problems(manifests)
    assert line.startswith(f"{kind} {item['metadata']['name']}: ")
    assert words in line


@pytest.mark.parametrize(
    ("kind", "given", "refused"),
    [
        ("Secret", "prediction-db-pguser-transformer", False),
        ("Secret", "prediction-db-pguser-transformer-f2h9k5t7cm", True),
        ("Secret", "prediction-db-pguser-transformer-old", False),
        ("ExternalSecret", "prediction-db-cluster-cert-f2h9k5t7cm", True),
        ("ConfigMap", "prediction-db-cluster-cert-f2h9k5t7cm", False),
    ],
)
def test_a_secret_under_another_name_than_the_pods_look_for(
    kind: str, given: str, refused: bool
) -> None:
    """Kustomize follows a generated name into a Deployment, and not into an InferenceService."""
    secret = {"kind": kind, "metadata": {"name": given, "namespace": PROFILE}}
    found = list(problems([*rendered("standard"), secret]))
    assert bool(found) == refused
    assert all(f"is called {given} here" in line for line in found)
    assert all("disableNameSuffixHash" in line for line in found)


def test_a_prefix_of_all_names_is_seen_in_those_of_secrets_and_variables(tmp_path: Path) -> None:
    """What every object begins with is not a part of its name."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "prediction-db-cluster-cert", "namespace": PROFILE},
    }
    tree = Tree(tmp_path / "tree")
    tree.choose_topology("knative")
    overlay(tree, "namePrefix: a-", secret)
    found = list(dangling(tree.objects("team")))
    service = f"InferenceService a-{PRIMARY}: "
    assert any(
        line.startswith(f"{service}prediction-db-cluster-cert, and the Secret is called a-pred")
        for line in found
    )
    assert any(line.startswith(f"{service}INFERENCE_SERVICE says {PRIMARY}, and") for line in found)
    assert not any("CronJob" in line for line in found)


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize(
    ("text", "selects"),
    [
        ("commonLabels: {team: a}", True),
        ("labels: [{pairs: {team: a}, includeSelectors: true}]", True),
        ("labels: [{pairs: {team: a}, includeTemplates: true}]", False),
    ],
)
def test_labels_that_the_gateways_pods_do_not_have_are_refused(
    tmp_path: Path, topology: str, text: str, selects: bool
) -> None:
    """In policies, and in Knative mode in the Service for copies; in follow none asks for pods."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on(f"network-policies/{topology}")
    folder = overlay(tree, text)
    if not selects or topology == "follow":
        checked(folder)
        return
    with pytest.raises(Malformed) as raised:
        checked(folder)
    kinds = {line.partition(" ")[0] for line in str(raised.value).splitlines()}
    assert kinds == {"NetworkPolicy", *(["Service"] if topology == "knative" else [])}
    assert str(raised.value).count("asks the gateway's pods for the label team: a, which") >= 2


@pytest.mark.parametrize("part", ["predictor", "transformer"])
@pytest.mark.parametrize(
    ("lists", "lost"),
    [
        ({"containers": [{"name": "kserve-container", "env": []}]}, "no image"),
        ({"volumes": [{"name": "tmp-of-mine", "emptyDir": {}}]}, "no volume"),
    ],
)
def test_lists_that_a_merge_patch_replaced_are_refused(
    tmp_path: Path, part: str, lists: dict[str, Any], lost: str
) -> None:
    """All else that stood in them is gone; most people patch so."""
    patch = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": SHADOW, "namespace": PROFILE},
        "spec": {part: lists},
    }
    with pytest.raises(RefusedByCluster) as raised:
        checked(
            overlay(
                Tree(tmp_path / "tree"), yaml.safe_dump({"patches": [{"patch": json.dumps(patch)}]})
            )
        )
    assert f"InferenceService {SHADOW}: its container kserve-container has {lost}" in str(
        raised.value
    )
    assert "patch by operations" in str(raised.value)


@pytest.mark.parametrize("kind", ["Secret", "ExternalSecret"])
@pytest.mark.parametrize(
    ("keys", "line"),
    [
        (
            ["host", "port", "passwd"],
            "reads password of Secret {}, which has no such key; is pa",
        ),
        (["hostname", "port", "password"], "reads host of Secret {}, which has no such key; is ho"),
        (["host", "port", "password", "verifier"], None),
        (["password", "verifier"], None),
        (["host", "port", "password", "passwd"], None),
    ],
)
def test_a_key_of_another_name_than_is_read_is_refused(
    keys: list[str], line: str | None, kind: str
) -> None:
    """With the one that is meant; the operator adds what a Secret of a password alone lacks."""
    name = "prediction-db-pguser-transformer"
    secret: Manifest = {
        "kind": kind,
        "metadata": {"name": name, "namespace": PROFILE},
        "stringData": dict.fromkeys(keys, "x"),
    }
    if kind == "ExternalSecret":
        data = [{"secretKey": key} for key in keys]
        made = {"name": name, "template": {"data": {"extra": "x"}}}
        secret |= {"spec": {"data": data, "target": made}, "stringData": {}}
        secret["metadata"]["name"] = "database"
    found = list(dangling([*rendered("standard"), secret]))
    readers = [f"InferenceService {name}" for name in (PRIMARY, SHADOW)] if line else []
    assert [said.partition(": ")[0] for said in found] == readers
    assert all(str(line).format(name) in said for said in found)


def _on_top(kind: str, spec: Manifest, **metadata: str) -> Manifest:
    """One that selects pods or Services, in the namespace of the models."""
    versions = {
        "PodDisruptionBudget": "policy/v1",
        "NetworkPolicy": "networking.k8s.io/v1",
        "PodMonitor": "monitoring.coreos.com/v1",
        "ServiceMonitor": "monitoring.coreos.com/v1",
    }
    selector = "podSelector" if kind == "NetworkPolicy" else "selector"
    needed = {"ServiceMonitor": {"endpoints": [{"port": "http"}]}}.get(kind, {})
    given = {selector if key == "selector" else key: value for key, value in spec.items()}
    return {
        "apiVersion": versions[kind],
        "kind": kind,
        "metadata": {"name": "yours", "namespace": PROFILE, **metadata},
        "spec": {**needed, **given},
    }


def _labels(**labels: str) -> Manifest:
    names = {"service": "serving.kserve.io/inferenceservice", "of": "app.kubernetes.io/component"}
    return {"matchLabels": {names.get(key, key): value for key, value in labels.items()}}


@pytest.mark.parametrize("topology", TOPOLOGIES)
@pytest.mark.parametrize("kind", ["PodDisruptionBudget", "NetworkPolicy", "PodMonitor"])
@pytest.mark.parametrize(
    ("selector", "why"),
    [
        (_labels(service=PRIMARY, component="predictor"), None),
        (_labels(of="shadow"), None),
        ({}, None),
        ({"matchExpressions": [{"key": "component", "operator": "Exists"}]}, None),
        ({"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}, None),
        (
            _labels(service="double-minimal", component="predictor"),
            (
                "none has serving.kserve.io/inferenceservice: double-minimal, but "
                f"{PRIMARY} or {SHADOW}"
            ),
        ),
        (_labels(component="predicter"), "none has component: predicter, but predictor or"),
        (_labels(componant="predictor"), "none has componant: predictor, is component meant"),
        (
            _labels(service=PRIMARY, of="shadow"),
            (
                f"none has all of serving.kserve.io/inferenceservice: {PRIMARY}, "
                "app.kubernetes.io/component: shadow"
            ),
        ),
        (
            {
                "matchExpressions": [
                    {"key": "component", "operator": "NotIn", "values": ["predictor"]},
                    {"key": "component", "operator": "In", "values": ["predictor"]},
                ]
            },
            "none has all of component NotIn predictor, component: predictor",
        ),
    ],
)
def test_what_selects_no_pod_is_warned_of(
    topology: str, kind: str, selector: Manifest, why: str | None
) -> None:
    """With the label that no pod has, and what theirs is."""
    found = list(warnings([*rendered(topology), _on_top(kind, {"selector": selector})]))
    assert len(found) == (why is not None)
    start = f"{kind} yours: it selects no Pod that these objects make: {why}"
    assert all(line.startswith(start) for line in found)


@pytest.mark.parametrize(
    ("labels", "warned"),
    [
        ({"serving.kserve.io/inferenceservice": SHADOW}, False),
        ({"app.kubernetes.io/component": "shadow"}, False),
        ({"serving.kserve.io/inferenceservice": SHADOW, "component": "predictr"}, False),
        ({"component": "predictr"}, True),
        ({"serving.kserve.io/inferenceservice": PRIMARY, "component": "predictr"}, True),
    ],
)
def test_a_budget_of_the_shadow_may_be_there_before_it(labels: Manifest, warned: bool) -> None:
    """At the stage of the primary alone; with mirroring on the first three select nothing."""
    budget = _on_top("PodDisruptionBudget", {"selector": {"matchLabels": labels}})
    alone = render(repository() / "manifests" / "stages" / "primary-alone")
    assert len(list(warnings([*alone, budget]))) == warned


@pytest.mark.parametrize(
    ("topology", "kind", "label", "warned"),
    [
        ("standard", "PodMonitor", {"app": PRIMARY}, True),
        ("standard", "PodMonitor", {"app": f"isvc.{PRIMARY}-predictor"}, False),
        # Knative's revisions have names of their own.
        ("knative", "PodMonitor", {"app": PRIMARY}, False),
        ("knative", "PodMonitor", {"serving.knative.dev/service": f"{PRIMARY}-predictor"}, False),
        ("standard", "PodMonitor", {"serving.knative.dev/service": "a"}, True),
        ("follow", "PodMonitor", {"app.kubernetes.io/component": "follower"}, False),
        ("standard", "PodMonitor", {"app.kubernetes.io/component": "follower"}, True),
        ("standard", "PodMonitor", {"app.kubernetes.io/component": "retention"}, False),
        ("standard", "ServiceMonitor", {"app.kubernetes.io/component": "grpc-primary"}, False),
        ("standard", "ServiceMonitor", {"component": "transformer"}, False),
        ("standard", "ServiceMonitor", {"app.kubernetes.io/component": "retention"}, True),
    ],
)
def test_labels_are_those_that_the_pods_will_have(
    topology: str, kind: str, label: dict[str, str], warned: bool
) -> None:
    """Of KServe, of Knative, and of each template; a ServiceMonitor goes by those of Services."""
    item = _on_top(kind, {"selector": {"matchLabels": label}})
    assert bool([*warnings([*rendered(topology), item])]) == warned


def test_the_operators_labels_are_not_known_beforehand(tmp_path: Path) -> None:
    """Where the PostgresCluster stands next to the deployment."""
    cluster = yaml.safe_load((Tree(tmp_path / "tree").folder / "postgres-crd.yml").read_text())
    cluster["metadata"]["namespace"] = PROFILE
    label = {"postgres-operator.crunchydata.com/cluster": "prediction-db"}
    item = _on_top("PodMonitor", {"selector": {"matchLabels": label}})
    (line,) = warnings([*rendered("standard"), cluster, item])
    assert "takes the evidence with it" in line
    (line,) = warnings([*rendered("standard"), item])
    assert line.startswith("PodMonitor ")


@pytest.mark.parametrize(
    ("kind", "namespace", "spec", "why"),
    [
        ("PodDisruptionBudget", "default", {}, f"are in {PROFILE}, and it looks in default"),
        ("PodMonitor", "monitoring", {}, f"are in {PROFILE}, and it looks in monitoring"),
        ("PodMonitor", "monitoring", {"namespaceSelector": {"any": True}}, None),
        ("PodMonitor", "monitoring", {"namespaceSelector": {"matchNames": [PROFILE]}}, None),
    ],
)
def test_what_selects_pods_of_another_namespace_is_warned_of(
    kind: str, namespace: str, spec: Manifest, why: str | None
) -> None:
    """A monitor may look elsewhere."""
    spec = {"selector": _labels(component="transformer"), **spec}
    item = _on_top(kind, spec, namespace=namespace)
    found = list(warnings([*rendered("standard"), item]))
    assert len(found) == (why is not None)
    assert all(f"those with its labels {why}; leave it if" in line for line in found)
    del item["metadata"]["namespace"]
    found = list(warnings([*rendered("standard"), item]))
    assert len(found) == (why is not None)
    assert all("and it has no namespace; leave it" in line for line in found)


def test_a_budget_without_a_selector_is_warned_of() -> None:
    """It is for no pod, unlike one whose selector is empty."""
    (line,) = warnings([*rendered("standard"), _on_top("PodDisruptionBudget", {})])
    assert "make: it has no selector; leave" in line


VERDICT, FOLLOWER = "the live verdict", "the follower"
BOTH = (f"the transformers of {PRIMARY}", f"the transformers of {SHADOW}")
RULES = "PrometheusRule mirrored-inference-shadow-deployment"


@pytest.mark.parametrize(
    ("topology", "options", "monitor", "missing"),
    [
        ("standard", ["alerts"], None, BOTH),
        ("standard", ["alerts", "pod-monitor"], None, ()),
        ("standard", ["live-verdict"], None, ()),
        ("knative", ["alerts"], None, BOTH),
        ("standard", ["alerts", "live-verdict"], None, (VERDICT, *BOTH)),
        ("standard", ["alerts", "live-verdict", "pod-monitor"], None, ()),
        ("follow", ["alerts"], None, (FOLLOWER, *BOTH)),
        ("follow", ["alerts", "second-shadow/follow", "pod-monitor"], None, ()),
        ("standard", ["alerts"], ("PodMonitor", _labels(component="transformer")), ()),
        ("standard", ["alerts"], ("PodMonitor", _labels(service=PRIMARY)), BOTH[1:]),
        ("standard", ["alerts"], ("PodMonitor", _labels(component="predictor")), BOTH),
        ("standard", ["alerts"], ("PodMonitor", {}), ()),
        (
            "standard",
            ["alerts", "live-verdict"],
            ("ServiceMonitor", _labels(component="transformer")),
            (VERDICT,),
        ),
        (
            "standard",
            ["alerts", "live-verdict"],
            (
                "ServiceMonitor",
                {
                    "matchExpressions": [
                        {"key": "app.kubernetes.io/component", "operator": "Exists"}
                    ]
                },
            ),
            (),
        ),
    ],
)
def test_alerts_without_figures_are_warned_of(
    tmp_path: Path,
    topology: str,
    options: list[str],
    monitor: tuple[str, Manifest] | None,
    missing: tuple[str, ...],
) -> None:
    """Those of all pods that have some, by whichever monitor."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    for option in options:
        tree.switch_on(option)
    manifests = tree.objects()
    if monitor:
        kind, selector = monitor
        manifests.append(_on_top(kind, {"selector": selector}))
    assert list(warnings(manifests)) == [
        f"{RULES}: Prometheus gets no figures for it, as no PodMonitor or ServiceMonitor here "
        f"selects {' and '.join(missing)}; switch on `pod-monitor` in "
        "manifests/options/kustomization.yaml."
        for _ in missing[:1]
    ]


@pytest.mark.parametrize("option", ["alerts", "dashboard"])
def test_figures_may_come_by_annotations(tmp_path: Path, option: str) -> None:
    """Of the pods, as under STRICT mTLS; without any a dashboard has none either."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on(option)
    manifests = copy.deepcopy(tree.objects())
    assert len(list(warnings(manifests))) == 1
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    service["metadata"]["annotations"]["prometheus.io/scrape"] = "true"
    assert list(warnings(manifests)) == []


@pytest.mark.parametrize("kind", ["Secret", "SealedSecret", "ExternalSecret"])
@pytest.mark.parametrize(
    ("name", "namespace", "words"),
    [
        ("prediction-db-pguser-transformer", PROFILE, None),
        (
            "prediction-db-pguser-transfomer",
            PROFILE,
            (
                "nothing names a Secret prediction-db-pguser-transfomer; is "
                f"prediction-db-pguser-transformer meant, which InferenceService {SHADOW} names in "
                f"{PROFILE}?"
            ),
        ),
        ("prediction-db-pguser-transfomer", "default", None),
        # Of an option that is off.
        ("prediction-db-pguser-report", PROFILE, None),
        ("registry", PROFILE, None),
        (
            "prediction-db-pguser-transformer",
            None,
            (
                "without a namespace, and makes a Secret prediction-db-pguser-transformer, which "
                f"InferenceService {SHADOW} names in {PROFILE}; give it that one."
            ),
        ),
        # The example's, as it stands in manifests/README.md.
        (
            "prediction-db-pguser-transformer",
            "your-profile",
            (
                "in namespace your-profile, and makes a Secret prediction-db-pguser-transformer, "
                f"which InferenceService {SHADOW} names in {PROFILE}; give it that one."
            ),
        ),
    ],
)
def test_a_secret_that_nothing_names_is_warned_of(
    kind: str, name: str, namespace: str | None, words: str | None
) -> None:
    """Where one of nearly its name is, or in another namespace, and is not there."""
    metadata = {"namespace": namespace} if namespace else {}
    item: Manifest = {"kind": kind, "metadata": {"name": name, **metadata}}
    if kind == "ExternalSecret":
        item["metadata"]["name"] = "database"
        item["spec"] = {"target": {"name": name}}
    others = (
        _secrets(*DATABASE[1:], OF_RETENTION) if (name, namespace) == (DATABASE[0], PROFILE) else []
    )
    manifests = [*rendered("standard"), *others]
    found = list(warnings([*manifests, item]))
    assert len(found) == (words is not None)
    assert all(str(words) in line for line in found)
    account = {
        "kind": "ServiceAccount",
        "metadata": {"name": "default", **metadata},
        "imagePullSecrets": [{"name": name}],
    }
    assert list(warnings([*manifests, item, account])) == []


@pytest.mark.parametrize("said", ["serviceAccountName", "claimName", "secrets"])
@pytest.mark.parametrize("slip", [False, True])
def test_a_slip_in_the_name_of_an_object_is_warned_of(said: str, slip: bool) -> None:
    """Of a ServiceAccount, of a claim, and of a Secret that a ServiceAccount names."""
    account, secret, claim = (
        {"kind": kind, "metadata": {"name": f"models-{kind.lower()}", "namespace": PROFILE}}
        for kind in ("ServiceAccount", "Secret", "PersistentVolumeClaim")
    )
    manifests = copy.deepcopy(list(rendered("standard")))
    service = next(item for item in manifests if item["kind"] == "InferenceService")
    named = {
        "serviceAccountName": account,
        "claimName": claim,
        "secrets": secret,
    }[said]
    name = named["metadata"]["name"]
    written = name.replace("models", "model") if slip else name
    if said == "secrets":
        account["secrets"] = [{"name": written}]
        service["spec"]["predictor"]["serviceAccountName"] = account["metadata"]["name"]
        manifests.append(account)
    elif said == "claimName":
        volume = {"name": "models", "persistentVolumeClaim": {"claimName": written}}
        service["spec"]["predictor"]["volumes"].append(volume)
    else:
        service["spec"]["predictor"]["serviceAccountName"] = written
    found = list(warnings([*manifests, named]))
    assert len(found) == slip
    assert all(f"nothing names a {named['kind']} {name}; is {written} meant" in o for o in found)


def test_a_secret_may_be_in_two_namespaces() -> None:
    """The pods read the one in theirs."""
    elsewhere = _secrets(DATABASE[0], namespace="your-profile")
    here = _secrets(*DATABASE, OF_RETENTION)
    assert list(warnings([*rendered("standard"), *elsewhere, *here])) == []
    assert len(list(warnings([*rendered("standard"), *elsewhere]))) == 1


@pytest.mark.parametrize(
    ("made", "missing"),
    [
        ([], []),
        ([*DATABASE, OF_RETENTION], []),
        # Of an option that is off: it says nothing of the others.
        (["prediction-db-pguser-report"], []),
        (["registry"], []),
        (DATABASE, [OF_RETENTION]),
        (DATABASE[:1], [DATABASE[1], OF_RETENTION]),
        ([OF_RETENTION], list(DATABASE)),
    ],
)
def test_a_secret_that_was_forgotten_is_warned_of(made: list[str], missing: list[str]) -> None:
    """Where others of its database are made by hand, and this one is read."""
    found = list(warnings([*rendered("standard"), *_secrets(*made)]))
    said = [line.partition("it reads Secret ")[2].split(",")[0] for line in found]
    assert sorted(said) == sorted(missing)
    assert all(f"though {min({*made} & {*DATABASE, OF_RETENTION})} is here" in o for o in found)


def test_a_slip_is_not_said_twice() -> None:
    """The Secret that is missing is the one of nearly that name."""
    slip = OF_RETENTION.replace("ance", "ence")
    (line,) = warnings([*rendered("standard"), *_secrets(*DATABASE, slip)])
    assert f"nothing names a Secret {slip}; is {OF_RETENTION} meant" in line


def test_a_cluster_among_the_objects_makes_its_secrets() -> None:
    """Those of the users that it names."""
    cluster = yaml.safe_load((repository() / "postgres-crd.yml").read_text())
    cluster["metadata"]["namespace"] = PROFILE
    assert list(unnamed([*rendered("standard"), cluster])) == []
    users = cluster["spec"]["users"]
    users[:] = [user for user in users if user["name"] != "maintenance"]
    (line,) = unnamed([*rendered("standard"), cluster])
    assert f"it reads Secret {OF_RETENTION}" in line


@pytest.mark.parametrize("part", ["data", "stringData"])
@pytest.mark.parametrize(("key", "refused"), [("ca.crt", False), ("root.pem", True)])
def test_a_mounted_key_that_is_not_there_is_refused(part: str, key: str, refused: bool) -> None:
    """However it is called; a Secret without any key may get them from elsewhere."""
    (secret,) = _secrets(DATABASE[1])
    assert list(dangling([*rendered("standard"), secret])) == []
    found = list(dangling([*rendered("standard"), {**secret, part: {key: "x"}}]))
    assert len(found) == (3 if refused else 0)  # both models and the retention
    words = f"reads ca.crt of Secret {DATABASE[1]}, which has no such key; is root.pem meant?"
    assert all(words in line for line in found)


GATEWAY = "istio-ingressgateway"


def _gateway(*hosts: str, **spec: Any) -> Manifest:
    """The one that the settings name."""
    port = {"number": 443, "name": "https", "protocol": "HTTPS"}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": GATEWAY, "namespace": "istio-system"},
        "spec": {
            "selector": {"istio": "ingressgateway"},
            "servers": [{"port": port, "hosts": [*hosts]}],
            **spec,
        },
    }


@pytest.mark.parametrize("topology", MIRRORED)
@pytest.mark.parametrize(
    ("hosts", "domain", "served"),
    [
        (["inference.example.com"], "inference.example.com", True),
        (["Inference.Example.com"], "inference.example.com", True),
        (["*"], "inference.example.com", True),
        (["*.example.com"], "inference.example.com", True),
        (["a.example.com", "*/*.example.com"], "inference.example.com", True),
        ([f"{PROFILE}/*"], "inference.example.com", True),
        (["a.example.com"], "*", True),
        (["a.example.com"], "*.example.com", True),
        (["*.example.com"], "example.com", False),
        (["*.example.org"], "inference.example.com", False),
        (["example.com"], "inference.example.com", False),
        (["other/*", "./*"], "inference.example.com", False),
        ([], "inference.example.com", False),
    ],
)
def test_a_gateway_that_does_not_serve_the_domain_is_warned_of(
    topology: str, hosts: list[str], domain: str, served: bool
) -> None:
    """Where it is among the objects; as Istio compares hosts, and for the routes' namespace."""
    manifests = copy.deepcopy(rendered(topology))
    for item in manifests:
        if item["kind"] == "VirtualService" and item["spec"]["hosts"] == ["inference.example.com"]:
            item["spec"]["hosts"] = [domain]
    found = list(warnings([*manifests, _gateway(*hosts)]))
    assert len(found) == (not served)
    for line in found:
        assert line.startswith(f"Gateway {GATEWAY}: it serves {', '.join(hosts) or 'no host'}, ")
        assert f"of namespace {PROFILE} are for {domain}, so that" in line
    tls = _gateway(*hosts)
    tls["spec"]["servers"][0]["port"]["protocol"] = "TLS"
    assert len(list(warnings([*manifests, tls]))) == 1
    other = _gateway("a.example.com")
    other["metadata"]["namespace"] = "other"
    other["metadata"]["name"] = "theirs"
    assert list(warnings([*manifests, other])) == []


@pytest.mark.parametrize("topology", MIRRORED)
@pytest.mark.parametrize(
    ("selector", "warned"),
    [
        ({"istio": "ingressgateway"}, False),
        ({"app": "gateway"}, False),
        ({"istio": "public"}, True),
        ({"istio": "public", "app": "gateway"}, True),
    ],
)
def test_a_gateway_of_other_pods_than_the_settings_say_is_warned_of(
    tmp_path: Path, topology: str, selector: dict[str, str], warned: bool
) -> None:
    """Where anything asks for them: in Standard mode the network policies alone."""
    item = _gateway("*", selector=selector)
    found = list(warnings([*rendered(topology), item]))
    assert len(found) == (warned and topology == "knative")
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on(f"network-policies/{topology}")
    found = list(warnings([*tree.objects(), item]))
    assert len(found) == warned
    for line in found:
        assert line.startswith(f"Gateway {GATEWAY}: its pods have the label istio: public, and ")
        assert "for those with istio: ingressgateway; set `gateway-label` in man" in line
