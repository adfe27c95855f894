"""The manifests as Kustomize renders them, read field by field so that none is passed over."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from shadow_local import Explained

Manifest = dict[str, Any]

# libyaml, where PyYAML was built with it, takes a seventh of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
# What kubectl looks for.
KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
_DURATION = r"(\d+(?:\.\d+)?)(ms|h|m|s)"
_SECONDS = {"ms": Decimal("0.001"), "s": Decimal(1), "m": Decimal(60), "h": Decimal(3600)}
# Of a field or a kind that nobody reads: a mistake, or something that only a cluster knows.
NOT_TRANSLATED = (
    "the local runner does not translate it; if it is not a mistake, add it for the cluster alone, "
    "in a kustomization in another folder that has this one as its resource"
)


class Untranslated(Explained):
    """A manifest says something that this runner cannot do; the message names object and field."""


def repository() -> Path:
    """The folder that holds `manifests/`, above this package."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "kustomization.yaml").exists() and (folder / "manifests").is_dir():
            return folder
    raise Explained("No folder above shadow_local holds kustomization.yaml and manifests/.")


def read_yaml(text: str) -> Any:
    """The one document of a text."""
    return yaml.load(text, Loader=_LOADER)  # noqa: S506  of the safe ones


def read_documents(text: str) -> list[Any]:
    """All documents of a text."""
    return list(yaml.load_all(text, Loader=_LOADER))


def from_repository(path: Path) -> str:
    """A path as it is written in the repository's folder; one outside of it stays whole."""
    path, root = path.resolve(), repository()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)


def of_kind(manifests: Iterable[Manifest], kind: str) -> list[Manifest]:
    """The objects of one kind, in their order."""
    return [item for item in manifests if item.get("kind") == kind]


def topologies() -> dict[str, Path]:
    """By its name the kustomization of each topology: a folder that ends with the settings."""
    return {
        file.parent.name: file.parent
        for file in sorted((repository() / "manifests/mirroring").glob("*/kustomization.yaml"))
        if "../../settings" in read_yaml(file.read_text()).get("components", ())
    }


def topology(name: str) -> Path:
    """The kustomization of a topology, whichever one manifests/mirroring chooses."""
    found = topologies()
    if name not in found:
        *others, last = found
        raise Explained(f"TOPOLOGY is {name!r}; set it to {', '.join(others)} or {last}.")
    return found[name]


