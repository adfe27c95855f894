"""What only a control plane would say to the rendered manifests: KServe, Istio, Kubernetes.

An API server takes all of it without a word; what it means shows hours later, or to somebody else.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from shadow_local import Explained
from shadow_local.translate import kserve
from shadow_local.translate.arguments import check_rules, rules_of, unread
from shadow_local.translate.document import Manifest, fields, render
from shadow_local.translate.forms import (
    check_settings,
    check_variables,
    in_place,
    label,
    unknown_variables,
    variables_of,
)
from shadow_local.translate.gateways import mistaken
from shadow_local.translate.patches import check_images, check_targets
from shadow_local.translate.references import dangling, unread_secrets
from shadow_local.translate.resources import amount
from shadow_local.translate.schemas import check_schemas
from shadow_local.translate.selectors import idle, unscraped
from shadow_local.translate.services import COMPONENT, MODE, MODES, named_model
from shadow_local.translate.written import check_written

# DNS: https://www.rfc-editor.org/rfc/rfc1123
LABEL_CHARACTERS = 63
CRON_JOB_CHARACTERS = 52  # Kubernetes appends eleven to the name of each Job
SUBDOMAIN = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
RBAC = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")  # these may have any name
INFERENCE_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # KServe's own rule
COMPONENTS = ("predictor", "transformer")
# KServe's webhook allows these; Standard mode's are of a HorizontalPodAutoscaler.
METRICS = {"Standard": ("cpu", "memory"), "Knative": ("concurrency", "rps")}
# Conditions on a request that TCP does not have; Istio's analyzer calls the outcome IST0133.
HTTP_ONLY = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
# Envoy holds so much of a copy that its shadow does not read; past it, the caller waits as well.
BUFFER, EDGE_BUFFER = 1_048_576, 32_768
# Annotations: which topology a deployment has, and which ones an object of an option fits.
TOPOLOGY, FITS = "shadow-deployment/topology", "shadow-deployment/fits"
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")
MODELS_PATH = re.compile("/v[12]/models/([^/:?]+)")
# Of a container's lists, what no two items of one may share.
KEYS = {"env": ("name",), "volumeMounts": ("mountPath",), "ports": ("containerPort", "protocol")}
# minimal-transformer's own.
SPOOL_MAX_BYTES, MAX_BODY_BYTES, MAX_IN_FLIGHT_BYTES = 2**30, 2**26, 2**28
# Of a gateway's pods: Istio's own, and Knative's local gateway, which calls by host come through.
ISTIOS_PORTS, KNATIVES_PORT = range(15_000, 15_091), 8081
CALLERS = ".callers"  # behind the entry, in the name of its routes


class RefusedByCluster(Explained):
    """A control plane would not make of the manifests what they mean; one line with the remedy."""


def checked(kustomization: Path, edge: bool = False) -> list[Manifest]:
    """The objects of a kustomization folder, of which a cluster would refuse none; Explained where
    it would, before anything is rendered where its settings say so. `edge`: for gateways of Istio's
    profile EDGE.
    """
    check_settings(kustomization)
    manifests = render(kustomization)
    # First, so that all others find lists and mappings where they belong.
    check_schemas(kustomization, manifests)
    check_targets(kustomization, manifests)
    check_images(kustomization, manifests)
    check_written(manifests)
    check_variables(kustomization, manifests)
    check_rules(kustomization, manifests)
    for problem in problems(manifests, edge):
        raise RefusedByCluster(in_place(kustomization, problem))
    return manifests


def warnings(manifests: list[Manifest]) -> Iterator[str]:
    """One line for each thing that a cluster does as it is told, and nobody may have meant, or that
    nobody could check.
    """
    yield from unread(manifests)
    yield from _unused_rules(manifests)
    yield from _unknown(manifests)
    for service in _of(manifests, "InferenceService"):
        yield from _probes(service)
        yield from _probed_names(service, manifests)
        yield from _unnamed(service, manifests)
        yield from kserve.warnings(service, manifests)
    yield from idle(manifests)
    yield from unscraped(manifests)
    yield from unread_secrets(manifests)
    yield from mistaken(manifests)
    yield from _shares(manifests)
    if topology_of(manifests) == "follow":
        yield from _withheld(manifests)


def _unused_rules(manifests: list[Manifest]) -> Iterator[str]:
    """Rules that no report is started with: nothing is judged by them."""
    used = {owner.partition(",")[0] for owner, _ in rules_of(manifests)}
    for item in _of(manifests, "ConfigMap"):
        owner = f"ConfigMap {item['metadata']['name']}"
        if item["metadata"].get("labels", {}).get(COMPONENT) == "rules" and owner not in used:
            yield (
                f"{owner}: nothing is judged by these rules; switch on `report` or `live-verdict`, "
                "above the line of `rules`, in manifests/options/kustomization.yaml."
            )


def _unknown(manifests: list[Manifest]) -> Iterator[str]:
    """A variable of another name than the program reads; once, as both sides have most."""
    told = set()
    for owner, program, name, nearest in unknown_variables(manifests):
        if (program, name) not in told:
            told.add((program, name))
            remedy = f"is {nearest} meant?" if nearest else "take it out."
            yield f"{owner}: {program} reads no variable {name}; {remedy}"


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


def _asked_for(service: Manifest) -> str:
    """The model's name that the transformer asks its predictor for; empty where nobody knows it."""
    transformer = service["spec"].get("transformer", {}).get("containers") or [{}]
    variables = {item["name"]: item.get("value") for item in transformer[0].get("env") or ()}
    ready = variables.get(kserve.READY_PATH)
    if ready and not kserve.KSERVES_PATH.match(ready):
        return ""  # a language model's server is asked for the name that stands in the call
    asked = _served(transformer[0])
    return "" if "$(" in asked else asked


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


