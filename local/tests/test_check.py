"""What the check says to a deployment of one's own: fields, KServe's rules, names, patches."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tree import TOPOLOGIES, Tree

from shadow_local.translate import kserve
from shadow_local.translate.arguments import check_arguments, unread
from shadow_local.translate.cluster import checked, problems, warnings
from shadow_local.translate.document import Manifest, render, repository
from shadow_local.translate.forms import Malformed
from shadow_local.translate.patches import check_images, check_targets
from shadow_local.translate.schemas import known, refusals
from shadow_local.translate.written import outranked

ADDS = "    patch: |\n      - {op: add, path: /metadata/annotations, value: {a: b}}\n"
DELETES = "    patch: |\n      $patch: delete\n      kind: X\n      metadata: {name: x}\n"
PRIMARY = "double-minimal-inference"
Change = Callable[[dict[str, Any], Manifest], object]
EXAMPLE = repository() / "examples" / "runtime"


@cache
def _rendered() -> list[Manifest]:
    return render(EXAMPLE)


@pytest.fixture
def manifests() -> list[Manifest]:
    """The objects of a deployment with a ready-made runtime, to be changed."""
    return copy.deepcopy(_rendered())


def _service(manifests: list[Manifest]) -> Manifest:
    return next(item for item in manifests if item["kind"] == "InferenceService")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m, _: m.update(runtme="x"), "runtme is not a field; is runtime meant?"),
        (lambda m, _: m.update(storageURI="x"), "storageURI is not a field; is storageUri meant?"),
        (lambda m, _: m.update(resource={}), "resource is not a field; is resources meant?"),
        (
            lambda m, _: m.update(gpus=1),
            (
                "gpus is not a field; take it out, or look for its place with "
                "`kubectl explain inferenceservice.spec.predictor.model`."
            ),
        ),
        (
            lambda m, _: m["modelFormat"].update(kind="x"),
            "modelFormat.kind is not a field; its fields are name, version.",
        ),
        (
            lambda m, _: m.update(resources={"limits": {"memory": "4GiB"}}),
            "resources.limits.memory is '4GiB'; set it to a quantity: 4Gi.",
        ),
        (
            lambda m, _: m.update(resources={"limits": {"cpu": "two"}}),
            (
                "resources.limits.cpu is 'two'; set it to a quantity such as 4Gi, 512Mi, 2 or "
                "500m, as text or whole number."
            ),
        ),
        (
            lambda m, _: m.update(modelFormat="sklearn"),
            "modelFormat is 'sklearn'; set it to a mapping with name.",
        ),
        (lambda m, _: m.update(modelFormat={}), "modelFormat.name is missing."),
        (lambda m, _: m.update(args="--x"), "args is '--x'; set it to a list."),
        (lambda m, _: m.update(args=None), "args is empty; set it to a list."),
        (
            lambda m, _: m.update(env=[{"name": "SEED", "value": 7}]),
            "env[0].value (SEED) is 7; set it to the same in quotes, as Kubernetes takes texts",
        ),
        (
            lambda m, _: m.update(imagePullPolicy="IfAbsent"),
            "imagePullPolicy is 'IfAbsent'; set it to Always, IfNotPresent or Never.",
        ),
        (
            lambda m, _: m.update(livenessProbe={"httpGet": {"port": 1, "scheme": "https"}}),
            "livenessProbe.httpGet.scheme is 'https'; set it to HTTP or HTTPS.",
        ),
        (
            lambda m, _: m.update(livenessProbe={"httpGet": {"port": True}}),
            "livenessProbe.httpGet.port is true; set it to a whole number or a text.",
        ),
    ],
)
def test_a_field_that_an_api_server_refuses_is_refused(
    manifests: list[Manifest], change: Change, line: str
) -> None:
    """In words that name the field, and what it should be."""
    service = _service(manifests)
    change(service["spec"]["predictor"]["model"], service)
    (refusal,) = refusals(service)
    assert refusal.line.startswith(f"spec.predictor.model.{line}")


@pytest.mark.parametrize(
    ("pod", "line"),
    [
        (
            {"tolerations": [{"key": "gpu", "operator": "Exist"}]},
            "tolerations[0].operator is 'Exist'; set it to Exists, Equal, Lt or Gt.",
        ),
        (
            {"tolerations": [{"key": "gpu", "effect": "NoScheduling"}]},
            "tolerations[0].effect is 'NoScheduling'; set it to NoSchedule, PreferNoSchedule or",
        ),
        ({"tolerations": [{"operator": "Exists", "effect": ""}]}, None),
        (
            {"restartPolicy": "Allways"},
            "restartPolicy is 'Allways'; set it to Always, OnFailure or Never.",
        ),
        ({"dnsPolicy": "None"}, None),
    ],
)
@pytest.mark.parametrize("kind", ["InferenceService", "Deployment"])
def test_a_word_that_a_pod_does_not_know_is_refused(
    manifests: list[Manifest], kind: str, pod: Manifest, line: str | None
) -> None:
    """An API server says so by its code, and of an InferenceService in an event alone."""
    container = {"name": "a", "image": "a/b:1"}
    service = _service(manifests)
    service["spec"]["predictor"] |= pod
    item = (
        service
        if kind == "InferenceService"
        else {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "a"},
            "spec": {
                "selector": {"matchLabels": {"a": "b"}},
                "template": {"spec": {"containers": [container], **pod}},
            },
        }
    )
    found = [refusal.line for refusal in refusals(item)]
    assert len(found) == (line is not None)
    assert all(str(line) in text for text in found)


def _of_pods(kind: str, container: Manifest) -> Manifest:
    """An object of the kind whose pods have this container: first, where its kind allows that."""
    plain = {"name": "a", "image": "a/b:1"}
    pod = {"initContainers": [{**plain, **container}], "containers": [plain]}
    pod = {"containers": [{**plain, **container}]} if kind == "ServingRuntime" else pod
    metadata = {"metadata": {"name": "a"}}
    job = {"template": {"spec": {"restartPolicy": "Never", **pod}}}
    selected = {"selector": {"matchLabels": {"a": "b"}}, "template": {"spec": pod}}
    spec: Manifest
    version, spec = {
        "Pod": ("v1", pod),
        "Deployment": ("apps/v1", selected),
        "Job": ("batch/v1", job),
        "CronJob": ("batch/v1", {"schedule": "@daily", "jobTemplate": {"spec": job}}),
        "ServingRuntime": ("serving.kserve.io/v1alpha1", pod),
        "InferenceService": ("serving.kserve.io/v1beta1", {"predictor": pod}),
    }[kind]
    return {"apiVersion": version, "kind": kind, **metadata, "spec": spec}


@pytest.mark.parametrize(
    ("limits", "requests", "line"),
    [
        ({"cpu": "1", "memory": "1Gi"}, {"cpu": 1, "memory": "1024Mi"}, None),
        ({"memory": "2G"}, {"memory": "1Gi"}, None),
        ({"memory": "1e3"}, {"memory": "1k"}, None),
        ({"cpu": "0.5"}, {"cpu": "500m"}, None),
        ({"cpu": "1"}, {"memory": "1Gi"}, None),
        ({"nvidia.com/gpu": "1"}, {}, None),
        ({"nvidia.com/gpu": 1}, {"nvidia.com/gpu": "1"}, None),
        (
            {"memory": "1Gi"},
            {"memory": "2G"},
            (
                "limits.memory is '1Gi', and '2G' is requested; set it to 2G or more, or lower "
                "what is requested."
            ),
        ),
        ({"cpu": "500m"}, {"cpu": "1"}, "limits.cpu is '500m', and '1' is requested; set it to 1"),
        (
            {"ephemeral-storage": "1M"},
            {"ephemeral-storage": "1Mi"},
            "limits.ephemeral-storage is '1M', and '1Mi' is requested;",
        ),
        (
            {"nvidia.com/gpu": "2"},
            {"nvidia.com/gpu": "1"},
            "limits.nvidia.com/gpu is '2', and '1' is requested; set both to one number,",
        ),
        (
            {},
            {"nvidia.com/gpu": "1"},
            "limits.nvidia.com/gpu is missing, and '1' is requested; set both to one number,",
        ),
        (
            {"nvidia.com/gpu": "500m"},
            {},
            "limits.nvidia.com/gpu is '500m'; set it to a whole number.",
        ),
        ({"cpu": "-1"}, {}, "limits.cpu is '-1'; set it to 0 or more."),
        (
            {"memmory": "1Gi"},
            {},
            "limits.memmory is not a resource that a container has; is memory meant?",
        ),
        (
            {"gpu": "1"},
            {},
            "limits.gpu is not a resource that a container has; a device has its maker's name,",
        ),
    ],
)
@pytest.mark.parametrize(
    "kind", ["Pod", "Deployment", "Job", "CronJob", "ServingRuntime", "InferenceService"]
)
def test_amounts_that_an_api_server_refuses_are_refused(
    kind: str, limits: Manifest, requests: Manifest, line: str | None
) -> None:
    """As it does of each pod, whoever makes it; an init container's too."""
    item = _of_pods(kind, {"resources": {"limits": limits, "requests": requests}})
    found = [refusal.line for refusal in refusals(item)]
    assert len(found) == (line is not None)
    place = "spec.containers" if kind == "ServingRuntime" else "initContainers"
    assert all(f"{place}[0].resources.{line}" in text for text in found)


