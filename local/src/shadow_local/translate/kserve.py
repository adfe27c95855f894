"""What KServe's webhook and its controller refuse of an InferenceService that fits its schema.

After pkg/apis/serving/v1beta1/inference_service_validation.go and ValidateStorageURI in
pkg/controller/v1beta1/inferenceservice/utils; the webhook says it at once, the controller in an
event, hours before somebody looks.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from itertools import chain
from typing import Any

from shadow_local.translate.document import Manifest, of_kind
from shadow_local.translate.forms import label
from shadow_local.translate.resources import faults

COMPONENTS = ("predictor", "transformer", "explainer")
CONTAINER = "kserve-container"
# The fields of a predictor that KServe makes the container of; `model` alone is not deprecated.
FRAMEWORKS = (
    *("model", "huggingface", "lightgbm", "onnx", "paddle", "pmml", "pytorch", "sklearn"),
    *("tensorflow", "triton", "xgboost"),
)
PROTOCOLS = ("v1", "v2", "grpc-v1", "grpc-v2")
# What its storage initializer downloads, or the kubelet mounts.
SCHEMES = (
    *("gs", "s3", "pvc", "file", "https", "http", "hdfs", "webhdfs", "oci", "oci+native"),
    *("oci+fetch", "hf", "modelscope"),
)
# `s3:/bucket`: KServe's pattern wants both slashes, and takes all else for a path in the image.
_ONE_SLASH = re.compile(r"([a-z0-9][-a-z0-9+.]*):/(?!/)")
CLAIM = re.compile("pvc://([^/]+)")
AUTOSCALER, AUTOSCALERS = "serving.kserve.io/autoscalerClass", ("hpa", "keda", "external", "none")
BLOCKED = "PYTHONPATH"
# The ClusterServingRuntimes that KServe's own charts install, with the formats that each serves.
RUNTIMES = {
    "kserve-autogluonserver": ("autogluon",),
    "kserve-huggingfaceserver": ("huggingface",),
    "kserve-huggingfaceserver-multinode": ("huggingface",),
    "kserve-lgbserver": ("lightgbm",),
    "kserve-mlserver": ("sklearn", "xgboost", "lightgbm", "mlflow"),
    "kserve-openvino": ("openvino", "onnx", "tensorflow", "huggingface"),
    "kserve-paddleserver": ("paddle",),
    "kserve-pmmlserver": ("pmml",),
    "kserve-predictiveserver": ("sklearn", "xgboost", "lightgbm"),
    "kserve-sklearnserver": ("sklearn",),
    "kserve-tensorflow-serving": ("tensorflow",),
    "kserve-torchserve": ("pytorch",),
    "kserve-tritonserver": ("tensorrt", "tensorflow", "onnx", "pytorch", "triton"),
    "kserve-vllmserver": ("vLLM",),
    "kserve-xgbserver": ("xgboost",),
}
# Of these, KServe's own servers, which answer v1 whatever protocolVersion is; and the formats for
# which KServe takes one of them where no runtime is named.
ANSWER_V1 = (
    *("kserve-autogluonserver", "kserve-huggingfaceserver", "kserve-huggingfaceserver-multinode"),
    *("kserve-lgbserver", "kserve-paddleserver", "kserve-pmmlserver", "kserve-predictiveserver"),
    *("kserve-sklearnserver", "kserve-xgbserver"),
)
FORMATS_OF_V1 = ("autogluon", "huggingface", "paddle", "pmml", "predictive")
# Of all, those that call the model like the InferenceService where they are given no name: by their
# own arguments, and MLServer by the variable that KServe adds.
MLSERVER = "kserve-mlserver"
V2_ALONE = (MLSERVER, "kserve-tritonserver")  # where protocolVersion is of V1, KServe refuses it
V1 = ("v1", "grpc-v1")
NAMED_BY_ARGUMENT = (*ANSWER_V1, "kserve-openvino", "kserve-tensorflow-serving")
# Formats for which it chooses among several of them; for some of these, Triton is one more.
FORMATS_OF_SEVERAL = ("lightgbm", "mlflow", "onnx", "sklearn", "tensorflow", "xgboost")
# What a server is told its model's name by.
ARGUMENT, VARIABLE = "--model_name", "MLSERVER_MODEL_NAME"
# What each requests, and has as its limits, but for the one of several nodes, which has more.
OF_SEVERAL_NODES = "kserve-huggingfaceserver-multinode"
RESOURCES = {part: {"cpu": "1", "memory": "2Gi"} for part in ("limits", "requests")}
PROTOCOL = re.compile(r"(?<!\S)--predictor_protocol[= ](\S+)")
# The transformer's probe of a predictor that has KServe's paths.
READY_PATH, KSERVES_PATH = "PREDICTOR_READY_PATH", re.compile("/v1/models/|/v2/")


def refusals(service: Manifest, manifests: Iterable[Manifest]) -> Iterator[str]:
    """One line for each thing that KServe would refuse in an InferenceService."""
    manifests = list(manifests)
    problems = [
        *_implementations(service["spec"]),
        *_autoscaler(service["metadata"]),
        *_blocked(service["spec"]),
    ]
    for field, model in _models(service["spec"]):
        problems += [f"{field}{problem}" for problem in _model(field, model, manifests)]
        problems += _protocols(service["spec"], field, model, manifests)
    yield from (f"{label(service)}: {problem}" for problem in problems)


def warnings(service: Manifest, manifests: Iterable[Manifest]) -> Iterator[str]:
    """One line for what only the cluster knows, and may be mistaken."""
    runtimes = _runtimes(manifests)
    for field, model in _models(service["spec"]):
        name = model.get("runtime")
        if name and name not in (*runtimes, *RUNTIMES):
            near = get_close_matches(name, [*runtimes, *RUNTIMES], 1, 0.75)
            yield (
                f"{label(service)}: runtime is {name!r}, which is neither in the kustomization nor "
                "one of KServe's own; "
                + (f"is {near[0]} meant?" if near else "the cluster has to have it.")
            )
        if unserved := _unserved(model, runtimes):
            yield f"{label(service)}: {field}.{unserved}"
        for uri, claim in _mistyped_claims(model, manifests):
            yield (
                f"{label(service)}: {field}.storageUri is {uri!r}, whose claim is not in the "
                f"kustomization; is {claim} meant?"
            )
        if name in RUNTIMES and name not in (*runtimes, OF_SEVERAL_NODES):
            yield from (
                f"{label(service)}: with what {name} says where KServe's charts installed it, "
                f"{found} of {field} {problem}"
                for found, problem in amounts(model, RESOURCES)
            )
        containers = [model, *runtimes.get(name or "", {}).get("containers", ())]
        words = [str(word) for item in containers for word in item.get("args") or ()]
        sources = ("storageUri", "storageUris", "storage")
        if not any(source in model for source in sources) and not _names_model(words):
            yield (
                f"{label(service)}: {field} has no storageUri, so that KServe gives its server no "
                "model; a server that finds one by itself is told so in args, as by --model_id."
            )


def _unserved(model: dict[str, Any], runtimes: dict[str, dict[str, Any]]) -> str | None:
    """What to say of a format that KServe's own runtimes do not serve, or the one that is named."""
    name, wanted = model.get("runtime"), (model.get("modelFormat") or {}).get("name")
    if name in runtimes or (name and name not in RUNTIMES):
        return None  # its own list is known, or nobody knows
    own = (item for spec in runtimes.values() for item in spec.get("supportedModelFormats") or ())
    served = RUNTIMES[name] if name else (*chain(*RUNTIMES.values()), *(of["name"] for of in own))
    if not wanted or wanted in served:
        return None
    near = get_close_matches(wanted, served, 1, 0.75)
    if name:
        whose = f"{name} does not serve where KServe's charts installed it"
        remedy = f"it serves {', '.join(served)}."
    else:
        whose, remedy = "no runtime of KServe's charts serves", "the cluster has to have one."
    return f"modelFormat is {wanted!r}, which {whose}; " + (
        f"is {near[0]} meant?" if near else remedy
    )