def _runtime_of(service: Manifest, manifests: list[Manifest]) -> Manifest | None:
    """What the predictor's model names as its runtime, where it is one of the objects."""
    name = service["spec"].get("predictor", {}).get("model", {}).get("runtime")
    own = (name, service["metadata"].get("namespace", "default"))
    # As KServe looks for it: in the namespace, then in the cluster.
    found = [item for item in _of(manifests, "ServingRuntime") if _named(item) == own]
    clusters = _of(manifests, "ClusterServingRuntime")
    found += [item for item in clusters if item["metadata"]["name"] == name]
    return next(iter(found), None)


def _shares(manifests: list[Manifest]) -> Iterator[str]:
    """Both sides keep the same pairs while they record the same share of them."""
    shares = {
        service["metadata"]["name"]: variables.get("RECORD_SAMPLE") or "1"
        for service in _of(manifests, "InferenceService")
        for variables in variables_of("transformer", [service])
    }
    if len(set(map(float, shares.values()))) > 1:
        said = ", ".join(f"{share} in InferenceService {name}" for name, share in shares.items())
        lost = (
            "what the primary leaves out is neither followed nor judged, and the report does not "
            "know of it; what the shadow alone leaves out gets no pair"
            if topology_of(manifests) == "follow"
            else "a call that one side records and the other leaves out has no pair"
        )
        yield f"RECORD_SAMPLE is {said}: {lost}. Give both sides one share."


def _withheld(manifests: list[Manifest]) -> Iterator[str]:
    """A value that is not recorded cannot be sent again."""
    said = (variables.get("RECORD_REDACT") for variables in variables_of("transformer", manifests))
    for paths in dict.fromkeys(filter(None, said)):
        yield (
            f"RECORD_REDACT is {paths!r}, and the topology follow sends what is recorded: a call "
            "whose request has such a value is not sent and gets no pair. Name values of answers "
            "alone, or have these calls mirrored, by the topology standard."
        )


def problems(manifests: list[Manifest], edge: bool = False) -> Iterator[str]:
    """One line for each thing that a cluster would refuse, or take otherwise than it is meant."""
    found = list(_misunderstood(manifests, edge))
    # A name that is refused changes, and what leads to it does too.
    yield from found or dangling(manifests)