def test_the_storage_of_a_claim_is_not_a_containers(manifests: list[Manifest]) -> None:
    """Though both stand below `resources`."""
    (claim,) = (item for item in manifests if item["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["resources"]["requests"]["storage"]
    assert list(refusals(claim)) == []


@pytest.mark.parametrize(
    ("resources", "line"),
    [
        ({"limits": {"memory": "4Gi", "cpu": "2"}}, None),
        (
            {"limits": {"memory": "512Mi"}},
            "limits.memory of its model is '512Mi', and '1Gi' is requested; set it to 1Gi or more,",
        ),
        (
            {"requests": {"memory": "4Gi"}},
            "limits.memory of its model is '2Gi', and '4Gi' is requested; set it to 4Gi or more,",
        ),
        ({"limits": {"memory": "8Gi"}, "requests": {"memory": "4Gi"}}, None),
    ],
)
def test_a_models_amounts_are_added_to_its_runtimes(
    manifests: list[Manifest], resources: Manifest, line: str | None
) -> None:
    """One by one: what the model leaves out is the runtime's."""
    service = _service(manifests)
    service["spec"]["predictor"]["model"]["resources"] = resources
    found = list(problems(manifests))
    start = f"InferenceService {PRIMARY}: with what ServingRuntime mlserver says, "
    assert found == [said for said in found if said.startswith(f"{start}{line}")]
    assert len(found) == (line is not None)


@pytest.mark.parametrize("fields", [[], ["minAvailable"], ["minAvailable", "maxUnavailable"]])
def test_a_budget_of_two_measures_is_refused(fields: list[str]) -> None:
    """Kubernetes says so by its code."""
    item = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "a"},
        "spec": dict.fromkeys(fields, 1),
    }
    found = [refusal.line for refusal in refusals(item)]
    both = "spec has maxUnavailable and minAvailable, which exclude each other; leave one of them."
    assert found == ([both] if len(fields) == 2 else [])


