"""A predictor's model between its runtime, which names, probes and sizes it, and the transformer
that asks for it.

No control plane compares them: the pod is never ready, or answers each call with 404.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from shadow_local.translate import kserve
from shadow_local.translate.document import Manifest, of_kind
from shadow_local.translate.forms import label, variables_of
from shadow_local.translate.references import namespace_of
from shadow_local.translate.services import KSERVE_CONTAINER, called_port, named_model

COMPONENTS = ("predictor", "transformer")
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
MODELS_PATH = re.compile("/v[12]/models/([^/:?]+)")
# Of vLLM and SGLang; vLLM takes several names, and those of adapters.
SERVED_NAMES = re.compile(r"(?<!\S)--served[-_]model[-_]name[= ](\S+(?: (?!-)\S+)*)")
ADAPTERS = "--lora"
KEY_ARGUMENT, KEY_VARIABLE = re.compile("--api[-_]key(=|$)"), "VLLM_API_KEY"


def refusals(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """One line for each thing in which an InferenceService, its runtime and its transformer cannot
    go together.
    """
    yield from _unsupported(service, manifests)
    yield from _model_names(service, manifests)
    yield from _merged_amounts(service, manifests)


def disagreements(services: Iterable[Manifest]) -> Iterator[str]:
    """One line for each shadow that does not know its primary's model by the name in the calls: to
    it a copy is the same call, which it answers with 404.
    """
    sides: dict[str, list[Manifest]] = {"primary": [], "shadow": []}
    for service in services:
        for variables in variables_of("transformer", [service]):
            sides.get(variables.get("SHADOW_ROLE", ""), []).append(service)
    # Of several deployments nobody knows here which shadow belongs to which of them.
    for primary in sides["primary"] if len(sides["primary"]) == 1 else ():
        wanted = _called(primary)
        for shadow in sides["shadow"]:
            given = _called(shadow)
            if wanted and given and not wanted & given:
                said, other = (" or ".join(map(repr, sorted(names))) for names in (wanted, given))
                yield (
                    f"InferenceService {shadow['metadata']['name']}: it knows its model as {other},"
                    f" and calls name that of {primary['metadata']['name']}, {said}, so each copy "
                    "is answered with 404; give both one name, and tell the models apart by "
                    "MODEL_VERSION."
                )


def warnings(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """One line for each thing in which they may not, as only the cluster knows."""
    yield from _probes(service)
    yield from _probed_ports(service, manifests)
    yield from _probed_names(service, manifests)
    yield from _unnamed(service, manifests)
    yield from _keys(service)


def _unsupported(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """KServe makes no pod of a model whose runtime does not list its format and its protocol.

    A format without a version is any of that name; one with a version is that alone, to the letter.
    A runtime that lists no protocols is taken to speak them all.
    """
    if (runtime := _runtime_of(service, manifests)) is None:
        return
    name, model = service["metadata"]["name"], service["spec"]["predictor"]["model"]
    spec = runtime["spec"]
    owner = f"{runtime['kind']} {runtime['metadata']['name']}"
    if spec.get("disabled"):
        yield f"InferenceService {name}: {owner} is disabled; take `disabled` out of it."
    protocol, protocols = model.get("protocolVersion"), spec.get("protocolVersions")
    if protocol and protocols and protocol not in protocols:
        yield (
            f"InferenceService {name}: protocolVersion is {protocol!r}, which {owner} does not "
            f"support; set it to {' or '.join(protocols)}, or list it in protocolVersions there."
        )
    wanted = _format(model.get("modelFormat", {}))
    formats = [_format(item) for item in spec.get("supportedModelFormats") or ()]
    if wanted not in {*formats, *((one, None) for one, _ in formats)}:
        said, *listed = (" ".join(filter(None, item)) for item in (wanted, *formats))
        yield (
            f"InferenceService {name}: modelFormat is {said!r}, which {owner} does not support; "
            f"its supportedModelFormats are {listed}: take one of them, or list it there."
        )


def _format(item: Manifest) -> tuple[str, str | None]:
    return item.get("name", ""), item.get("version")


def _model_names(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """The transformer asks the predictor for the model by its own name."""
    asked, name = _asked_for(service), service["metadata"]["name"]
    for kind, container in _containers(service, manifests) if asked else ():
        by = kserve.naming(container, manifests)
        default = name if len(by) == 1 else ""
        served, place = _named_by(container, by, default)
        served = served.replace("{{.Name}}", name)
        if kind == "predictor" and served and "$(" not in served and served != asked:
            how = f", by `{kserve.named(by[0], asked)}` in the predictor's model" if default else ""
            yield (
                f"InferenceService {name}: its predictor serves {served!r} (by {place}), and its "
                f"transformer asks for {asked!r} (by --model_name), which is answered with 404; "
                f"give both one name{how}."
            )


def _merged_amounts(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """Of a model that says a limit alone, or a request, the other one is its runtime's."""
    if (runtime := _runtime_of(service, manifests)) is None:
        return
    model = service["spec"]["predictor"]["model"]
    for container in runtime["spec"]["containers"]:
        for field, problem in kserve.amounts(model, container.get("resources") or {}):
            yield (
                f"{label(service)}: with what {label(runtime)} says, {field} of its model {problem}"
            )


