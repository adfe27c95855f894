"""Names that lead to no object of the rendering, although it has the one that is meant.

Kustomize renames objects (`namespace`, `namePrefix`, `nameSuffix`, a hash) and follows a name only
where it knows that it is one: not in a host, in a selector, or in an InferenceService.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from itertools import chain, takewhile
from typing import Any

from shadow_local.translate.document import Manifest, expand, fields
from shadow_local.translate.forms import label, own_containers, pods_below
from shadow_local.translate.kserve import CLAIM, COMPONENTS

Name = tuple[str, str]  # an object's, and its namespace's
PART_OF = ("app.kubernetes.io/part-of", "shadow-deployment")
INFERENCE_SERVICE = "serving.kserve.io/inferenceservice"
# What the operator makes of a PostgresCluster, behind its name.
CLUSTER_SERVICES = ("primary", "replicas", "ha", "pods", "pgbouncer")
# The Secrets of one, which are made by hand where it is another Postgres.
_OF_DATABASE = re.compile(r"(.+)-(?:pguser-.+|cluster-cert)")
# Kinds that make a Secret, of their own name unless they say another.
SECRETS = ("Secret", "SealedSecret", "ExternalSecret")
# Where an object is named, by the field; what it says is the name, or has it as `name`.
NAMED_KINDS = {
    "secretKeyRef": "Secret",
    "secretRef": "Secret",
    "secretName": "Secret",
    "secret": "Secret",
    "imagePullSecrets": "Secret",
    "configMapKeyRef": "ConfigMap",
    "configMapRef": "ConfigMap",
    "configMap": "ConfigMap",
    "databaseInitSQL": "ConfigMap",
    "serviceAccountName": "ServiceAccount",
    "claimName": "PersistentVolumeClaim",
    "runtime": "ServingRuntime",
}
# Of no use to anybody unless another object names it.
TO_BE_NAMED = ("Secret", "ServiceAccount", "PersistentVolumeClaim")
# What is found in the namespace alone, and comes from nowhere else; a Secret may be a copy.
OF_A_NAMESPACE = ("ConfigMap", "PersistentVolumeClaim", "ServiceAccount", "ServingRuntime")
# Variables that say which InferenceService is meant.
VARIABLES = ("INFERENCE_SERVICE", "PRIMARY_NAME", "SHADOW_NAME", "SHADOW_CANDIDATES")
_PART = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_HOST = re.compile(rf"(?<![\w.-])({_PART})\\?\.({_PART})\\?\.svc(?![\w-])")
_SHORT_HOST = re.compile(rf"(?<![\w.-])({_PART})\.({_PART})(?=[:/,]|$)")
_IN_TEXT = re.compile(r'(\bnamespace="|/serving/)([-a-z0-9]+)')
_HASH = r"-[a-z0-9]{10}"
_REMEDY = (
    "Kustomize's namespace, namePrefix and nameSuffix rename objects and not what names them here; "
    "set the names in manifests/settings/settings.yaml instead, as manifests/README.md shows (in a "
    "repository of your own)."
)
_REMEDY_FOR_OWN = (
    "Kustomize's namePrefix, nameSuffix and hashes do not follow that name; keep them off it, by "
    "disableNameSuffixHash or in a kustomization without them."
)


def dangling(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A line for each name that no object has, where one of the rendering has to.

    That is so where an object has the name in another namespace, or with what all of the deployment
    begin or end with; and in the deployment's own routes and selectors, as far as they lead into
    its namespace. What is not rendered may otherwise be somebody else's, and is left alone.
    """
    rendering = _Rendering.of(list(manifests))
    for item in rendering.items:
        lines = (
            *_hosts(item, rendering),
            *_gateways(item, rendering),
            *_selectors(item, rendering),
            *_files_and_variables(item, rendering),
            *_keys(item, rendering),
            *_namespaces(item, rendering),
        )
        yield from (f"{label(item)}: {line}" for line in dict.fromkeys(lines))