def test_fields_that_exclude_each_other_are_named(manifests: list[Manifest]) -> None:
    """As in a `oneOf`, of which the schema itself says nothing that a person understands."""
    route = next(item for item in manifests if item["kind"] == "VirtualService")
    route["spec"]["http"][0]["match"][0]["uri"] = {"prefix": "/a", "exact": "/a"}
    (refusal,) = refusals(route)
    assert refusal.line == (
        "spec.http[0].match[0].uri has exact and prefix, which exclude each other; leave one of "
        "them."
    )


def test_a_route_for_every_host_is_told_of_the_setting() -> None:
    """`domain` may be "*" for Istio alone; the pattern of the Gateway API's schema tells nobody."""
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "a"},
        "spec": {"hostnames": ["*"]},
    }
    (refusal,) = refusals(route)
    assert refusal.line.startswith("spec.hostnames[0] is '*'; set it to the host that callers use")
    assert "`domain`" in refusal.line


def test_a_version_that_is_not_served_is_refused(manifests: list[Manifest]) -> None:
    """A kind that is known here, in another version than those of its CRD."""
    service = _service(manifests) | {"apiVersion": "serving.kserve.io/v1"}
    (refusal,) = refusals(service)
    assert refusal.line.endswith("'serving.kserve.io/v1'; set it to serving.kserve.io/v1beta1.")


def test_a_kind_that_is_not_known_here_passes() -> None:
    """Whatever its fields are; the command says that nobody looked at them."""
    item = {"apiVersion": "example.com/v1", "kind": "Thing", "metadata": {"name": "a"}, "x": 1}
    assert not known(item)
    assert list(refusals(item)) == []


def _containers(*names: str) -> list[dict[str, Any]]:
    return [{"name": name, "image": "a/b:1"} for name in names]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (
            lambda m, s: s["spec"]["predictor"].update(containers=_containers("kserve-container")),
            "its predictor has containers beside model, and KServe wants exactly one of them;",
        ),
        (lambda m, s: s["spec"]["predictor"].update(containers=_containers("sidecar")), None),
        (
            lambda m, s: s["spec"]["predictor"].pop("model"),
            "its predictor has neither a model nor containers;",
        ),
        (
            lambda m, s: s["spec"]["predictor"].update(sklearn={}),
            "its predictor has model and sklearn, and KServe wants exactly one of them.",
        ),
        (lambda m, s: s["spec"]["transformer"].pop("containers"), "its transformer has no contain"),
        (lambda m, s: m.pop("modelFormat"), "spec.predictor.model.modelFormat.name is missing;"),
        (lambda m, s: m.update(name="model"), "spec.predictor.model.name is 'model'; take it out"),
        (
            lambda m, s: m.update(protocolVersion="V2"),
            "spec.predictor.model.protocolVersion is 'V2'; set it to v1, v2, grpc-v1, grpc-v2.",
        ),
        (
            lambda m, s: m.update(runtime="kserve-mlserver", protocolVersion="v1"),
            "protocolVersion is 'v1', and kserve-mlserver speaks v2 alone, so that KServe makes no",
        ),
        (
            lambda m, s: m.update(runtime="kserve-tritonserver", protocolVersion="grpc-v1"),
            "protocolVersion is 'grpc-v1', and kserve-tritonserver speaks v2 alone",
        ),
        (
            lambda m, s: m.update(storageUri="s4://bucket/model"),
            "spec.predictor.model.storageUri is 's4://bucket/model', which KServe does not",
        ),
        (
            lambda m, s: m.update(storageUri="s3:/bucket/model"),
            "path in the image; is s3://bucket/model meant?",
        ),
        (lambda m, s: m.update(storageUri="hf://org/model"), None),
        (lambda m, s: m.update(storageUri="file:///models/a"), None),
        (lambda m, s: m.update(storageUri="/models/a"), None),
        (
            lambda m, s: m.update(storageUris=[{"uri": "s3://a/b", "mountPath": "/a"}]),
            "spec.predictor.model has storageUri and storageUris; leave one of them.",
        ),
        (
            lambda m, s: m.update(env=[{"name": "PYTHONPATH", "value": "/a"}]),
            "its predictor sets PYTHONPATH, which KServe refuses from 0.20 on; take it out.",
        ),
        (
            lambda m, s: s["spec"].update(
                transformer={
                    "containers": [{"env": [{"name": "PYTHONPATH", "value": "/app:/hooks"}]}]
                }
            ),
            "KServe refuses from 0.20 on; take it out; a module for PREPROCESS goes into /app",
        ),
        (
            lambda m, s: s["metadata"]["annotations"].update({kserve.AUTOSCALER: "kpa"}),
            f"{kserve.AUTOSCALER} is 'kpa'; set it to hpa, keda, external, none.",
        ),
    ],
)
def test_what_kserve_refuses_is_refused(
    manifests: list[Manifest], change: Change, line: str | None
) -> None:
    """Of fields that its CRD takes."""
    service = _service(manifests)
    change(service["spec"]["predictor"]["model"], service)
    found = list(kserve.refusals(service, manifests))
    assert len(found) == (line is not None)
    assert all(str(line) in text for text in found)


