"""What only a control plane would say to the rendered manifests: KServe, Istio, Kubernetes.

An API server takes all of it without a word; what it means shows hours later, or to somebody else.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

from shadow_local import Explained
from shadow_local.translate import gateways, kserve, models
from shadow_local.translate.arguments import check_rules, rules_of, unread
from shadow_local.translate.document import Manifest, fields, of_kind, render
from shadow_local.translate.forms import (
    check_settings,
    check_variables,
    in_place,
    label,
    pods_below,
    unknown_variables,
    variables_of,
)
from shadow_local.translate.patches import check_images, check_targets
from shadow_local.translate.references import dangling, is_ours, namespace_of, unnamed
from shadow_local.translate.resources import amount
from shadow_local.translate.schemas import check_schemas
from shadow_local.translate.selectors import idle, shut, unscraped
from shadow_local.translate.services import COMPONENT, MODE, MODES
from shadow_local.translate.written import check_written

# DNS: https://www.rfc-editor.org/rfc/rfc1123
LABEL_CHARACTERS = 63
CRON_JOB_CHARACTERS = 52  # Kubernetes appends eleven to the name of each Job
SUBDOMAIN = r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?"
# What the settings are written over.
PLACEHOLDER = re.compile(r"\b(ENTRY|PROFILE|PRIMARY|(SECOND-)?SHADOW)\b")
# Of a CronJob, as github.com/robfig/cron reads it for Kubernetes.
_TIMES = r"(\*|\?|\w+(-\w+)?)(/\d+)?"
SCHEDULE = re.compile(
    rf"@(yearly|annually|monthly|weekly|daily|midnight|hourly)|@every \S+"
    rf"|{_TIMES}(,{_TIMES})*(\s+{_TIMES}(,{_TIMES})*){{4}}"
)
RBAC = ("Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding")  # these may have any name
INFERENCE_SERVICE = r"[a-z]([-a-z0-9]*[a-z0-9])?"  # KServe's own rule
# KServe's webhook allows these; Standard mode's are of a HorizontalPodAutoscaler.
METRICS = {"Standard": ("cpu", "memory"), "Knative": ("concurrency", "rps")}
# Annotations: which topology a deployment has, and which ones an object of an option fits.
TOPOLOGY, FITS = "shadow-deployment/topology", "shadow-deployment/fits"
# Of a container's lists, what no two items of one may share.
KEYS = {"env": ("name",), "volumeMounts": ("mountPath",), "ports": ("containerPort", "protocol")}
GRACE_SECONDS = 30  # Kubernetes' own terminationGracePeriodSeconds
# Whose pods are all that they say.
PODS = ("InferenceService", "Deployment", "CronJob", "Job", "Pod", "DaemonSet")
# minimal-transformer's own.
SPOOL_MAX_BYTES, MAX_BODY_BYTES, MAX_IN_FLIGHT_BYTES = 2**30, 2**26, 2**28
# Deleted, these take the tables with them.
HOLD_EVIDENCE = ("Namespace", "PostgresCluster")
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
    for problem in _unwritten(manifests):
        raise RefusedByCluster(in_place(kustomization, problem))
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
    for service in of_kind(manifests, "InferenceService"):
        yield from models.warnings(service, manifests)
        yield from kserve.warnings(service, manifests)
    yield from idle(manifests)
    yield from unscraped(manifests)
    yield from shut(manifests)
    yield from unnamed(manifests)
    yield from gateways.warnings(manifests)
    yield from _shares(manifests)
    yield from _short_lived(manifests)
    if topology_of(manifests) == "follow":
        yield from _withheld(manifests)
        yield from _followed_twice(manifests)


def _unused_rules(manifests: list[Manifest]) -> Iterator[str]:
    """Rules that no report is started with: nothing is judged by them."""
    used = {owner.partition(",")[0] for owner, _ in rules_of(manifests)}
    for item in of_kind(manifests, "ConfigMap"):
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


def _shares(manifests: list[Manifest]) -> Iterator[str]:
    """Both sides keep the same pairs while they record the same share of them."""
    shares = {
        service["metadata"]["name"]: variables.get("RECORD_SAMPLE") or "1"
        for service in of_kind(manifests, "InferenceService")
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


def _short_lived(manifests: list[Manifest]) -> Iterator[str]:
    """The evidence outlives the models as long as nothing that holds it is deleted with them."""
    if not of_kind(manifests, "InferenceService"):
        return
    for item in (item for kind in HOLD_EVIDENCE for item in of_kind(manifests, kind)):
        yield (
            f"{label(item)}: `kubectl delete -k` of this folder, or a controller that prunes, "
            "takes the evidence with it; apply it from a folder of its own."
        )


def _withheld(manifests: list[Manifest]) -> Iterator[str]:
    """A value that is not recorded cannot be sent again."""
    said = (variables.get("RECORD_REDACT") for variables in variables_of("transformer", manifests))
    for paths in dict.fromkeys(filter(None, said)):
        yield (
            f"RECORD_REDACT is {paths!r}, and the topology follow sends what is recorded: a call "
            "whose request has such a value is not sent and gets no pair. Name values of answers "
            "alone, or have these calls mirrored, by the topology standard."
        )


def _followed_twice(manifests: list[Manifest]) -> Iterator[str]:
    """Two that follow one shadow do not know what the other one has under way."""
    running = [
        item
        for item in of_kind(manifests, "Deployment")
        if _component(item) == "follower" and item["spec"].get("replicas", 1)
    ]
    for job in of_kind(manifests, "CronJob"):
        shadow = _shadow_of(job)
        if _component(job) != "follow-later" or job["spec"].get("suspend"):
            continue
        for item in (item for item in running if _shadow_of(item) == shadow):
            yield (
                f"{label(job)}: {label(item)} sends the same calls to {shadow}, some of them twice "
                "while both run; switch `follow-later` off in manifests/options/"
                "kustomization.yaml, or take the stage mirroring-off, where it runs alone."
            )


def _component(item: Manifest) -> str | None:
    found: str | None = (item["metadata"].get("labels") or {}).get(COMPONENT)
    return found


def _shadow_of(item: Manifest) -> str | None:
    """Whom a follower's pods follow."""
    env = [one for key, one in fields(item["spec"]) if key == "env"]
    return next((one.get("value") for one in env if one["name"] == "SHADOW_NAME"), None)