def unnamed(manifests: Iterable[Manifest]) -> Iterator[str]:
    """A warning for each object that is there to be named by another one and is not, such as a
    Secret, where one of its name is named in another namespace, or one of nearly its name, and is
    not there; and for each Secret of a database that is named and not there, where others of it
    are. Somebody else may bring that.
    """
    rendering = _Rendering.of(list(manifests))
    named = {
        (kind, name, namespace_of(item)): label(item)
        for item in rendering.items
        for kind, name in _named(item)
    }
    missing = sorted(of for of in named if of[1:] not in rendering.names.get(of[0], ()))
    meant: set[Name] = set()
    for item in rendering.items:
        kind, name = _made(item)
        home = item["metadata"].get("namespace")
        if kind not in TO_BE_NAMED or (kind, name, namespace_of(item)) in named:
            continue
        there = {
            of: place
            for what, of, place in missing
            if what == kind
            # Of another namespace's, `dangling` has said it of all but Secrets.
            and (kind not in OF_A_NAMESPACE if of == name else home in (None, place))
        }
        for near in get_close_matches(name, there, 1, 0.85):
            meant.add((near, there[near]))
            names = f"{named[kind, near, there[near]]} names in {there[near]}"
            yield f"{label(item)}: " + (
                f"it is {'in namespace ' + home if home else 'without a namespace'}, and makes a "
                f"{kind} {name}, which {names}; give it that one."
                if near == name
                else f"nothing names a {kind} {name}; is {near} meant, which {names}?"
            )
    yield from _forgotten(rendering, meant)


def _forgotten(rendering: _Rendering, meant: set[Name]) -> Iterator[str]:
    """Secrets of a database that ours read; who makes some by hand makes all. `meant`: not these,
    which a slip has already led to.
    """
    read: dict[Name, dict[str, str]] = {}  # by database: each Secret, and who reads it
    for item in filter(is_ours, rendering.items):
        for kind, name in _named(item):
            if kind == "Secret" and (found := _OF_DATABASE.fullmatch(name)):
                read.setdefault((found[1], namespace_of(item)), {}).setdefault(name, label(item))
    for (_, namespace), readers in read.items():
        there = {o for o in readers if (o, namespace) in rendering.names.get("Secret", ())}
        for name in sorted(readers.keys() - there) if there else ():
            if (name, namespace) not in meant:
                yield (
                    f"{readers[name]}: it reads Secret {name}, which none of these objects makes, "
                    f"though {min(there)} is here; add it, unless something else makes it."
                )


@dataclass(frozen=True)
class _Rendering:
    """What the objects are called, by kind; `start` and `end` are what all of ours share."""

    items: list[Manifest]
    names: dict[str, set[Name]]
    start: str
    end: str

    @classmethod
    def of(cls, items: list[Manifest]) -> _Rendering:
        names: dict[str, set[Name]] = {}
        for item in items:
            for kind, name in _makes(item):
                names.setdefault(kind, set()).add((name, namespace_of(item)))
        ours = {
            item["metadata"]["name"]
            for item in items
            if is_ours(item) and item["kind"] not in ("ConfigMap", "Secret")
        }
        return cls(
            items,
            names,
            start=_shared(ours),
            end=_shared(name[::-1] for name in ours)[::-1],
        )

    @cached_property
    def keys(self) -> dict[tuple[str, str, str], set[str]]:
        """What is in each Secret and ConfigMap, by kind, name and namespace."""
        return {
            (*_made(item), namespace_of(item)): set(_held(item))
            for item in self.items
            if item.get("kind") in ("Secret", "ConfigMap", "ExternalSecret")
        }

    @cached_property
    def asked(self) -> dict[tuple[str, str, str], set[str]]:
        """What somebody reads of each Secret and ConfigMap, by kind, name and namespace."""
        found: dict[tuple[str, str, str], set[str]] = {}
        for item in self.items:
            for kind, name, key, _ in _asked(item):
                found.setdefault((kind, name, namespace_of(item)), set()).add(key)
        return found

    @property
    def homes(self) -> set[str]:
        """The namespaces of the InferenceServices."""
        return {namespace for _, namespace in self.names.get("InferenceService", ())}

    def renamed(self, kind: str, name: str) -> set[Name]:
        """The objects of the kind that an overlay may have made of the one of this name."""
        suffix = _HASH if kind in ("ConfigMap", "Secret") else ""
        pattern = re.compile(rf"(.*){re.escape(name)}(.*?)((?:{suffix})?)")
        return {
            (given, namespace)
            for given, namespace in self.names.get(kind, ())
            if given != name
            and (found := pattern.fullmatch(given))
            and self.start.startswith(found[1])
            and self.end.endswith(found[2])
        }

    def elsewhere(self, kind: str, name: str) -> set[Name]:
        """The objects of this name, in whichever namespace."""
        return {given for given in self.names.get(kind, ()) if given[0] == name}

    def meant(self, kind: str, name: Name) -> Name | None:
        """Which object the name should have led to; None where it does, or where none is meant."""
        if name in self.names.get(kind, ()):
            return None
        found = self.elsewhere(kind, name[0]) | self.renamed(kind, name[0])
        # The one in the same namespace first, of several.
        return min(found, key=lambda given: (given[1] != name[1], given), default=None)


