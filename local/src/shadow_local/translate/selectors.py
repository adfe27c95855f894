"""Budgets, policies and monitors on top of the deployment that select none of its pods, or shut the
port that calls come to; and alerts on pods that no monitor selects.

A cluster takes each of them without a word: nodes drain as before, everybody reaches the pods or
nobody does, and nothing is scraped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from shadow_local.translate.document import Manifest, fields, of_kind
from shadow_local.translate.forms import label
from shadow_local.translate.kserve import COMPONENTS
from shadow_local.translate.references import INFERENCE_SERVICE, is_ours
from shadow_local.translate.services import COMPONENT, MODE, MODES, called_port

# The kind, its selector's field, and what that selects.
SELECTING = {
    "PodDisruptionBudget": ("selector", "Pod"),
    "NetworkPolicy": ("podSelector", "Pod"),
    "PodMonitor": ("selector", "Pod"),
    "ServiceMonitor": ("selector", "Service"),
}
# Labels that tell one side's pods from the other's.
OF_A_SIDE = (INFERENCE_SERVICE, COMPONENT)
MONITORS = ("PodMonitor", "ServiceMonitor")
# Options that live on figures, and the pods besides the transformers that have some, by component.
OF_FIGURES = ("alerts", "dashboard")
MEASURED = {
    "follower": "the follower",
    "second-follower": "the second follower",
    "live-verdict": "the live verdict",
}
# Annotations of pods by which Prometheus finds them without a monitor.
SCRAPES = ("prometheus.io/scrape", "serving.kserve.io/enable-prometheus-scraping")
# Labels that controllers add, whose values nobody knows beforehand; of a domain all of them.
OF_KUBERNETES = (
    *("pod-template-hash", "job-name", "controller-uid", "controller-revision-hash"),
    *("batch.kubernetes.io/", "statefulset.kubernetes.io/", "apps.kubernetes.io/"),
)
OF_KNATIVE = (*OF_KUBERNETES, "app", "serving.knative.dev/")
OF_THE_OPERATOR = (*OF_KUBERNETES, "postgres-operator.crunchydata.com/")


@dataclass(frozen=True)
class _Selected:
    """A pod or a Service, as far as its labels are known before there is one."""

    kind: str
    namespace: str | None
    labels: Mapping[str, str]
    added: tuple[str, ...] = ()  # to these; they may have any value
    port: int | None = None  # where KServe sends the calls; Knative's proxy has ports of its own


@dataclass(frozen=True)
class _Requirement:
    """One of a selector's, which all have to hold."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, one: _Selected) -> bool:
        """Whether the labels are so, or may be."""
        domain = f"{self.key.partition('/')[0]}/"
        if self.key not in one.labels and {self.key, domain} & {*one.added}:
            return True
        value = one.labels.get(self.key)
        return {
            "In": value in self.values,
            "NotIn": value not in self.values,
            "Exists": value is not None,
            "DoesNotExist": value is None,
        }[self.operator]

    def __str__(self) -> str:
        if self.operator == "In":
            return f"{self.key}: {' or '.join(self.values)}"
        return " ".join([self.key, self.operator, *self.values])


