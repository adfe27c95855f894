"""Patches and `images` for nothing that is there: Kustomize leaves them out in silence.

Kustomize itself says which ones these are: it renders the same folders once more, in which another
patch stands before each, with the same target, and leaves a mark, or an image gets another name.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

from shadow_local import Explained
from shadow_local.translate.document import (
    KUSTOMIZATIONS,
    Manifest,
    fields,
    from_repository,
    image_name,
    read_yaml,
    render,
)
from shadow_local.translate.forms import IMAGES, TRANSFORMER, Malformed, label, sources
from shadow_local.translate.references import is_ours
from shadow_local.translate.written import has_labels

Target = dict[str, str]
# A field of its own next to `metadata`: whole annotations and labels are what patches replace.
MARK = "shadow-local-patch"
DELETES = "$patch: delete"
# As in `document`: libyaml, where PyYAML was built with it.
_DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def check_targets(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for a patch whose target no object is; a line for each, with its file.

    One of a kind that is not there at all may be meant for another topology, or for an option, and
    one for what the stage deletes for the others.
    """
    items = list(manifests)
    kinds = sorted({item["kind"] for item in items})
    lines = []
    for file, target in _without_objects(kustomization):
        if any(_includes(deleted, target) for deleted in _deleted(kustomization)):
            continue
        kind = target.get("kind", "")
        start = f"{from_repository(file)}: a patch has the target {_shown(target)}"
        if near := [] if kind in kinds else get_close_matches(kind, kinds, 1, 0.85):
            lines.append(f"{start}, and no object is a {kind}; is {near[0]} meant?")
        elif kind in ("", *kinds):
            there = [item for item in items if kind in ("", item["kind"])]
            remedy = _by_label(kustomization, target) or _remedy(target, there)
            lines.append(f"{start}, which no object is; {remedy}")
    if lines:
        raise Malformed("\n".join(lines))


def check_images(kustomization: Path, manifests: Iterable[Manifest]) -> None:
    """Malformed for an image that no container has; a line for each, with its file.

    One of this repository may be meant for an option.
    """
    items = list(manifests)
    files = _kustomizations(kustomization)
    there = {_untagged(text) for key, text in fields(items) if key == "image" and text}
    homes = {name.removesuffix(image_name(name)) for name in there}
    ours = {f"{home}{program}" for home in homes for program in (*IMAGES, TRANSFORMER)}
    lines = []
    for file, name in _unused_images(kustomization, files, items):
        if name not in ours:
            near = get_close_matches(name, sorted(there), 1, 0.75)
            remedy = f"is {near[0]} meant?" if near else f"they have {', '.join(sorted(there))}."
            lines.append(
                f"{from_repository(file)}: `images` has the name {name}, which no container has; "
                f"{remedy}"
            )
    if lines:
        raise Malformed("\n".join(lines))


def misplaced(kustomization: Path) -> Iterator[str]:
    """A warning for each option whose patches come before the objects that they are for.

    Kustomize takes the options in the order of their lines; what a later one adds stays as it is.
    """
    files = _kustomizations(kustomization)
    if not any(_option(file) and _fields(file).get("patches") for file in files):
        return
    with _copied(files) as copy:
        targets = _mark(copy, files, lambda file: _option(file) is not None)
        rendered = copy.render(kustomization) or []
    for mark, (file, target) in targets.items():
        missed = [item for item in rendered if mark not in item and _is_for(target, item)]
        for item in missed[:1]:
            options, name = _option(file) or (file, "")
            yield (
                f"{from_repository(options / KUSTOMIZATIONS[0])}: the option {name} changes "
                f"{label(item)}, which is added after it; put the line of {name} below that of the "
                "option that adds it."
            )


def _option(file: Path) -> tuple[Path, str] | None:
    """The folder of options that a component is in, next to `settings`, and the option's name."""
    for folder in file.parents[1:]:
        if folder.name == "options" and (folder.parent / "settings" / "settings.yaml").exists():
            # Patches of other kustomizations are for what these bring themselves.
            is_component = _fields(file).get("kind") == "Component"
            return (folder, file.relative_to(folder).parts[0]) if is_component else None
    return None


def _is_for(target: Target, item: Manifest) -> bool:
    """Whether an object of this repository's is one of an option's target, by kind and label."""
    labels = item["metadata"].get("labels") or {}
    return (
        is_ours(item)
        and item["kind"] == target.get("kind")
        and has_labels(labels, target.get("labelSelector", ""))
    )


def _unused_images(
    kustomization: Path, files: list[Path], items: list[Manifest]
) -> Iterator[tuple[Path, str]]:
    """The file and the name of each image without which the rendering is the same."""
    named = {file: _fields(file).get("images") or [] for file in files}
    if not any(named.values()):
        return
    with _copied(files) as copy:
        for file, images in named.items():
            for position, image in enumerate(images):
                marked = {"name": image.get("name", ""), "newName": MARK}
                others = [*images[:position], marked, *images[position + 1 :]]
                copy.write(file, {**_fields(file), "images": others})
                if copy.render(kustomization) == items:
                    yield file, marked["name"]
            copy.write(file, _fields(file))


def _untagged(image: Any) -> str:
    return re.sub(r"(:[^:/@]*)?(@.*)?$", "", str(image))


def _without_objects(kustomization: Path) -> Iterator[tuple[Path, Target]]:
    """The file and the target of each patch that Kustomize leaves out."""
    files = _kustomizations(kustomization)
    if not any(_has_targets(file) for file in files):
        return
    with _copied(files) as copy:
        targets = _mark(copy, files, _has_targets, keep=False)
        if (rendered := copy.render(kustomization)) is None:
            return
    found = {field for item in rendered for field in item if field.startswith(MARK)}
    yield from (place for mark, place in targets.items() if mark not in found)