def _probes(service: Manifest) -> Iterator[str]:
    """A container without KServe's paths is never ready where its own probes still ask for them."""
    name, predictor = service["metadata"]["name"], service["spec"].get("predictor", {})
    asked = {
        probe: path
        for container in (*predictor.get("containers", ()), predictor.get("model", {}))
        for probe, path in _probed(container)
        if kserve.KSERVES_PATH.match(path)
    }
    for variables in variables_of("transformer", [service]) if asked else ():
        path = variables.get(kserve.READY_PATH)
        if path and not kserve.KSERVES_PATH.match(path):
            yield (
                f"InferenceService {name}: PREDICTOR_READY_PATH is {path!r}, and the predictor's "
                f"{' and '.join(asked)} still {'asks' if len(asked) == 1 else 'ask'} for "
                f"{' and '.join(sorted({*asked.values()}))}; a container without KServe's paths "
                "is never ready so, or is restarted for ever. Patch its probes too, as "
                "docs/models/language-model.md and docs/models/other.md show."
            )


def _probed_names(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """A server answers 404 for any model but its own, also to a probe."""
    name = service["metadata"]["name"]
    for kind, container in _containers(service, manifests):
        served = _served(container, kserve.naming(container, manifests)).replace("{{.Name}}", name)
        asked = {
            probe: path
            for probe, path in _probed(container)
            if (found := MODELS_PATH.match(path)) and found[1] != served
        }
        if asked and served and "$(" not in served:
            restarted = asked.keys() == {"livenessProbe"}
            yield (
                f"InferenceService {name}: the model of its {kind} is called {served!r}, and "
                f"{' and '.join(sorted({*asked.values()}))} of its {' and '.join(asked)} is of "
                "another one; that is answered with 404, and the pod is "
                f"{'restarted over and over' if restarted else 'never ready'}. Give both one name."
            )


def _unnamed(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """Most runtimes that KServe chooses among call a model like its InferenceService."""
    asked, name = _asked_for(service), service["metadata"]["name"]
    for _, container in _containers(service, manifests) if asked not in ("", name) else ():
        by = kserve.naming(container, manifests)
        if len(by) > 1 and not _served(container, by):
            argument, variable = (f"`{kserve.named(each, asked)}`" for each in by)
            yield (
                f"InferenceService {name}: KServe chooses the runtime of its predictor's model, "
                f"and most of those call it {name!r} while it is given no name; its transformer "
                f"asks for {asked!r} (by --model_name), which is answered with 404 then. Name the "
                f"`runtime`, and give the model that name: by {argument}, or for {kserve.MLSERVER} "
                f"by {variable}."
            )


def _keys(service: Manifest) -> Iterator[str]:
    """Callers' keys end at the gateway, so a server that asks for one refuses every call."""
    for container in service["spec"].get("predictor", {}).get("containers", ()):
        words = (*container.get("command", ()), *container.get("args", ()))
        said = [word.partition("=")[0] for word in words if KEY_ARGUMENT.match(word)]
        said += [item["name"] for item in container.get("env", ()) if item["name"] == KEY_VARIABLE]
        for what in said[:1]:
            yield (
                f"InferenceService {service['metadata']['name']}: {what} has its predictor ask for "
                "a key, and no caller's key gets past the gateway, so it refuses every call; leave "
                "it out, and have the gateway ask (the option api-key)."
            )


def _asked_for(service: Manifest) -> str:
    """The model's name that the transformer asks its predictor for; empty where nobody knows it."""
    transformer = service["spec"].get("transformer", {}).get("containers") or [{}]
    variables = {item["name"]: item.get("value") for item in transformer[0].get("env") or ()}
    ready = variables.get(kserve.READY_PATH)
    if ready and not kserve.KSERVES_PATH.match(ready):
        return ""  # a language model's server is asked for the name that stands in the call
    asked = _served(transformer[0])
    return "" if "$(" in asked else asked


def _called(service: Manifest) -> set[str]:
    """The names by which callers may ask for the model; none where nobody knows them."""
    if asked := _asked_for(service):
        return {asked}
    containers = service["spec"].get("predictor", {}).get("containers") or [{}]
    said = " ".join([*containers[0].get("command", ()), *containers[0].get("args", ())])
    names = SERVED_NAMES.findall(said)
    return set(names[-1].split()) if names and ADAPTERS not in said and "$(" not in said else set()


def _named_by(container: Manifest, by: tuple[str, ...], default: str) -> tuple[str, str]:
    """A model's name and what gives it; a probe tells it where nothing else does."""
    if served := _served(container, by):
        return served, "its arguments or variables"
    if default:
        return default, "its runtime, as it is given none"
    probed = ((probe, MODELS_PATH.match(path)) for probe, path in _probed(container))
    return next(((found[1], probe) for probe, found in probed if found), ("", ""))


def _served(container: Manifest, by: tuple[str, ...] = ()) -> str:
    """The model's name that a container is started with; empty where it is not given. `by`: what
    its server heeds, where that is known.
    """
    variables = {item["name"]: item.get("value") for item in container.get("env", ())}
    words = [*container.get("command", ()), *container.get("args", ())]
    given = {kserve.ARGUMENT: named_model(words), kserve.VARIABLE: variables.get(kserve.VARIABLE)}
    return next((name for key, name in given.items() if name and key in (by or given)), "")


def _probed_ports(service: Manifest, manifests: list[Manifest]) -> Iterator[str]:
    """A container listens where KServe sends the calls, and its probes ask there."""
    for kind, container in _containers(service, manifests):
        called = called_port(container)
        listed = {called, *(port.get("containerPort") for port in container.get("ports") or ())}
        asked = {probe: container.get(probe, {}).get("httpGet", {}).get("port") for probe in PROBES}
        others = {probe: port for probe, port in asked.items() if port not in (None, *listed)}
        # Another container's ports are its own, and a port may be asked for by its name.
        is_called = container.get("name", KSERVE_CONTAINER) == KSERVE_CONTAINER
        if is_called and others and all(isinstance(port, int) for port in others.values()):
            yield (
                f"{label(service)}: its {kind}'s {' and '.join(others)} "
                f"{'asks' if len(others) == 1 else 'ask'} port "
                f"{' and '.join(map(str, sorted({*others.values()})))}, and KServe sends the calls "
                f"to {called}, the container's first: make them one, or list both in `ports`."
            )


def _probed(container: Manifest) -> Iterator[tuple[str, str]]:
    """Each probe of a container that asks for a path."""
    for probe in PROBES:
        if path := container.get(probe, {}).get("httpGet", {}).get("path"):
            yield probe, path


def _containers(service: Manifest, manifests: list[Manifest]) -> Iterator[tuple[str, Manifest]]:
    """Each container and its component; a model's is its runtime's, with what it says itself."""
    for kind in COMPONENTS:
        component = service["spec"].get(kind, {})
        yield from ((kind, container) for container in component.get("containers", ()))
    if model := service["spec"].get("predictor", {}).get("model"):
        runtime = _runtime_of(service, manifests)
        for container in runtime["spec"].get("containers", ()) if runtime else ({},):
            lists = {key: [*container.get(key, ()), *model.get(key, ())] for key in ("args", "env")}
            yield "predictor", {**container, **model, **lists}


def _runtime_of(service: Manifest, manifests: list[Manifest]) -> Manifest | None:
    """What the predictor's model names as its runtime, where it is one of the objects."""
    name = service["spec"].get("predictor", {}).get("model", {}).get("runtime")
    # As KServe looks for it: in the namespace, then in the cluster.
    found = [
        item
        for item in of_kind(manifests, "ServingRuntime")
        if namespace_of(item) == namespace_of(service)
    ]
    found += of_kind(manifests, "ClusterServingRuntime")
    return next((item for item in found if item["metadata"]["name"] == name), None)