def _misunderstood(manifests: list[Manifest], edge: bool) -> Iterator[str]:
    """Objects that mean something else than they say, each by itself."""
    services = _of(manifests, "InferenceService")
    for service in services:
        yield from kserve.refusals(service, manifests)
        yield from _names(service)
        yield from _scaling(service)
        yield from _unsupported(service, manifests)
        yield from _model_names(service, manifests)
        yield from _merged_amounts(service, manifests)
        yield from _spool(service)
        yield from _bodies(service)
    yield from _object_names(manifests)
    for item in manifests:
        yield from _twice(item)
    yield from _misfits(manifests)
    yield from _entry(manifests, services)
    for policy in _of(manifests, "AuthorizationPolicy"):
        yield from _tcp_chains(policy)
    for item in _of(manifests, "Service"):
        yield from _gateway_ports(item, _of(manifests, "Gateway"))
    yield from _taken_ports(_of(manifests, "Gateway"))
    for item in _of(manifests, "VirtualService"):
        yield from _owned_by_kserve(item, services)
        yield from _copies(item, EDGE_BUFFER if edge else BUFFER)
    for kind in ("HTTPRoute", "GRPCRoute"):
        for item in _of(manifests, kind):
            yield from _hostnames(item)
    yield from _timeouts(services, _of(manifests, "VirtualService"))


def topology_of(manifests: Iterable[Manifest]) -> str | None:
    """The topology that a deployment says it has; None for manifests that are none."""
    said = (item["metadata"].get("annotations", {}).get(TOPOLOGY) for item in manifests)
    return next((name for name in said if name), None)