def render(kustomization: Path, *options: str) -> list[Manifest]:
    """The objects of a kustomization folder, in the order in which kubectl would apply them."""
    if not any((kustomization / name).is_file() for name in KUSTOMIZATIONS):
        raise Explained(
            f"KUSTOMIZATION is '{kustomization}', which holds no kustomization.yaml; set it to a "
            "folder that does, such as examples/scikit-learn."
        )
    kubectl = Path(sys.executable).with_name("kubectl")
    if not kubectl.exists():
        raise Explained(f"{kubectl} is missing; run `make install PROJECT=local`.")
    result = subprocess.run(
        [kubectl, "kustomize", *options, kustomization], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise Explained(_remedy(kustomization, result.stderr.strip()))
    return [item for item in read_documents(result.stdout) if item]


def _remedy(kustomization: Path, refusal: str) -> str:
    """What to do, then kubectl's own words; they are left out where the remedy says it all."""
    if key := re.search(r"'([^']+/api-key\.env)'", refusal):
        return _without_key(Path(key[1]))
    # The file is there, and what it says is not called `key`.
    if key := re.search(r"'([^']+/api-key)': fieldPath `data\.key` is missing", refusal):
        return _without_key(Path(key[1], "api-key.env"))
    again = f"and see it again by `kubectl kustomize {kustomization}`"
    return f"kubectl cannot render {kustomization}; {_whereabouts(refusal)}, {again}:\n{refusal}"


def _without_key(file: Path) -> str:
    """What to do about a missing file of the option api-key, which git ignores."""
    start = "The option api-key is on and its key is missing"
    # kubectl takes away what it has cloned.
    if not file.parent.exists():
        return (
            f"{start}, as it is in every remote base, since git ignores it; put a # before the "
            "option in manifests/options/kustomization.yaml of that base, and have the gateway ask "
            "for keys, or apply from a clone that has the key in "
            "manifests/options/api-key/api-key.env."
        )
    options = from_repository(file.parents[1] / KUSTOMIZATIONS[0])
    return (
        f'{start}; write it by `echo "key=$X_API_KEY" > {shlex.quote(from_repository(file))}`, or '
        f"put a # before the option in {options}."
    )


def _whereabouts(refusal: str) -> str:
    """Where to look, as far as kubectl's words tell: a file, a folder, or neither."""
    *_, end = re.split(r"(?:accumulation|merging) (?:of|from) path '[^']+'", refusal)
    if re.search(r"File: \S|'[^']+\.(?:ya?ml|json|env)'|lstat /", end):
        return "mend the file that the end of its message names"
    if re.search(r"no resource matches .*\[noNs\]", end):
        return (
            "a patch without `target` names its object without the namespace; put "
            "`namespace: <profile>` into its metadata"
        )
    folders = re.findall(r"path '([^']+)'", refusal)
    if not folders:
        return "its message names no file, so look at what you changed last"
    return (
        f"the end of its message names no file: it was at {folders[-1]}, so look there and at what "
        "you changed last"
    )


@dataclass
class Section:
    """One mapping of a manifest; leaving its `with` block refuses every field that nobody read."""

    owner: str
    path: str
    fields: Mapping[str, Any]
    _read: set[str] = field(default_factory=set)

    def __enter__(self) -> Section:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if kind is None:
            for name in self.fields.keys() - self._read:
                raise self.refusal(name, NOT_TRANSLATED)

    def has(self, name: str) -> bool:
        return name in self.fields

    def take(self, name: str, default: Any = None) -> Any:
        """The field's value as it stands, marked as read."""
        self._read.add(name)
        return self.fields.get(name, default)

    def text(self, name: str, default: str | None = None) -> str:
        """A string; a missing one without a default is refused."""
        value = self.take(name, default)
        if not isinstance(value, str):
            quotes = ", in quotes" if isinstance(value, int | float) else ""
            raise self.refusal(name, f"a string is needed{quotes}")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer; a missing one without a default is refused."""
        value = self.take(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.refusal(name, "an integer is needed")
        return value

    def duration(self, name: str, default: str | None = None) -> str:
        """A length of time as Envoy writes it, in seconds, from Go's notation such as `1m30s`."""
        text = self.text(name, default)
        if not re.fullmatch(rf"({_DURATION})+", text):
            raise self.refusal(name, "a time such as 250ms, 60s or 1m30s is needed")
        parts = re.findall(_DURATION, text)
        return f"{sum(Decimal(number) * _SECONDS[unit] for number, unit in parts):f}s"

    def texts(self, name: str) -> list[str]:
        """A list of strings; empty when the field is missing."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.refusal(name, "a list of strings is needed")
        return value

    def table(self, name: str) -> dict[str, str]:
        """A mapping of strings to strings; empty when the field is missing."""
        value = self.take(name, {})
        if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
            raise self.refusal(name, "a mapping of strings is needed")
        return value

    def section(self, name: str) -> Section:
        """The mapping in a field; an empty one when the field is missing."""
        value = self.take(name, {})
        if not isinstance(value, dict):
            raise self.refusal(name, "a mapping is needed")
        return Section(self.owner, self._below(name), value)

    def sections(self, name: str) -> Iterator[Section]:
        """The mappings of a list; none when the field is missing."""
        value = self.take(name, [])
        if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
            raise self.refusal(name, "a list of mappings is needed")
        for position, item in enumerate(value):
            yield Section(self.owner, f"{self._below(name)}[{position}]", item)

    def ignored_locally(self, *names: str) -> None:
        """Mark fields as read that mean nothing on one machine."""
        self._read.update(names)

    def refusal(self, name: str, why: str) -> Untranslated:
        """The error that names the object, the field and its value."""
        value = repr(self.fields[name]) if name in self.fields else "missing"
        return Untranslated(f"{self.owner}: {self._below(name)} is {value}; {why}.")

    def _below(self, name: str) -> str:
        return f"{self.path}.{name}" if self.path else name


def expand(text: str, env: Mapping[str, str]) -> str:
    """Replace `$(NAME)` as Kubernetes does: unknown names stay, `$$` is one dollar sign."""
    return re.sub(
        r"\$\$|\$\((\w+)\)",
        lambda found: "$" if found[0] == "$$" else env.get(found[1], found[0]),
        text,
    )


def fields(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every field below a node with what it says, and each item of a list by the list's name."""
    for item in node if isinstance(node, list) else [node]:
        yield key, item
        for name, value in item.items() if isinstance(item, dict) else ():
            yield from fields(value, name)


def image_name(image: str) -> str:
    """An image's name without registry, tag and digest."""
    return image.rsplit("/", 1)[-1].split("@", 1)[0].split(":", 1)[0]


@dataclass(frozen=True)
class Object:
    """A Kubernetes object whose metadata and spec are being read."""

    name: str
    namespace: str
    metadata: Section
    spec: Section

    def host(self, name: str) -> str:
        """A host as Istio reads it: a short name is a Service of the object's own namespace."""
        return name if "." in name else f"{name}.{self.namespace}.svc.cluster.local"

    def check_export(self) -> None:
        """Refuse an Istio object that only some namespaces are to see."""
        if not set(self.spec.texts("exportTo")) <= {".", "*"}:
            raise self.spec.refusal("exportTo", "only '.' and '*' are known")


def objects(manifests: Iterable[Manifest], kind: str) -> Iterator[Object]:
    """The objects of a kind; what the loop leaves unread of one is refused before the next.

    Only a loop that runs to its end has had every field checked.
    """
    for manifest in manifests:
        if manifest.get("kind") != kind:
            continue
        name = manifest.get("metadata", {}).get("name", "without a name")
        with Section(f"{kind} {name}", "", manifest) as top, top.section("metadata") as metadata:
            top.ignored_locally("apiVersion", "kind")
            metadata.ignored_locally("labels", "annotations")
            with top.section("spec") as spec:
                yield Object(metadata.text("name"), metadata.text("namespace"), metadata, spec)