def idle(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A line for each object that selects nothing here, though it may select what is elsewhere.

    Those of this repository stay from stage to stage, whether their pods are there or not; and at
    the stage of the primary alone one that asks for another service may be for the shadow.
    """
    items = list(manifests)
    services = of_kind(items, "InferenceService")
    is_alone = {(item["metadata"].get("labels") or {}).get(COMPONENT) for item in services} == {
        "primary"
    }
    there = [one for item in items for one in (*_pods(item), *_services(item))]
    for item in items:
        field, kind = SELECTING.get(item["kind"], ("", ""))
        if not field or is_ours(item):
            continue
        selector = (item.get("spec") or {}).get(field)
        found = [one for one in there if one.kind == kind]
        if is_alone and _is_of_another(selector or {}, found):
            continue
        if found and (why := _unmet(item, selector, found)):
            yield (
                f"{label(item)}: it selects no {kind} that these objects make: {why}; leave it if "
                "it is for others."
            )


def unscraped(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A line for each option of this repository's that Prometheus has no figures for, as no monitor
    selects the pods that have them.
    """
    items = list(manifests)
    without = [
        item
        for item in items
        if is_ours(item) and item["metadata"]["labels"].get(COMPONENT) in OF_FIGURES
    ]
    if not without or any(key in SCRAPES and str(said) == "true" for key, said in fields(items)):
        return
    there = [one for item in items for one in (*_pods(item), *_services(item))]
    monitors = [item for item in items if item["kind"] in MONITORS]
    scraped = {_measured(one) for item in monitors for one in _found(item, there)}
    missing = {_measured(one) for one in there if one.kind == "Pod"} - {*scraped, ""}
    for item in without if missing else ():
        yield (
            f"{label(item)}: Prometheus gets no figures for it, as no PodMonitor or ServiceMonitor "
            f"here selects {' and '.join(sorted(missing))}; switch on `pod-monitor` in "
            "manifests/options/kustomization.yaml."
        )


def shut(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A line for each port of an InferenceService's pods that policies select and let nobody to."""
    items = list(manifests)
    pods = [one for item in of_kind(items, "InferenceService") for one in _pods(item)]
    policies = of_kind(items, "NetworkPolicy")
    for one in pods:
        if one.port is None:
            continue
        over = [item for item in policies if _found(item, [one])]
        rules = [rule for item in over for rule in item["spec"].get("ingress") or ()]
        if rules and not any(_lets_in(rule, one.port) for rule in rules):
            names = " and ".join(sorted(label(item) for item in over))
            yield (
                f"InferenceService {one.labels[INFERENCE_SERVICE]}: its {one.labels['component']} "
                f"is called on port {one.port}, where {names} {'let' if over[1:] else 'lets'} "
                f"nobody in; put {one.port} into `ports` there."
            )


def _lets_in(rule: Mapping[str, Any], port: int) -> bool:
    """Whether a policy's rule is for this port; one with a name may be."""
    ports = rule.get("ports") or ()
    lasts = [(said.get("port"), said.get("endPort") or said.get("port")) for said in ports]
    return not ports or any(
        not isinstance(first, int) or first <= port <= last for first, last in lasts
    )


def _found(item: Manifest, there: Iterable[_Selected]) -> list[_Selected]:
    """What an object selects."""
    field, kind = SELECTING[item["kind"]]
    seen, required = _namespaces(item), _required((item.get("spec") or {}).get(field) or {})
    return [
        one
        for one in there
        if one.kind == kind
        and all(each.holds(one) for each in required)
        and (seen is None or (one.namespace or "") in seen)
    ]


def _measured(one: _Selected) -> str:
    """Whose figures a pod or a Service has; empty where our options know none of them."""
    if INFERENCE_SERVICE in one.labels and one.labels.get("component") == "transformer":
        return f"the transformers of {one.labels[INFERENCE_SERVICE]}"
    return MEASURED.get(one.labels.get(COMPONENT, ""), "")


def _unmet(
    item: Manifest, selector: Mapping[str, Any] | None, found: list[_Selected]
) -> str | None:
    """Why a selector has none of these; None where it has one."""
    if selector is None:
        return "it has no selector"
    if _found(item, found):
        return None
    required = _required(selector)
    fitting = [one for one in found if all(each.holds(one) for each in required)]
    for each in required if not fitting else ():
        if not any(each.holds(one) for one in found):
            return f"none has {each}{_theirs(each.key, found)}"
    if not fitting:
        return f"none has all of {', '.join(map(str, required))}"
    seen, homes = _namespaces(item) or {""}, sorted({one.namespace or "" for one in fitting})
    place = "has no namespace" if seen == {""} else f"looks in {' and '.join(sorted(seen))}"
    return f"those with its labels are in {' and '.join(homes)}, and it {place}"


def _is_of_another(selector: Mapping[str, Any], found: Iterable[_Selected]) -> bool:
    """Whether a selector asks for an InferenceService, or a side, that none of these is of."""
    of_service = [each for each in _required(selector) if each.key in OF_A_SIDE]
    return any(not any(each.holds(one) for one in found) for each in of_service)


def _required(selector: Mapping[str, Any]) -> list[_Requirement]:
    return [
        *(_Requirement(k, "In", (v,)) for k, v in (selector.get("matchLabels") or {}).items()),
        *(
            _Requirement(one["key"], one["operator"], tuple(one.get("values") or ()))
            for one in selector.get("matchExpressions") or ()
        ),
    ]


def _theirs(key: str, found: Iterable[_Selected]) -> str:
    """What there is in the place of what is asked for."""
    if values := sorted({one.labels[key] for one in found if key in one.labels}):
        return f", but {' or '.join(values)}"
    near = get_close_matches(key, sorted({key for one in found for key in one.labels}), 1, 0.75)
    return f", is {near[0]} meant" if near else ""


def _namespaces(item: Manifest) -> set[str] | None:
    """Where an object looks; None for everywhere."""
    elsewhere = (item.get("spec") or {}).get("namespaceSelector") or {}
    if elsewhere.get("any"):
        return None
    return {*(elsewhere.get("matchNames") or [item["metadata"].get("namespace") or ""])}


def _pods(item: Manifest) -> Iterator[_Selected]:
    """The pods of an object: its own, and those of each template in it."""
    namespace, labels = item["metadata"].get("namespace"), item["metadata"].get("labels") or {}
    if item["kind"] == "Pod":
        yield _Selected("Pod", namespace, labels)
    elif item["kind"] == "InferenceService":
        yield from _of_kserve("Pod", item)
    elif item["kind"] == "PostgresCluster":
        more = (item["spec"].get("metadata") or {}).get("labels") or {}
        yield _Selected("Pod", namespace, more, OF_THE_OPERATOR)
    for key, node in fields(item.get("spec")):
        if key == "template" and isinstance(node, dict) and "containers" in node.get("spec", {}):
            given = (node.get("metadata") or {}).get("labels") or {}
            yield _Selected("Pod", namespace, given, OF_KUBERNETES)


def _services(item: Manifest) -> Iterator[_Selected]:
    """The Services of an object: itself, and what is made of it."""
    namespace, labels = item["metadata"].get("namespace"), item["metadata"].get("labels") or {}
    if item["kind"] == "Service":
        yield _Selected("Service", namespace, labels)
    elif item["kind"] == "InferenceService":
        yield from _of_kserve("Service", item)
    elif item["kind"] == "PostgresCluster":
        yield _Selected("Service", namespace, {}, OF_THE_OPERATOR)


def _of_kserve(kind: str, service: Manifest) -> Iterator[_Selected]:
    """What KServe makes of each component, or Knative in its turn."""
    metadata, name = service["metadata"], service["metadata"]["name"]
    standard = MODES.get((metadata.get("annotations") or {}).get(MODE)) == "standard"
    for component in COMPONENTS:
        if (spec := service["spec"].get(component)) is not None:
            labels = {
                **(metadata.get("labels") or {}),
                **(spec.get("labels") or {}),
                **({"app": f"isvc.{name}-{component}"} if standard else {}),
                INFERENCE_SERVICE: name,
                "component": component,
            }
            added = OF_KUBERNETES if standard else OF_KNATIVE
            port = called_port((spec.get("containers") or ({},))[0]) if standard else None
            yield _Selected(kind, metadata.get("namespace"), labels, added, port)