def _shared(names: Iterable[str]) -> str:
    """What all names begin with."""
    together = zip(*names, strict=False)
    same = takewhile(lambda letters: len({*letters}) == 1, together)
    return "".join(letters[0] for letters in same)


def is_ours(item: Manifest) -> bool:
    """Whether it is an object of this repository's deployment."""
    return PART_OF in (item["metadata"].get("labels") or {}).items()


def namespace_of(item: Manifest) -> str:
    """Its own, or the one that kubectl takes where it says none."""
    namespace: str = item["metadata"].get("namespace", "default")
    return namespace


def _makes(item: Manifest) -> Iterator[tuple[str, str]]:
    """The kind and the name of what there is once an object is applied: itself, and what its
    controller makes of it.
    """
    kind, name, spec = item.get("kind", ""), item["metadata"]["name"], item.get("spec") or {}
    yield kind, name
    if kind == "InferenceService":
        yield "Service", name  # in Knative mode
        for component in COMPONENTS:
            if component in spec:
                own = spec[component].get("name")
                yield "Service", "-".join(filter(None, (name, own, component)))
    elif kind == "PostgresCluster":
        yield from (("Service", f"{name}-{end}") for end in CLUSTER_SERVICES)
        users = spec.get("users") or [{"name": name}]
        yield from (("Secret", f"{name}-pguser-{user['name']}") for user in users)
        yield "Secret", f"{name}-cluster-cert"
    elif kind in SECRETS:
        yield "Secret", (spec.get("target") or {}).get("name", name)


def _made(item: Manifest) -> tuple[str, str]:
    """The last of these: what others name, where that is not the object itself."""
    *_, last = _makes(item)
    return last


def _held(item: Manifest) -> Iterator[str]:
    """The keys of a Secret or ConfigMap, or of the Secret that an ExternalSecret makes; none where
    its store decides.
    """
    for part in ("data", "stringData", "binaryData"):
        yield from item.get(part) or ()
    spec = item.get("spec") or {}
    template = ((spec.get("target") or {}).get("template") or {}).get("data") or ()
    if template or not spec.get("dataFrom"):
        yield from (entry["secretKey"] for entry in spec.get("data") or ())
        yield from template