@pytest.mark.parametrize(
    ("model", "args", "env", "refused"),
    [
        ({}, [], [], True),
        ({}, ["--predictor_protocol", "v1"], [], True),
        ({}, ["--predictor_protocol=v2"], [], False),
        ({}, [], [{"name": kserve.READY_PATH, "value": "/health"}], False),
        ({}, [], [{"name": kserve.READY_PATH, "value": "/v2/health/ready"}], True),
        ({"runtime": "kserve-tritonserver"}, [], [], True),
        ({"runtime": "kserve-sklearnserver"}, [], [], False),
        ({"runtime": None, "modelFormat": {"name": "huggingface"}}, [], [], False),
        ({"runtime": None, "modelFormat": {"name": "ours"}}, [], [], False),
        ({"runtime": None, "modelFormat": {"name": "ours", "version": "2"}}, [], [], True),
        # Which a model that says nothing is taken to have of these.
        ({"protocolVersion": None, "runtime": "kserve-mlserver"}, [], [], True),
        ({"protocolVersion": "v1", "runtime": "kserve-tritonserver"}, [], [], True),
        ({"protocolVersion": "v1", "runtime": "the-teams"}, [], [], False),
    ],
)
def test_a_transformer_that_asks_by_another_protocol_is_refused(
    manifests: list[Manifest],
    model: dict[str, Any],
    args: list[str],
    env: list[dict[str, str]],
    refused: bool,
) -> None:
    """Where the server has nothing of v1; KServe's own servers answer both, and so may a runtime of
    the kustomization that KServe chooses by the format.
    """
    service = _service(manifests)
    said = service["spec"]["predictor"]["model"] | model
    said = {name: value for name, value in said.items() if value is not None}
    service["spec"]["predictor"]["model"] = said
    both = {
        "protocolVersions": ["v2", "v1"],
        "supportedModelFormats": [{"name": "ours", "version": "1", "autoSelect": True}],
    }
    manifests.append({"kind": "ServingRuntime", "metadata": {"name": "both"}, "spec": both})
    container = service["spec"]["transformer"]["containers"][0]
    container["args"] = ["--model_name", "model", *args]
    container["env"] += env
    found = list(kserve.refusals(service, manifests))
    assert len(found) == refused
    assert all("give the transformer the arguments --predictor_protocol v2" in f for f in found)


def test_a_storage_container_of_ones_own_is_asked(manifests: list[Manifest]) -> None:
    """It may download from anywhere."""
    service = _service(manifests)
    service["spec"]["predictor"]["model"]["storageUri"] = "s4://bucket/model"
    container = {
        "kind": "ClusterStorageContainer",
        "metadata": {"name": "s4"},
        "spec": {"supportedUriFormats": [{"prefix": "s4://"}]},
    }
    assert list(kserve.refusals(service, [*manifests, container])) == []