def problems(manifests: list[Manifest], edge: bool = False) -> Iterator[str]:
    """One line for each thing that a cluster would refuse, or take otherwise than it is meant."""
    found = list(_misunderstood(manifests, edge))
    # A name that is refused changes, and what leads to it does too.
    yield from found or dangling(manifests)


def _misunderstood(manifests: list[Manifest], edge: bool) -> Iterator[str]:
    """Objects that mean something else than they say, each by itself."""
    services = of_kind(manifests, "InferenceService")
    for service in services:
        yield from kserve.refusals(service, manifests)
        yield from _names(service)
        yield from _scaling(service)
        yield from models.refusals(service, manifests)
        yield from _spool(service)
        yield from _bodies(service)
        yield from _killed(service)
    yield from models.disagreements(services)
    yield from _object_names(manifests)
    for item in manifests:
        yield from _twice(item)
        yield from _torn(item)
    for item in of_kind(manifests, "CronJob"):
        yield from _schedule(item)
    yield from _misfits(manifests)
    yield from _entry(manifests, services)
    yield from gateways.refusals(manifests, edge)
    for item in of_kind(manifests, "VirtualService"):
        yield from _owned_by_kserve(item, services)
    yield from _timeouts(services, of_kind(manifests, "VirtualService"))


def topology_of(manifests: Iterable[Manifest]) -> str | None:
    """The topology that a deployment says it has; None for manifests that are none."""
    said = (item["metadata"].get("annotations", {}).get(TOPOLOGY) for item in manifests)
    return next((name for name in said if name), None)


def _named(item: Manifest) -> tuple[str, str]:
    return item["metadata"]["name"], namespace_of(item)


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