def naming(model: dict[str, Any], manifests: Iterable[Manifest]) -> tuple[str, ...]:
    """By what a model is given another name than its InferenceService's: ARGUMENT or VARIABLE, or
    either where KServe chooses among its own runtimes; nothing where nobody knows what its runtime
    calls it.
    """
    runtime, of_format = model.get("runtime"), model.get("modelFormat", {}).get("name")
    if runtime in _runtimes(manifests) or (not runtime and _chosen(model, manifests)):
        return ()
    if runtime == MLSERVER:
        return (VARIABLE,)
    if runtime in NAMED_BY_ARGUMENT if runtime else of_format in FORMATS_OF_V1:
        return (ARGUMENT,)
    return (ARGUMENT, VARIABLE) if not runtime and of_format in FORMATS_OF_SEVERAL else ()


def named(by: str, name: str) -> str:
    """What a model says for its server to call it so."""
    if by == ARGUMENT:
        return f"args: [{ARGUMENT}={name}]"
    return f"env: [{{name: {VARIABLE}, value: {name}}}]"


def amounts(model: dict[str, Any], runtimes: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """What is refused of a model's resources only because its runtime's are added to them."""
    said = model.get("resources") or {}
    merged = {part: {**(runtimes.get(part) or {}), **(said.get(part) or {})} for part in RESOURCES}
    for part, name, problem in faults(merged) if not any(faults(said)) else ():
        yield f"{part}.{name}", problem


def _runtimes(manifests: Iterable[Manifest]) -> dict[str, dict[str, Any]]:
    """What each ServingRuntime of the kustomization says, by its name."""
    return {
        item["metadata"]["name"]: item["spec"]
        for item in manifests
        if item.get("kind") in ("ServingRuntime", "ClusterServingRuntime")
    }


def _chosen(model: dict[str, Any], manifests: Iterable[Manifest]) -> list[dict[str, Any]]:
    """What may be KServe's choice for a model that names no runtime, of those of the kustomization;
    it takes none of the others while there is one in the namespace.
    """
    wanted, protocol = model.get("modelFormat", {}), model.get("protocolVersion", "v1")
    return [
        spec
        for spec in _runtimes(manifests).values()
        if not spec.get("disabled") and protocol in (spec.get("protocolVersions") or (protocol,))
        for listed in spec.get("supportedModelFormats") or ()
        if listed.get("autoSelect")
        and listed.get("name") == wanted.get("name")
        and wanted.get("version") in (None, listed.get("version"))
    ]


def _implementations(spec: dict[str, Any]) -> Iterator[str]:
    """A predictor is exactly one thing; containers of other names beside a model are sidecars."""
    predictor = spec["predictor"]
    given = [name for name in FRAMEWORKS if predictor.get(name) is not None]
    names = [container.get("name") for container in predictor.get("containers") or ()]
    own = names.count(CONTAINER) if given else bool(names)
    if not given and not names:
        yield "its predictor has neither a model nor containers; KServe wants exactly one."
    elif given and own:
        yield (
            f"its predictor has containers beside {given[0]}, and KServe wants exactly one of "
            "them; take containers out, as by {op: remove, path: /spec/predictor/containers}."
        )
    elif len(given) > 1:
        yield f"its predictor has {' and '.join(given)}, and KServe wants exactly one of them."
    if "transformer" in spec and not (spec["transformer"] or {}).get("containers"):
        yield "its transformer has no containers; KServe wants one."


def _autoscaler(metadata: dict[str, Any]) -> Iterator[str]:
    found = (metadata.get("annotations") or {}).get(AUTOSCALER)
    if found not in (None, *AUTOSCALERS):
        yield f"{AUTOSCALER} is {found!r}; set it to {', '.join(AUTOSCALERS)}."


def _blocked(spec: dict[str, Any]) -> Iterator[str]:
    for kind in COMPONENTS:
        component = spec.get(kind) or {}
        containers = [
            *(component.get("containers") or ()),
            *(component.get("initContainers") or ()),
        ]
        containers += [model for _, model in _models(spec)] if kind == "predictor" else []
        if any(item["name"] == BLOCKED for part in containers for item in part.get("env") or ()):
            line = f"its {kind} sets {BLOCKED}, which KServe refuses from 0.20 on; take it out"
            if kind == "transformer":
                line += "; a module for PREPROCESS goes into /app (docs/your-own-transformer.md)"
            yield f"{line}."


def _models(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each part of the predictor that KServe makes a container of, with its path."""
    for name in FRAMEWORKS:
        if (model := spec["predictor"].get(name)) is not None:
            yield f"spec.predictor.{name}", model


def _model(field: str, model: dict[str, Any], manifests: Iterable[Manifest]) -> Iterator[str]:
    """What is wrong with one, to be read after its path."""
    if field.endswith(".model") and not (model.get("modelFormat") or {}).get("name"):
        yield ".modelFormat.name is missing; set it to the model's format, such as sklearn."
    if "name" in model:
        yield f".name is {model['name']!r}; take it out, as KServe names the container itself."
    protocol = model.get("protocolVersion", "v1")
    listed = [
        version
        for runtime in _runtimes(manifests).values()
        for version in runtime.get("protocolVersions") or ()
    ]
    if protocol not in (*PROTOCOLS, *listed):
        yield f".protocolVersion is {protocol!r}; set it to {', '.join(PROTOCOLS)}."
    if "storageUri" in model and "storageUris" in model:
        yield " has storageUri and storageUris; leave one of them."
    for uri in _uris(model):
        if found := _ONE_SLASH.match(uri):
            yield (
                f".storageUri is {uri!r}, which KServe takes for a path in the image; is "
                f"{found[1]}://{uri[found.end() :]} meant?"
            )
        elif not _downloaded(uri, manifests):
            yield (
                f".storageUri is {uri!r}, which KServe does not download; it takes "
                f"{', '.join(f'{scheme}://' for scheme in SCHEMES)}, and what a "
                "ClusterStorageContainer of the kustomization says."
            )


def _protocols(
    spec: dict[str, Any], field: str, model: dict[str, Any], manifests: Iterable[Manifest]
) -> Iterator[str]:
    """A server that speaks v2 alone answers the transformer's v1, and its probe, with 404."""
    runtime, own = model.get("runtime"), _runtimes(manifests)
    says, protocol = f"{field}.protocolVersion is 'v2'", model.get("protocolVersion")
    if runtime in V2_ALONE and runtime not in own:
        says = f"{field}.runtime is {runtime!r}, which speaks v2 alone"
        if protocol in V1:
            yield (
                f"{field}.protocolVersion is {protocol!r}, and {runtime} speaks v2 alone, so that "
                "KServe makes no pod of it; set it to v2, and give the transformer the arguments "
                "--predictor_protocol v2, as docs/models/runtime.md shows."
            )
            return
    elif model.get("protocolVersion") != "v2" or _answers_v1(model, manifests):
        return
    for container in (spec.get("transformer") or {}).get("containers") or ():
        words = " ".join(map(str, container.get("args") or ()))
        env = {item["name"]: item.get("value") for item in container.get("env") or ()}
        ready = env.get(READY_PATH)
        # One of another path is asked neither for KServe's paths nor for the model by its name.
        asked = container.get("name") == CONTAINER and (not ready or KSERVES_PATH.match(ready))
        if asked and PROTOCOL.findall(words)[-1:] in ([], ["v1"]):
            yield (
                f"{says}, and the transformer asks by v1, which such a "
                "server answers with 404, so that its pod is never ready; give the transformer the "
                "arguments --predictor_protocol v2, as docs/models/runtime.md shows."
            )


def _answers_v1(model: dict[str, Any], manifests: Iterable[Manifest]) -> bool:
    """Whether the model's server does, as far as its runtime is known."""
    name, own = model.get("runtime"), _runtimes(manifests)
    known = [own[name]] if name in own else [] if name else _chosen(model, manifests)
    if known:
        return any("v1" in (spec.get("protocolVersions") or ("v1",)) for spec in known)
    return name in ANSWER_V1 if name else model.get("modelFormat", {}).get("name") in FORMATS_OF_V1


def _uris(model: dict[str, Any]) -> list[str]:
    """Where the model and what belongs to it are downloaded from."""
    uris = [model.get("storageUri"), *(item.get("uri") for item in model.get("storageUris") or ())]
    return [uri for uri in uris if uri is not None]


def _mistyped_claims(
    model: dict[str, Any], manifests: Iterable[Manifest]
) -> Iterator[tuple[str, str]]:
    """Each URI of a claim that is not among the objects, with the one of theirs that is near."""
    claims = [item["metadata"]["name"] for item in of_kind(manifests, "PersistentVolumeClaim")]
    for uri in _uris(model):
        found = CLAIM.match(uri)
        if found and found[1] not in claims:
            yield from ((uri, near) for near in get_close_matches(found[1], claims, 1, 0.75))


def _downloaded(uri: str, manifests: Iterable[Manifest]) -> bool:
    """A path without a scheme is one in the image."""
    for item in of_kind(manifests, "ClusterStorageContainer"):
        for form in item["spec"].get("supportedUriFormats") or ():
            prefix, pattern = form.get("prefix"), form.get("regex")
            if (prefix and uri.startswith(prefix)) or (pattern and re.match(pattern, uri)):
                return True
    scheme, found, rest = uri.partition("://")
    return bool(uri) and (not found or (scheme in SCHEMES and bool(rest)))


def _names_model(words: Iterable[str]) -> bool:
    return any(re.match(r"--?model([_-](id|dir|path|repository|store))?(=|$)", w) for w in words)