@pytest.mark.parametrize("kind", ["ServingRuntime", "PersistentVolumeClaim"])
@pytest.mark.parametrize(
    ("namespace", "place"), [(None, "without a namespace"), ("other", "in namespace other")]
)
def test_an_object_in_another_namespace_is_not_found_there(
    manifests: list[Manifest], kind: str, namespace: str | None, place: str
) -> None:
    """A runtime and a claim, which the InferenceService names and nothing else ties to it."""
    item = next(item for item in manifests if item["kind"] == kind)
    del item["metadata"]["namespace"]
    item["metadata"] |= {"namespace": namespace} if namespace else {}
    name = item["metadata"]["name"]
    found = list(problems(manifests))
    assert len(found) == 2
    for line in found:
        assert line.startswith("InferenceService ")
        assert f"-inference: {kind} {name} is {place}, and is looked for in prokube-demo-" in line


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m, s: None, None),
        (lambda m, s: m.update(runtime="kserve-mlserver"), None),
        (
            lambda m, s: m.update(runtime="kserve-tritonserver"),
            "it serves tensorrt, tensorflow, onnx, pytorch, triton.",
        ),
        (
            lambda m, s: m.update(runtime="kserve-tritonsever"),
            "nor one of KServe's own; is kserve-tritonserver meant?",
        ),
        (
            lambda m, s: m.update(
                runtime="kserve-mlserver", resources={"requests": {"memory": "4Gi"}}
            ),
            (
                "with what kserve-mlserver says where KServe's charts installed it, "
                "limits.memory of spec.predictor.model is '2Gi', and '4Gi' is requested;"
            ),
        ),
        (lambda m, s: m.update(runtime="ours"), "nor one of KServe's own; the cluster has to have"),
        (
            lambda m, s: m.update(runtime="kserve-xgbserver", modelFormat={"name": "xgbost"}),
            (
                "modelFormat is 'xgbost', which kserve-xgbserver does not serve where KServe's "
                "charts installed it; is xgboost meant?"
            ),
        ),
        (
            lambda m, s: (m.pop("runtime"), m.update(modelFormat={"name": "light-gbm"})),
            "'light-gbm', which no runtime of KServe's charts serves; is lightgbm meant?",
        ),
        (
            lambda m, s: (m.pop("runtime"), m.update(modelFormat={"name": "ours"})),
            "'ours', which no runtime of KServe's charts serves; the cluster has to have one",
        ),
        (lambda m, s: m.update(runtime="kserve-predictiveserver"), None),
        (
            lambda m, s: m.update(storageUri="pvc://iris-model/first"),
            "whose claim is not in the kustomization; is iris-models meant?",
        ),
        (lambda m, s: m.update(storageUri="pvc://the-teams/first"), None),
        (lambda m, s: m.pop("storageUri"), "spec.predictor.model has no storageUri,"),
        (lambda m, s: (m.pop("storageUri"), m.update(args=["--model_id=org/model"])), None),
    ],
)
def test_what_only_the_cluster_knows_is_warned_of(
    manifests: list[Manifest], change: Change, line: str | None
) -> None:
    """A runtime that its admin may have installed; a model that its server may find by itself."""
    service = _service(manifests)
    change(service["spec"]["predictor"]["model"], service)
    found = list(kserve.warnings(service, manifests))
    assert len(found) == (line is not None)
    assert all(str(line) in text for text in found)


@pytest.mark.parametrize(
    ("change", "served"),
    [
        (lambda m, s: None, None),
        (lambda m, s: m.update(args=["--model_name=iris"]), "'iris' (by its arguments or var"),
        (
            lambda m, s: m.update(env=[{"name": "MLSERVER_MODEL_NAME", "value": "iris"}]),
            "'iris' (by its arguments or variables)",
        ),
        (
            lambda m, s: m.update(
                runtime="kserve-tritonserver",
                readinessProbe={"httpGet": {"path": "/v2/models/iris/ready"}},
            ),
            "'iris' (by readinessProbe)",
        ),
        (
            lambda m, s: s["spec"]["transformer"]["containers"][0].update(
                args=["--model_name=a", "--predictor_protocol=v2"]
            ),
            "'model' (by its arguments or variables), and its transformer asks for 'a'",
        ),
        (
            lambda m, s: m.update(runtime="kserve-mlserver"),
            (
                f"{PRIMARY!r} (by its runtime, as it is given none), and its transformer asks for "
                "'model' (by --model_name), which is answered with 404; give both one name, by "
                "`env: [{name: MLSERVER_MODEL_NAME, value: model}]` in the predictor's model."
            ),
        ),
        (
            lambda m, s: m.update(
                runtime="kserve-mlserver", env=[{"name": "MLSERVER_MODEL_NAME", "value": "model"}]
            ),
            None,
        ),
        # Each takes it from one of the two alone.
        (
            lambda m, s: m.update(runtime="kserve-mlserver", args=["--model_name=model"]),
            f"{PRIMARY!r} (by its runtime, as it is given none), ",
        ),
        (
            lambda m, s: m.update(
                runtime="kserve-sklearnserver",
                env=[{"name": "MLSERVER_MODEL_NAME", "value": "model"}],
            ),
            f"{PRIMARY!r} (by its runtime, as it is given none), ",
        ),
        (
            lambda m, s: m.update(
                runtime="kserve-mlserver",
                args=["--model_name=model"],
                env=[{"name": "MLSERVER_MODEL_NAME", "value": "iris"}],
            ),
            "'iris' (by its arguments or variables)",
        ),
        *(
            (
                lambda m, s, runtime=runtime: m.update(runtime=runtime, protocolVersion="v1"),
                f"{PRIMARY!r} (by its runtime, as it is given none), ",
            )
            for runtime in kserve.NAMED_BY_ARGUMENT
        ),
        (
            lambda m, s: m.update(runtime="kserve-sklearnserver", args=["--model_name=model"]),
            None,
        ),
        (
            lambda m, s: (m.pop("runtime"), m.update(modelFormat={"name": "paddle"})),
            f"{PRIMARY!r} (by its runtime, as it is given none), ",
        ),
        # A runtime of the cluster's, or one of two: the one that it takes may be given a name.
        (lambda m, s: m.update(runtime="the-teams"), None),
        (lambda m, s: m.pop("runtime"), None),
        (lambda m, s: m.update(runtime="kserve-tritonserver"), None),
    ],
)
def test_a_model_of_two_names_is_refused(
    manifests: list[Manifest], change: Change, served: str | None
) -> None:
    """One for the predictor, and another one that the transformer asks it for."""
    service = _service(manifests)
    change(service["spec"]["predictor"]["model"], service)
    # A side whose transformer has another name than the other's is refused for that, too.
    found = [line for line in problems(manifests) if "calls name that of" not in line]
    assert len(found) == (served is not None)
    assert all(f"its predictor serves {served}" in line for line in found)