def _hosts(item: Manifest, rendering: _Rendering) -> Iterator[str]:
    """Names of Services: whole ones anywhere, shorter ones where a field or a program takes one."""
    spec, namespace = item.get("spec") or {}, namespace_of(item)
    led_to = [name for key, node in fields(spec) for name in _services(key, node, namespace)]
    there = rendering.names.get("Service", set())
    # What a program is told of may be somebody else's; a route of ours leads to the models.
    is_route = is_ours(item) and not any(pods_below(spec))
    for name in (*led_to, *_called(item)):
        host = ".".join(name)
        if meant := rendering.meant("Service", name):
            yield f"{host} is not a Service; here it is {'.'.join(meant)}. {_REMEDY}"
        elif is_route and name[1] in rendering.homes and name not in there:
            nearest = get_close_matches(
                name[0], [one for one, home in there if home == name[1]], 1, 0
            )
            yield f"{host} is a Service that none of these objects makes; is {nearest[0]} meant?"


def _services(key: str, node: Any, namespace: str) -> Iterator[Name]:
    """The Services that a field of a route leads to."""
    if key in ("backendRef", "backendRefs") and isinstance(node, dict):
        if node.get("kind", "Service") == "Service":
            yield node["name"], node.get("namespace", namespace)
    elif key == "host" and re.fullmatch(_PART, str(node)):
        yield node, namespace
    elif isinstance(node, str):
        yield from ((found[1], found[2]) for found in _HOST.finditer(node))


def _called(item: Manifest) -> Iterator[Name]:
    """The Services that containers are told of, in arguments and variables."""
    for pod in pods_below(item.get("spec") or {}):
        for container in (*(pod.get("initContainers") or ()), *pod["containers"]):
            env: dict[str, str] = {}
            for variable in container.get("env") or ():
                field = (variable.get("valueFrom") or {}).get("fieldRef", {}).get("fieldPath")
                given = {"metadata.namespace": namespace_of(item)}.get(field, "")
                env[variable["name"]] = expand(str(variable.get("value", given)), env)
            words = (*(container.get("command") or ()), *(container.get("args") or ()))
            for text in (*env.values(), *(expand(str(word), env) for word in words)):
                for pattern in (_HOST, _SHORT_HOST):
                    yield from ((found[1], found[2]) for found in pattern.finditer(text))


def _gateways(item: Manifest, rendering: _Rendering) -> Iterator[str]:
    if item.get("kind") != "VirtualService":
        return
    for said in item["spec"].get("gateways", ()):
        namespace, slash, name = said.rpartition("/")
        named = (name, namespace if slash else namespace_of(item))
        if meant := rendering.meant("Gateway", named):
            yield f"{said} is not a Gateway; here it is {'/'.join(reversed(meant))}. {_REMEDY}"
        elif (
            is_ours(item)
            and not slash
            and said != "mesh"
            and named not in rendering.names.get("Gateway", ())
        ):
            yield f"none of these objects is a Gateway {said}; name one with its namespace."


def _selectors(item: Manifest, rendering: _Rendering) -> Iterator[str]:
    """Pods of an InferenceService have its name as a label, which selectors ask for.

    A policy may be there before its pods are; a Service of ours without any leads nowhere.
    """
    names = {name for name, _ in rendering.names.get("InferenceService", ())}
    for asked in _selected(item) if names else ():
        meant = {name for one in asked for name, _ in rendering.renamed("InferenceService", one)}
        leads = is_ours(item) and item["kind"] == "Service"
        if names.isdisjoint(asked) and (meant or leads):
            said, here = " and ".join(asked), " and ".join(sorted(meant or names))
            hint = f" {_REMEDY}" if meant else ""
            yield f"it selects pods of {said}, and the InferenceServices here are {here}.{hint}"


def _selected(item: Manifest) -> Iterator[list[str]]:
    """The InferenceServices of each selector that asks for some."""
    for key, node in fields(item.get("spec")):
        if key in ("matchLabels", "selector") and isinstance(node, dict):
            if isinstance(name := node.get(INFERENCE_SERVICE), str):
                yield [name]
        elif key == "matchExpressions" and (node["key"], node["operator"]) == (
            INFERENCE_SERVICE,
            "In",
        ):
            yield node["values"]