def _of(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    return [item for item in manifests if item.get("kind") == kind]


def _named(item: Manifest) -> tuple[str, str]:
    return item["metadata"]["name"], item["metadata"].get("namespace", "default")


def _mode(service: Manifest) -> str:
    mode = service["metadata"].get("annotations", {}).get(MODE)
    return "Knative" if MODES.get(mode) == "knative" else "Standard"


def _names(service: Manifest) -> Iterator[str]:
    """KServe makes a host `<name>-<component>-<namespace>.<domain>`, also without an Ingress."""
    name, namespace = _named(service)
    if not re.fullmatch(INFERENCE_SERVICE, name):
        yield (
            f"InferenceService {name}: KServe takes small letters, digits and hyphens, a letter "
            "first; choose another name in manifests/settings/settings.yaml."
        )
    # In Knative mode the components' hosts are Knative's, with a dot before the namespace.
    label = (
        f"{name}-{namespace}" if _mode(service) == "Knative" else f"{name}-transformer-{namespace}"
    )
    if (excess := len(label) - LABEL_CHARACTERS) > 0:
        yield (
            f"InferenceService {name}: KServe cannot make the host label {label}, which has "
            f"{len(label)} characters of at most {LABEL_CHARACTERS}; shorten the name or the "
            f"profile {namespace} by {excess} in manifests/settings/settings.yaml."
        )


def _object_names(manifests: Iterable[Manifest]) -> Iterator[str]:
    limits = {"Service": LABEL_CHARACTERS, "CronJob": CRON_JOB_CHARACTERS}
    for item in manifests:
        kind, (name, namespace) = item.get("kind", ""), _named(item)
        if len(name) > limits.get(kind, 253):
            yield (
                f"{kind} {name} has a name of {len(name)} characters, of at most {limits[kind]}; "
                "shorten `entry` or the profile in manifests/settings/settings.yaml."
            )
        if not (re.fullmatch(SUBDOMAIN, name) or kind in (*RBAC, "InferenceService")):
            yield (
                f"{kind} {name}: a name is of small letters, digits, hyphens and dots; choose "
                "another one in manifests/settings/settings.yaml."
            )
        for value in (namespace, *item["metadata"].get("labels", {}).values()):
            if len(value) > LABEL_CHARACTERS:
                yield f"{kind} {name}: {value} has more than {LABEL_CHARACTERS} characters."


def _twice(item: Manifest) -> Iterator[str]:
    """KServe's CRD has these lists as maps by their keys; elsewhere one of the two is lost."""
    for part, below in (item.get("spec") or {}).items():
        containers = [node for _, node in fields(below) if isinstance(node, dict)]
        for container, (name, keys) in product(containers, KEYS.items()):
            # Other things have lists of these names too.
            listed = [one for one in container.get(name) or () if isinstance(one, dict)]
            items = [one for one in listed if keys[0] in one]
            said = Counter(tuple(one.get(key, "TCP") for key in keys) for one in items)
            for value in (value for value, times in said.items() if times > 1):
                yield (
                    f"{label(item)}: {'/'.join(map(str, value))} stands twice in `{name}` of "
                    f"{container.get('name', part)} in its {part}, which the API server refuses; "
                    "change it where it stands first, and add none."
                )


def _misfits(manifests: list[Manifest]) -> Iterator[str]:
    """Of another topology's option some objects do nothing, and some shut the callers out."""
    topology = topology_of(manifests)
    misfits = {
        fits: item
        for item in reversed(manifests)
        if (fits := item["metadata"].get("annotations", {}).get(FITS))
        and topology not in (None, *fits.split(", "))
    }
    for fits, item in misfits.items():
        yield (
            f"{item['kind']} {item['metadata']['name']}: an option for {fits} is on, and the "
            f"topology is {topology}; in manifests/options/kustomization.yaml put a # before it, "
            f"and take the # from the line for {topology}, where there is one."
        )


def _entry(manifests: Iterable[Manifest], services: Iterable[Manifest]) -> Iterator[str]:
    """Each direct path is the entry's with another name; the first of two equal ones is taken."""
    names = {_named(service) for service in services}
    for item in manifests:
        route, namespace = _named(item)
        entry = route.removesuffix(CALLERS)
        if entry != route and (entry, namespace) in names:
            yield (
                f"{item['kind']} {route}: the entry is called like InferenceService {entry}, "
                "whose path it would hide; choose another one in manifests/settings/settings.yaml."
            )


def _scaling(service: Manifest) -> Iterator[str]:
    """KServe makes an autoscaler from these; below its least, the most is the least."""
    name, mode = service["metadata"]["name"], _mode(service)
    for kind in COMPONENTS:
        component: dict[str, Any] = service["spec"].get(kind, {})
        least, most = component.get("minReplicas", 1), component.get("maxReplicas", 0)
        if most < max(least, 1):
            yield (
                f"InferenceService {name}: its {kind} never scales, as maxReplicas is "
                f"{most or 'missing'} with minReplicas {least}; set it to {max(least, 1)} or more."
            )
        metric, target = component.get("scaleMetric"), component.get("scaleTarget", 1)
        if metric not in (None, *METRICS[mode]):
            yield (
                f"InferenceService {name}: its {kind} cannot scale by {metric} in {mode} mode; "
                f"set the metric to {' or '.join(METRICS[mode])}."
            )
        elif target < 1 or (mode == "Standard" and target > 100):
            yield (
                f"InferenceService {name}: scaleTarget of its {kind} is {target}; set it to "
                "percent of the request, 1 to 100."
            )


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


def _spool(service: Manifest) -> Iterator[str]:
    """The kubelet evicts a pod that outgrows a limit, and the records on its spool go with it."""
    transformer = service["spec"].get("transformer", {})
    volumes = {volume["name"]: volume for volume in transformer.get("volumes", ())}
    for container in transformer.get("containers", ()):
        env = {item["name"]: item.get("value") for item in container.get("env", ())}
        most = _number(env.get("SPOOL_MAX_BYTES"), SPOOL_MAX_BYTES)
        mounts = container.get("volumeMounts", ())
        name = next((m["name"] for m in mounts if m["mountPath"] == env.get("SPOOL_DIR")), "")
        spool = volumes.get(name, {}).get("emptyDir")
        if spool is None:
            continue
        storage = container.get("resources", {}).get("limits", {}).get("ephemeral-storage")
        least = most * 5 // 4
        limits = {f"sizeLimit of the volume {name}": spool.get("sizeLimit")}
        if spool.get("medium") != "Memory":
            limits[f"limit of ephemeral-storage of {container['name']}"] = storage
        for what, limit in limits.items():
            if (size := amount(limit)) is not None and size < least:
                yield (
                    f"InferenceService {service['metadata']['name']}: the {what} is {limit}, and "
                    f"SPOOL_MAX_BYTES is {most}; past it the kubelet evicts the transformer's pod "
                    f"and its records. Set it to {-(-least // 2**20)}Mi or more, a quarter above."
                )


def _bodies(service: Manifest) -> Iterator[str]:
    """A transformer that has no room for one body and its answer does not start."""
    for variables in variables_of("transformer", [service]):
        body = _number(variables.get("MAX_BODY_BYTES"), MAX_BODY_BYTES)
        room = _number(variables.get("MAX_IN_FLIGHT_BYTES"), MAX_IN_FLIGHT_BYTES)
        if room < 2 * body:
            yield (
                f"InferenceService {service['metadata']['name']}: MAX_IN_FLIGHT_BYTES is {room}, "
                f"with which the transformer does not start; set it to {2 * body}, twice "
                "MAX_BODY_BYTES, or more."
            )


def _number(text: object, default: int) -> int:
    """What a variable says; the default where it says nothing, or what forms.yaml refuses."""
    return int(str(text)) if str(text).isdecimal() else default


def _tcp_chains(policy: Manifest) -> Iterator[str]:
    """On a port that is not HTTP, Istio drops the conditions that only HTTP has and denies all."""
    spec = policy["spec"]
    for rule in spec.get("rules", []) if spec.get("action") == "DENY" else []:
        operations = [item.get("operation", {}) for item in rule.get("to", [{}])]
        about_http = any(item.keys() & set(HTTP_ONLY) for item in operations) or any(
            condition.get("key", "").startswith("request.") for condition in rule.get("when", [])
        )
        if about_http and not all(item.get("ports") for item in operations):
            yield (
                f"AuthorizationPolicy {policy['metadata']['name']}: a rule that denies by HTTP's "
                "fields and names no ports denies every call to the TCP and TLS ports of those "
                "pods; name the ports, or refuse in a VirtualService by directResponse."
            )


def _gateway_ports(service: Manifest, gateways: Iterable[Manifest]) -> Iterator[str]:
    """Istio takes the first Service with a Gateway's port for its way in, and uses its target."""
    selector = service["spec"].get("selector", {})
    if not any(selector == gateway["spec"].get("selector", {}) for gateway in gateways):
        return
    for port in service["spec"].get("ports", []):
        if port.get("targetPort", port["port"]) != port["port"]:
            yield (
                f"Service {service['metadata']['name']}: Istio may move the gateway's own port "
                f"{port['port']} to {port['targetPort']}; give port and targetPort one number."
            )


def _taken_ports(gateways: list[Manifest]) -> Iterator[str]:
    """On a port that the pods listen on already, copies would go where its other calls go."""
    used = [(item, number) for item in gateways for number in _ports(item)]
    for item, port in used:
        if item["metadata"].get("labels", {}).get("app.kubernetes.io/component") != "mirror":
            continue
        others = [
            f"Gateway {other['metadata']['name']}"
            for other, number in used
            if other is not item and number == port and _pods(other) & _pods(item)
        ]
        if port in ISTIOS_PORTS:
            others = ["Istio itself"]
        elif port == KNATIVES_PORT:
            others = ["Knative's local gateway"]
        for other in others[:1]:
            yield (
                f"Gateway {item['metadata']['name']}: port {port} of the gateway's pods is that of "
                f"{other}; set mirror-port or second-mirror-port in "
                "manifests/settings/settings.yaml to a free one, such as 8089."
            )


def _ports(gateway: Manifest) -> list[int]:
    return [server["port"]["number"] for server in gateway["spec"].get("servers", ())]


def _pods(gateway: Manifest) -> set[tuple[str, str]]:
    """The labels of Istio's pods that a Gateway is of."""
    return {*gateway["spec"].get("selector", {}).items()}


def _owned_by_kserve(item: Manifest, services: Iterable[Manifest]) -> Iterator[str]:
    """In Knative mode each InferenceService has a VirtualService of its name, kept as KServe's."""
    taken = {_named(service) for service in services}
    if _named(item) in taken:
        yield (
            f"VirtualService {item['metadata']['name']}: KServe overwrites the one that is called "
            "like an InferenceService; give it another name."
        )


def _copies(item: Manifest, buffer: int) -> Iterator[str]:
    """Bodies of HTTP/1.1 are copied only as far as Envoy can hold them for a stuck shadow."""
    for route in item["spec"].get("http", []):
        for match in route.get("match", [{}]) if route.get("mirrors") else []:
            if match.get("uri", {}).get("exact", "").startswith("/inference.GRPCInferenceService"):
                continue  # HTTP/2 holds 16 MiB of each copy
            pattern = match.get("headers", {}).get("content-length", {}).get("regex")
            sizes = {buffer + 1, *(10**digits for digits in range(5, 12))}
            admitted = [s for s in sorted(sizes) if s > buffer and _admits(pattern, s)]
            if admitted:
                yield (
                    f"VirtualService {item['metadata']['name']}: route {route.get('name')} copies "
                    f"bodies of {admitted[0]:,} bytes, of which the gateway holds {buffer:,}; past "
                    "that a stuck shadow stalls the caller. Set mirror-content-length in "
                    f"manifests/settings/settings.yaml to [0-9]{{1,{len(str(buffer)) - 1}}}."
                )


def _admits(pattern: str | None, size: int) -> bool:
    return pattern is None or re.fullmatch(pattern, str(size)) is not None


def _hostnames(item: Manifest) -> Iterator[str]:
    """The Gateway API has no name for every host; a route without hostnames is for all of them."""
    if "*" in item["spec"].get("hostnames", ()):
        yield (
            f"{item['kind']} {item['metadata']['name']}: '*' is not a host name of the Gateway "
            "API; set `domain` in manifests/settings/settings.yaml to the host that callers use."
        )


def _stopping_seconds(component: dict[str, Any]) -> float:
    """How long open calls, and then the spool, may take; 0 where nothing is said."""
    variables = [item for pod in component.get("containers", []) for item in pod.get("env", [])]
    names = ("SHUTDOWN_GRACE_SECONDS", "SHUTDOWN_DRAIN_SECONDS")
    return sum(float(item.get("value", 0)) for item in variables if item["name"] in names)


def _timeouts(services: Iterable[Manifest], routes: Iterable[Manifest]) -> Iterator[str]:
    """Knative ends a call, and a stopping pod, after one and the same time."""
    waits = {
        int(route["timeout"].removesuffix("s"))
        for item in routes
        for route in item["spec"].get("http", [])
        if re.fullmatch(r"\d+s", route.get("timeout", ""))
    }
    for service in services:
        for kind in COMPONENTS if _mode(service) == "Knative" else ():
            component = service["spec"].get(kind, {})
            allowed = component.get("timeout", 300)
            if (stopping := _stopping_seconds(component)) > allowed:
                yield (
                    f"InferenceService {service['metadata']['name']}: Knative kills a stopping "
                    f"{kind} after {allowed} s, which takes {stopping:g} s; raise "
                    "predict-timeout-seconds in manifests/settings/settings.yaml, or lower "
                    "SHUTDOWN_DRAIN_SECONDS."
                )
            if waits and allowed < max(waits):
                yield (
                    f"InferenceService {service['metadata']['name']}: Knative ends a call of its "
                    f"{kind} after {allowed} s, the gateway waits {max(waits)} s; set both by "
                    "predict-timeout-seconds in manifests/settings/settings.yaml."
                )