@pytest.mark.parametrize("of_format", kserve.FORMATS_OF_SEVERAL)
@pytest.mark.parametrize(
    ("said", "warned"),
    [
        ({}, True),
        ({"args": ["--model_name=model"]}, False),
        ({"env": [{"name": "MLSERVER_MODEL_NAME", "value": "model"}]}, False),
        ({"runtime": "the-teams"}, False),
    ],
)
def test_a_model_without_a_name_whose_runtime_kserve_chooses_is_warned_of(
    manifests: list[Manifest], of_format: str, said: Manifest, warned: bool
) -> None:
    """Most that it may choose call the model like the InferenceService; one of the kustomization is
    its choice where it has autoSelect.
    """
    service, _other = (item for item in manifests if item["kind"] == "InferenceService")
    model = service["spec"]["predictor"]["model"]
    del model["runtime"]
    model |= {"modelFormat": {"name": of_format}, **said}
    assert list(problems(manifests)) == []
    found = [line for line in warnings(manifests) if "KServe chooses" in line]
    assert len(found) == warned
    for line in found:
        assert line.startswith(f"InferenceService {PRIMARY}: ")
        assert (
            f"call it {PRIMARY!r} while it is given no name; its transformer asks for 'model' (b"
            in line
        )
        assert (
            "by `args: [--model_name=model]`, or for kserve-mlserver by "
            "`env: [{name: MLSERVER_MODEL_NAME, value: model}]`." in line
        )
    transformer = service["spec"]["transformer"]["containers"][0]
    asked, transformer["args"][1] = transformer["args"][1], PRIMARY
    assert asked == "model"
    assert not any("KServe chooses" in line for line in warnings(manifests))
    transformer["args"][1] = asked
    runtime = next(item for item in manifests if item["kind"] == "ServingRuntime")
    runtime["spec"]["supportedModelFormats"] += [{"name": of_format, "autoSelect": True}]
    assert not any("KServe chooses" in line for line in warnings(manifests))


@pytest.mark.parametrize(
    ("changed", "named"),
    [({}, True), ({"metadata": {"name": "kserve-mlserver"}}, False)],
)
def test_a_runtime_of_ones_own_may_be_called_like_one_of_kserves(
    manifests: list[Manifest], changed: Manifest, named: bool
) -> None:
    """And what is started without a runtime's name may be one of one's own."""
    runtime = next(item for item in manifests if item["kind"] == "ServingRuntime") | changed
    by = kserve.naming({"runtime": "kserve-mlserver"}, [runtime])
    assert by == ((kserve.VARIABLE,) if named else ())


@pytest.mark.parametrize(
    ("listed", "protocols", "own"),
    [
        ({"autoSelect": True}, ["v1"], True),
        ({"autoSelect": True, "version": "2"}, ["v1"], True),
        ({"autoSelect": True}, [], True),
        ({}, ["v1"], False),
        ({"autoSelect": True, "name": "sklearn"}, ["v1"], False),
        ({"autoSelect": True, "version": "1"}, ["v1"], False),
        ({"autoSelect": True}, ["v2"], False),
    ],
)
def test_a_runtime_of_ones_own_is_kserves_choice(
    manifests: list[Manifest], listed: Manifest, protocols: list[str], own: bool
) -> None:
    """Where it has the format, the version and the protocol, and says that it may be chosen."""
    runtime = next(item for item in manifests if item["kind"] == "ServingRuntime")
    runtime["spec"] |= {
        "supportedModelFormats": [{"name": "paddle", **listed}],
        "protocolVersions": protocols,
    }
    model: Manifest = {"modelFormat": {"name": "paddle"}}
    if "version" in listed:
        model["modelFormat"]["version"] = "2"
    assert kserve.naming(model, [runtime]) == (() if own else (kserve.ARGUMENT,))
    runtime["spec"]["disabled"] = True
    assert kserve.naming(model, [runtime]) == (kserve.ARGUMENT,)


def _overlay(folder: Path, patches: str) -> Path:
    """A kustomization of one's own on the example."""
    folder.mkdir()
    base = os.path.relpath(EXAMPLE, folder.resolve())
    (folder / "kustomization.yaml").write_text(f"resources: [{base}]\npatches:\n{patches}")
    return folder


def test_the_file_that_says_it_is_named(tmp_path: Path) -> None:
    """Once, though both sides have it; a thing that no file says has its object's name alone."""
    folder = _overlay(
        tmp_path / "yours",
        "  - target: {kind: InferenceService}\n"
        "    patch: |\n"
        "      - {op: add, path: /spec/predictor/model/runtme, value: x}\n",
    )
    with pytest.raises(Malformed) as raised:
        checked(folder)
    assert str(raised.value) == (
        f"{folder.resolve()}/kustomization.yaml: InferenceService double-minimal-inference: "
        "spec.predictor.model.runtme is not a field; is runtime meant?"
    )