def _files_and_variables(item: Manifest, rendering: _Rendering) -> Iterator[str]:
    """Secrets and ConfigMaps of the namespace; and InferenceServices that a program is told of."""
    namespace = namespace_of(item)
    named = [(kind, name, "", _REMEDY_FOR_OWN) for kind, name in _named(item)]
    named += [
        ("InferenceService", name.strip(), f"{variable['name']} says ", _REMEDY)
        for _, _, container in own_containers([item])
        for variable in container.get("env") or ()
        if variable["name"] in VARIABLES
        for name in str(variable.get("value") or "").split(",")
    ]
    for kind, name, where, remedy in named:
        if not name or (name, namespace) in rendering.names.get(kind, ()):
            continue
        for meant, _ in sorted(rendering.renamed(kind, name))[:1]:
            yield f"{where}{name}, and the {kind} is called {meant} here. {remedy}"
        if kind in OF_A_NAMESPACE and not rendering.elsewhere(f"Cluster{kind}", name):
            yield from _in_another(kind, name, namespace, rendering)


def _named(item: Manifest) -> Iterator[tuple[str, str]]:
    """The kind and the name of each object that a field of another one names."""
    # A ServiceAccount has no spec, but lists of Secrets.
    secrets = [*(item.get("secrets") or ()), *(item.get("imagePullSecrets") or ())]
    for key, node in chain(fields(item.get("spec")), fields(secrets, "secret")):
        name = node.get("name") if isinstance(node, dict) else node
        if key in NAMED_KINDS and isinstance(name, str):
            yield NAMED_KINDS[key], name
        elif found := CLAIM.match(str(node)):
            yield "PersistentVolumeClaim", found[1]


def _keys(item: Manifest, rendering: _Rendering) -> Iterator[str]:
    """Keys of Secrets and ConfigMaps that are there under another name, which nobody reads.

    A variable's may come from elsewhere, as the operator adds the host to a Secret with a password;
    one that is mounted as a file is refused unless it is there, or no key is.
    """
    for kind, name, key, is_file in _asked(item):
        held = rendering.keys.get((kind, name, namespace_of(item)), set())
        if key not in held:
            asked = rendering.asked[kind, name, namespace_of(item)]
            for near in get_close_matches(key, sorted(held - asked), 1, 0 if is_file else 0.6):
                yield f"it reads {key} of {kind} {name}, which has no such key; is {near} meant?"


def _asked(item: Manifest) -> Iterator[tuple[str, str, str, bool]]:
    """Each key that a variable or a mounted file is read from: the kind of its object, the name,
    itself, and whether it is a file.
    """
    for key, node in fields(item.get("spec")):
        if key in ("secretKeyRef", "configMapKeyRef") and isinstance(node, dict):
            yield NAMED_KINDS[key], str(node.get("name")), str(node.get("key")), False
        elif key in ("secret", "configMap") and isinstance(node, dict):
            name = node.get("secretName", node.get("name"))
            for file in node.get("items") or ():
                yield NAMED_KINDS[key], str(name), str(file["key"]), True


def _in_another(kind: str, name: str, namespace: str, rendering: _Rendering) -> Iterator[str]:
    """An object that has the name in another namespace, or says none."""
    for item in rendering.items:
        if (item.get("kind"), item["metadata"]["name"]) == (kind, name):
            home = item["metadata"].get("namespace")
            place = f"in namespace {home}" if home else "without a namespace"
            yield (
                f"{kind} {name} is {place}, and is looked for in {namespace}; give it "
                "`namespace: PROFILE` and a target under `replacements`, as in "
                "examples/runtime/kustomization.yaml."
            )


def _namespaces(item: Manifest, rendering: _Rendering) -> Iterator[str]:
    """The namespace in the callers' paths, and in the expressions of alerts."""
    if not (rendering.homes and is_ours(item)):
        return
    for _, text in fields(item.get("spec")):
        for found in _IN_TEXT.finditer(text) if isinstance(text, str) else ():
            if found[2] not in rendering.homes:
                homes = " and ".join(sorted(rendering.homes))
                yield f"it is about {found[2]}, and the models are in {homes}. {_REMEDY}"