def _unwritten(manifests: Iterable[Manifest]) -> Iterator[str]:
    """Objects of ours that came past the settings: an option's that a folder on top names, or new
    ones that no replacement has as a target.
    """
    for item in manifests:
        if is_ours(item) and PLACEHOLDER.search(" ".join(_named(item))):
            yield (
                f"{label(item)}: no setting is written into it, as that happens inside `mirroring` "
                "and the stages alone; switch its option on in "
                "manifests/options/kustomization.yaml, and leave it out of the folder on top. An "
                "object that is new there wants a target in manifests/settings/replacements.yaml."
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


# It opens the file of every zone there is.
_zones = cache(available_timezones)


def _schedule(item: Manifest) -> Iterator[str]:
    if not SCHEDULE.fullmatch(schedule := item["spec"]["schedule"].strip()):
        yield (
            f"CronJob {item['metadata']['name']}: its schedule is {schedule!r}, which the API "
            'server refuses; give minute, hour, day, month and weekday, such as "0 */6 * * *".'
        )
    zone, known = item["spec"].get("timeZone"), _zones()
    if zone is not None and known and zone not in known:
        near = get_close_matches(zone, sorted(known), 1)
        yield (
            f"CronJob {item['metadata']['name']}: its timeZone is {zone!r}, which the API server "
            f"refuses; {f'is {near[0]} meant?' if near else 'give one such as Europe/Berlin.'}"
        )


def _torn(item: Manifest) -> Iterator[str]:
    """What a strategic merge patch leaves of an InferenceService's pods, whose lists Kustomize does
    not know: containers without an image, mounts without their volume.
    """
    for pod in pods_below(item.get("spec") or {}):
        # A model's runtime has volumes too, and so has what an operator makes.
        is_whole = item["kind"] in PODS and "model" not in pod
        volumes = {volume["name"] for volume in pod.get("volumes") or ()}
        for container in (*pod["containers"], *(pod.get("initContainers") or ())):
            mounted = (mount["name"] for mount in container.get("volumeMounts") or ())
            lost = [] if container.get("image") else ["image"]
            lost += [
                f"volume {name} to mount" for name in mounted if name not in volumes and is_whole
            ]
            for what in lost[:1]:
                yield (
                    f"{label(item)}: its container {container.get('name')} has no {what}; where a "
                    "strategic merge patch names it, Kustomize puts that in the place of the whole "
                    "list: patch by operations, as manifests/README.md shows (in a repository of "
                    "your own)."
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
    for kind in models.COMPONENTS:
        component: dict[str, Any] = service["spec"].get(kind, {})
        least, most = component.get("minReplicas", 1), component.get("maxReplicas", 0)
        if most < max(least, 1):
            yield (
                f"InferenceService {name}: its {kind} never scales, as maxReplicas is "
                f"{most or 'missing'} with minReplicas {least}; set it to {max(least, 1)} or more "
                "in manifests/settings/settings.yaml, or where a patch says it."
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


def _owned_by_kserve(item: Manifest, services: Iterable[Manifest]) -> Iterator[str]:
    """In Knative mode each InferenceService has a VirtualService of its name, kept as KServe's."""
    taken = {_named(service) for service in services}
    if _named(item) in taken:
        yield (
            f"VirtualService {item['metadata']['name']}: KServe overwrites the one that is called "
            "like an InferenceService; give it another name."
        )


def _stopping_seconds(component: dict[str, Any]) -> float:
    """How long open calls, and then the spool, may take; 0 where nothing is said."""
    variables = [item for pod in component.get("containers", []) for item in pod.get("env", [])]
    names = ("SHUTDOWN_GRACE_SECONDS", "SHUTDOWN_DRAIN_SECONDS")
    said = (str(item.get("value")) for item in variables if item["name"] in names)
    return sum(float(value) for value in said if re.fullmatch(r"\d+(\.\d+)?", value))


def _killed(service: Manifest) -> Iterator[str]:
    """The kubelet kills a pod after its grace period, in which its preStop counts, too."""
    transformer = service["spec"].get("transformer", {})
    if _mode(service) != "Standard" or not (stopping := _stopping_seconds(transformer)):
        return
    hooks = (pod.get("lifecycle", {}).get("preStop", {}) for pod in transformer["containers"])
    stopping += max(hook.get("sleep", {}).get("seconds", 0) for hook in hooks)
    allowed = transformer.get("terminationGracePeriodSeconds", GRACE_SECONDS)
    if stopping > allowed:
        yield (
            f"InferenceService {service['metadata']['name']}: Kubernetes kills a stopping "
            f"transformer after {allowed} s, which takes {stopping:g} s (preStop, "
            "SHUTDOWN_GRACE_SECONDS and SHUTDOWN_DRAIN_SECONDS); raise its "
            f"terminationGracePeriodSeconds to {math.ceil(stopping)} or more."
        )


def _timeouts(services: Iterable[Manifest], routes: Iterable[Manifest]) -> Iterator[str]:
    """Knative ends a call, and a stopping pod, after one and the same time."""
    waits = {
        int(route["timeout"].removesuffix("s"))
        for item in routes
        for route in item["spec"].get("http", [])
        if re.fullmatch(r"\d+s", route.get("timeout", ""))
    }
    for service in services:
        for kind in models.COMPONENTS if _mode(service) == "Knative" else ():
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