@pytest.mark.parametrize(
    ("resource", "limit", "requested"), [("cpu", "1", "3"), ("memory", "512Mi", "4Gi")]
)
def test_an_amount_is_looked_for_where_the_limits_of_its_kind_are(
    tmp_path: Path, resource: str, limit: str, requested: str
) -> None:
    """The settings say cpu and 1 as well, of other things, and a CronJob has 512Mi of memory."""
    folder = tmp_path / "yours"
    folder.mkdir()
    base = os.path.relpath(repository() / "manifests" / "mirroring", folder.resolve())
    path = f"/spec/predictor/containers/0/resources/requests/{resource}"
    patch = f'{{op: replace, path: {path}, value: "{requested}"}}'
    (folder / "kustomization.yaml").write_text(
        f"resources: [{base}]\n"
        "patches:\n"
        "  - target: {kind: InferenceService}\n"
        f"    patch: |\n      - {patch}\n"
    )
    with pytest.raises(Malformed) as raised:
        checked(folder)
    (line,) = str(raised.value).splitlines()
    assert line.startswith("manifests/inference/base/inference-service.yaml: InferenceService ")
    place = f"spec.predictor.containers[0].resources.limits.{resource}"
    assert f"{place} is '{limit}', and '{requested}' is requested;" in line


@pytest.mark.parametrize(
    ("target", "line"),
    [
        (
            "{kind: InferenceService, labelSelector: app.kubernetes.io/component=shadw}",
            (
                "a patch has the target kind: InferenceService, labelSelector: "
                "app.kubernetes.io/component=shadw, which no object is; their "
                "app.kubernetes.io/component is primary or shadow."
            ),
        ),
        ("{kind: InferenceServce}", "no object is a InferenceServce; is InferenceService meant?"),
        (
            "{kind: InferenceService, name: double}",
            "name: double, which no object is; compare it with the names and labels",
        ),
        ("{kind: InferenceService, name: double.*}", None),
        ("{kind: CronJob}", None),
    ],
)
@pytest.mark.parametrize("patch", [ADDS, DELETES], ids=["adds", "deletes"])
def test_a_patch_that_is_applied_to_nothing_is_refused(
    tmp_path: Path, target: str, line: str | None, patch: str
) -> None:
    """Also one that deletes; but not one of a kind that another topology or option would have."""
    folder = _overlay(tmp_path / "yours", f"  - target: {target}\n{patch}")
    if line is None:
        check_targets(folder, render(EXAMPLE))
        return
    with pytest.raises(Malformed) as raised:
        check_targets(folder, render(EXAMPLE))
    (said,) = str(raised.value).splitlines()
    assert said.startswith(f"{folder.resolve()}/kustomization.yaml: ")
    assert line in said


@pytest.mark.parametrize(
    ("named", "line"),
    [
        ("labelSelector: app.kubernetes.io/component=shadow", None),
        ("labelSelector: app.kubernetes.io/component=primary", None),
        ("labelSelector: app.kubernetes.io/component=shadw", "component is primary"),
        ("name: triple-minimal-inference", "by its label: labelSelector: app.kub.*=shadow"),
    ],
)
def test_a_patch_for_what_the_stage_leaves_out_is_for_the_others(
    tmp_path: Path, named: str, line: str | None
) -> None:
    """A folder with both sides' patches begins with the primary alone; a slip is still one, and a
    name is nobody's yet.
    """
    stage = repository() / "manifests" / "stages" / "primary-alone"
    folder = tmp_path / "yours"
    folder.mkdir()
    target = f"{{kind: InferenceService, {named}}}"
    (folder / "kustomization.yaml").write_text(
        f"resources: [{os.path.relpath(stage, folder.resolve())}]\n"
        f"patches:\n  - target: {target}\n{ADDS}"
    )
    if line is None:
        check_targets(folder, render(folder))
        return
    with pytest.raises(Malformed, match=line):
        check_targets(folder, render(folder))


@pytest.mark.parametrize("new", [{}, {"shadow-version": "2509"}])
def test_a_version_that_a_patch_outranks_is_warned_of(tmp_path: Path, new: dict[str, str]) -> None:
    """Once it was changed in the settings, and the rendering says the former one."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | new)
    manifests = render(tree.folder)
    assert list(outranked(tree.folder, manifests)) == []
    (shadow,) = (item for item in manifests if item["metadata"]["name"].startswith("triple"))
    variables = shadow["spec"]["transformer"]["containers"][0]["env"]
    next(item for item in variables if item["name"] == "MODEL_VERSION")["value"] = "2508"
    found = list(outranked(tree.folder, manifests))
    assert len(found) == len(new)
    for warning in found:
        assert "MODEL_VERSION is '2508' by a patch on top, which outranks shadow-version" in warning


@pytest.mark.parametrize("option", ["second-shadow/standard", "live-verdict", "report", "api-key"])
def test_an_options_patches_may_be_for_options_that_are_off(tmp_path: Path, option: str) -> None:
    """An option alone, with the patches that its folders bring for others."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on(option)
    check_targets(tree.folder, render(tree.folder))