def _kustomizations(folder: Path) -> list[Path]:
    return [file for file in sources(folder) if file.name in KUSTOMIZATIONS]


def _deleted(folder: Path) -> Iterator[Target]:
    """The targets of what a stage takes out for the others."""
    for file in filter(_comes_along, _kustomizations(folder)):
        for patch in _fields(file).get("patches") or ():
            if DELETES in patch.get("patch", "") and "target" in patch:
                yield patch["target"]


def _includes(deleted: Target, target: Target) -> bool:
    """Whether what has just the labels that a target asks for is among what is deleted."""
    asked = dict(re.findall(r"([\w./-]+) *==? *([\w.-]+)", str(target.get("labelSelector", ""))))
    return (
        bool(asked)
        and deleted.get("kind") in (None, target.get("kind"))
        and has_labels(asked, deleted.get("labelSelector", ""))
        and "labelSelector" in deleted
    )


def _by_label(kustomization: Path, target: Target) -> str:
    """How a patch by name may wait for what the stage leaves out; empty where that is nothing."""
    kinds = {deleted.get("kind", "") for deleted in _deleted(kustomization)}
    if "name" not in target or kinds.isdisjoint(("", target.get("kind", ""))):
        return ""
    return (
        "where it is of the shadow, which this stage leaves out, name it by its label: "
        "labelSelector: app.kubernetes.io/component=shadow."
    )


def _comes_along(file: Path) -> bool:
    """Whether this repository brings it, next to `settings`, however deep: with patches for options
    that are off, and for objects that a stage leaves out.
    """
    return any((folder / "settings" / "settings.yaml").exists() for folder in file.parents[1:])


def _has_targets(file: Path) -> bool:
    """Whether it is the user's own and has patches with targets."""
    return not _comes_along(file) and any("target" in p for p in _fields(file).get("patches") or ())


def _fields(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_yaml(file.read_text())
    return found


def _remedy(target: Target, items: Iterable[Manifest]) -> str:
    """What the objects have for the labels that the target asks for."""
    for name in re.findall(r"([\w./-]+) *=", str(target.get("labelSelector", ""))):
        labels = [item["metadata"].get("labels", {}) for item in items]
        if values := sorted({label[name] for label in labels if name in label}):
            return f"their {name} is {' or '.join(values)}."
    return "compare it with the names and labels in what `kubectl kustomize` prints."


class _Copy:
    """The folders of kustomization files below another one, where these may be changed; all else in
    them is what it was.
    """

    def __init__(self, scratch: Path, files: list[Path]) -> None:
        self._scratch = scratch
        # Paths that lead from one to the other lead there too, as all stand as they did.
        self._top = Path(os.path.commonpath([file.parent for file in files]))
        folders = {folder for file in files for folder in self._down_to(file.parent)}
        for folder in sorted(folders):
            self._place(folder).mkdir(parents=True, exist_ok=True)
            for entry in folder.iterdir():
                if entry not in folders and entry not in files:
                    self._place(entry).symlink_to(entry)
        for file in files:
            shutil.copyfile(file, self._place(file))

    def write(self, file: Path, content: dict[str, Any]) -> None:
        """The kustomization file, with other fields."""
        self._place(file).write_text(yaml.dump(content, Dumper=_DUMPER))

    def render(self, kustomization: Path) -> list[Manifest] | None:
        """The folder as it is here; None for one that names a folder above all of these in a way
        that `sources` does not read.
        """
        try:
            # Files that stand next to these are links into the folders themselves.
            return render(
                self._place(kustomization.resolve()), "--load-restrictor=LoadRestrictionsNone"
            )
        except Explained:
            return None

    def _place(self, path: Path) -> Path:
        return self._scratch / path.relative_to(self._top)

    def _down_to(self, folder: Path) -> Iterator[Path]:
        yield folder
        while folder != self._top:
            folder = folder.parent
            yield folder


@contextmanager
def _copied(files: list[Path]) -> Iterator[_Copy]:
    with tempfile.TemporaryDirectory() as scratch:
        yield _Copy(Path(scratch).resolve(), files)


def _mark(
    copy: _Copy, files: Iterable[Path], of: Callable[[Path], bool], keep: bool = True
) -> dict[str, tuple[Path, Target]]:
    """Put a mark before each patch of some files; its file and its target, by the mark.

    What a patch of theirs deletes would have none, so that only `keep` leaves it there.
    """
    targets: dict[str, tuple[Path, Target]] = {}
    for file in filter(of, files):
        content, patches = _fields(file), []
        for patch in content.get("patches") or ():
            if target := patch.get("target"):
                mark = f"{MARK}-{len(targets)}"
                targets[mark] = (file, target)
                named = {"apiVersion": "v1", "kind": "Any", "metadata": {"name": "any"}}
                patches.append({"target": target, "patch": yaml.safe_dump({**named, mark: "here"})})
            # What comes later may not have one either.
            if keep or DELETES not in _text(file, patch):
                patches.append(patch)
        if patches:
            copy.write(file, {**content, "patches": patches})
    return targets


def _text(file: Path, patch: dict[str, Any]) -> str:
    return str(patch["patch"]) if "patch" in patch else (file.parent / patch["path"]).read_text()


def _shown(target: Target) -> str:
    return ", ".join(f"{name}: {value}" for name, value in target.items())