def test_a_target_is_what_the_patches_before_it_have_made(tmp_path: Path) -> None:
    """In the order in which Kustomize applies them; each may change what the next one asks for."""
    labelled = "    patch: |\n      - {op: add, path: /metadata/labels/tier, value: models}\n"
    folder = _overlay(
        tmp_path / "yours",
        f"  - target: {{kind: InferenceService}}\n{labelled}"
        f"  - target: {{kind: InferenceService, labelSelector: tier=models}}\n{ADDS}",
    )
    check_targets(folder, render(folder))


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("ghcr.io/prokube/minimal-transformer", None),
        ("ghcr.io/prokube/minimal-predictor", None),
        ("ghcr.io/procube/minimal-transformer", "is ghcr.io/prokube/minimal-transformer meant?"),
        ("nginx", "they have docker.io/seldonio/mlserver, ghcr.io/prokube/minimal-transformer,"),
    ],
)
def test_an_image_that_no_container_has_is_refused(
    tmp_path: Path, name: str, remedy: str | None
) -> None:
    """But not one of this repository, which an option would have."""
    folder = _overlay(tmp_path / "yours", f"  - target: {{kind: InferenceService}}\n{ADDS}")
    with (folder / "kustomization.yaml").open("a") as file:
        file.write(f"images:\n  - {{name: {name}, newName: ours/it}}\n")
    if remedy is None:
        check_images(folder, render(folder))
        return
    with pytest.raises(Malformed) as raised:
        check_images(folder, render(folder))
    start = f"{folder.resolve()}/kustomization.yaml: `images` has the name {name}, which no"
    assert str(raised.value).startswith(f"{start} container has; {remedy}")


def test_a_components_patch_is_read_as_well(tmp_path: Path) -> None:
    """From a file of its own; the component's file is named."""
    component = tmp_path / "component"
    component.mkdir()
    (component / "kustomization.yaml").write_text(
        "kind: Component\napiVersion: kustomize.config.k8s.io/v1alpha1\n"
        "patches:\n  - {path: more.yaml, target: {kind: InferenceService, name: nobody}}\n"
    )
    (component / "more.yaml").write_text("- {op: remove, path: /spec/predictor/model}\n")
    folder = _overlay(tmp_path / "yours", f"  - target: {{kind: InferenceService}}\n{ADDS}")
    with (folder / "kustomization.yaml").open("a") as file:
        file.write("components: [../component]\n")
    with pytest.raises(Malformed) as raised:
        check_targets(folder, render(folder))
    (said,) = str(raised.value).splitlines()
    assert said.startswith(f"{component.resolve()}/kustomization.yaml: a patch has the target kind")


def test_this_repositorys_own_patches_may_be_for_options_that_are_off() -> None:
    """The stages and topologies have some; those of the examples are all applied."""
    for folder in ("manifests/stages/shadow-promoted", "manifests/mirroring/follow"):
        check_targets(repository() / folder, render(repository() / folder))


@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_a_stage_may_leave_out_what_an_option_changes(tmp_path: Path, topology: str) -> None:
    """As the primary alone does with the second shadow."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.switch_on_options(topology)
    folder = tree.folder / "manifests/stages/primary-alone"
    check_targets(folder, render(folder))


@pytest.mark.parametrize(
    ("kind", "program", "words", "line"),
    [
        ("transformer", "minimal-transformer", ["--predictor_protocol", "v2"], None),
        (
            "transformer",
            "minimal-transformer",
            ["--predictor-protocol", "v2"],
            "unrecognized arguments: --predictor-protocol v2; is --predictor_protocol meant?",
        ),
        (
            "transformer",
            "minimal-transformer",
            ["--predictor_protocol", "v3"],
            "argument --predictor_protocol: invalid choice: 'v3' (choose from",
        ),
        ("transformer", "somebody-elses", ["--predictor-protocol", "v2"], None),
        ("predictor", "minimal-predictor", ["--http_port=8081"], None),
        ("predictor", "minimal-predictor", ["--http_port=80x"], "--http_port: invalid int value"),
    ],
)
def test_arguments_that_a_server_refuses_are_refused(
    manifests: list[Manifest], kind: str, program: str, words: list[str], line: str | None
) -> None:
    """In the words of the server itself; of somebody else's there is no opinion."""
    service = _service(manifests)
    containers = [{"name": "kserve-container", "image": f"a/{program}:1", "args": words}]
    service["spec"][kind] = {"containers": containers}
    if line is None:
        check_arguments(EXAMPLE, [service])
        return
    with pytest.raises(Malformed) as raised:
        check_arguments(EXAMPLE, [service])
    (said,) = str(raised.value).splitlines()
    assert f"{program} refuses them: " in said
    assert line in said


def test_arguments_that_nobody_can_read_are_warned_of(
    manifests: list[Manifest], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without minimal-transformer, which reads them."""
    monkeypatch.setattr("shadow_local.translate.arguments.repository", lambda: tmp_path)
    check_arguments(EXAMPLE, manifests)
    found = list(unread([_service(manifests)]))
    assert len(found) == 1
    assert "`make install PROJECT=minimal-transformer`" in found[0]
