"""The options: each in all the places where one is looked for, and off until it is switched on."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tree import LOADER, OPTIONS, REPOSITORY, Tree, option_of

PAGE = "manifests/README.md"
HEAD = "| option | what it adds | needs |\n"


def parts(folder: Path) -> Iterator[Path]:
    """A kustomization's folder, and those that it is put together from."""
    yield folder
    file = folder / "kustomization.yaml"
    written = yaml.load(file.read_text(), Loader=LOADER) if file.is_file() else {}
    for name in (*written.get("resources", ()), *written.get("components", ())):
        if (folder / name).is_dir():
            yield from parts((folder / name).resolve())


def kustomization_of(file: Path) -> Path:
    """The nearest folder above it that is a kustomization."""
    return next(folder for folder in file.parents if (folder / "kustomization.yaml").is_file())


def options_on_the_page(text: str) -> set[str]:
    """The first column of the table; `/b` next to `a/c` is `a/b`."""
    rows = text.partition(HEAD)[2].partition("\n\n")[0].splitlines()[1:]
    found = set()
    for row in rows:
        first, *others = re.findall(r"`([^`]+)`", row.split("|")[1])
        kind = first.partition("/")[0]
        found |= {first, *(f"{kind}{other}" for other in others)}
    return found


def missing(repository: Path) -> Iterator[str]:
    """A line for each option that a place lacks, with the place."""
    options = (repository / OPTIONS).parent.resolve()
    lines = set(filter(None, map(option_of, (repository / OPTIONS).read_text().splitlines())))
    reached = {part for name in lines for part in parts((options / name).resolve())}
    files = [file for file in options.glob("*/**/*") if file.is_file()]
    for folder in sorted({kustomization_of(file) for file in files} - reached - {options}):
        name = folder.relative_to(options)
        yield f"{OPTIONS}: no line for {name}; `  # - {name}` is one that is switched off"
    for folder in sorted({file.parent for file in files if kustomization_of(file) == options}):
        yield f"manifests/options/{folder.relative_to(options)}: it has no kustomization.yaml"
    for name in sorted(name for name in lines if not (options / name).is_dir()):
        yield f"{OPTIONS}: its line {name} names no folder of manifests/options"
    rows = options_on_the_page((repository / PAGE).read_text())
    for name in sorted(lines - rows):
        yield f"{PAGE}, the table of *Options*: no row for `{name}`"
    for name in sorted(rows - lines):
        yield f"{PAGE}, the table of *Options*: `{name}` has no line in {OPTIONS}"


def test_every_option_has_its_folder_its_line_and_its_row() -> None:
    """Without the line nobody can switch it on, and no other test renders it."""
    found = list(missing(REPOSITORY))
    assert not found, "\n".join(found)


def test_an_option_that_a_place_lacks_is_named(tmp_path: Path) -> None:
    """With the file that lacks it; also one of two levels, and a part that none is made of."""
    tree = Tree(tmp_path / "tree")
    options = tree.folder / "manifests/options"
    for name in ("toy", "network-policies/toy", "second-shadow/part", "bare"):
        (options / name).mkdir()
        (options / name / "toy.yaml").write_text("kind: ConfigMap\n")
        if name != "bare":
            kustomization = "kind: Component\nresources: [toy.yaml]\n"
            (options / name / "kustomization.yaml").write_text(kustomization)
    tree.replace(OPTIONS, "  - retention ", "  # - toy  # written twice\n  - gone\n  - retention ")
    tree.replace(PAGE, "| `rules` |", "| `rulez` |")
    assert list(missing(tree.folder)) == [
        *(
            f"{OPTIONS}: no line for {name}; `  # - {name}` is one that is switched off"
            for name in ("network-policies/toy", "second-shadow/part")
        ),
        "manifests/options/bare: it has no kustomization.yaml",
        f"{OPTIONS}: its line gone names no folder of manifests/options",
        *(f"{PAGE}, the table of *Options*: no row for `{n}`" for n in ("gone", "rules", "toy")),
        f"{PAGE}, the table of *Options*: `rulez` has no line in {OPTIONS}",
    ]


def test_options_are_off_unless_switched_on(tmp_path: Path) -> None:
    """As it comes, only the retention job is there besides the models and their routes."""
    kinds = {item["kind"] for item in Tree(tmp_path / "tree").objects()}
    assert kinds == {"InferenceService", "VirtualService", "DestinationRule", "CronJob", "Service"}


SUBSTITUTE = "kustomize.toolkit.fluxcd.io/substitute"


@pytest.mark.parametrize("folder", ["manifests/mirroring", "manifests/database"])
def test_what_flux_would_substitute_is_kept_from_it(tmp_path: Path, folder: str) -> None:
    """Its postBuild writes over each `${name}`, and makes one `$` of two: of the dashboard's, of
    SQL's quotes, and of patterns that somebody writes into the rules.
    """
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    rules = tree.folder / "manifests/options/rules/rules.yaml"
    rules.write_text("rules: [{path: t, compare: pattern, patterns: {price: '\\d+ ?$$|${'}}]\n")
    found = {
        (item["kind"], item["metadata"]["name"]): item["metadata"].get("annotations", {})
        for item in tree.objects(folder)
        if re.search(r"\$[{$]", json.dumps(item))
    }
    assert len(found) == (2 if folder == "manifests/mirroring" else 1)
    assert [of for of, notes in found.items() if notes.get(SUBSTITUTE) != "disabled"] == []


def test_the_patch_for_argo_cd_is_one_of_the_reports_job(tmp_path: Path) -> None:
    """As it stands on the page."""
    text = (REPOSITORY / PAGE).read_text()
    (line,) = re.findall(r"`(- \{target: \{kind: CronJob[^`]*ignore-healthcheck[^`]*)`", text)
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    folder = tree.folder / "team"
    folder.mkdir()
    patches = yaml.safe_load(line)
    content = {"resources": ["../manifests/mirroring"], "patches": patches}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(content))
    found = {
        item["metadata"]["name"]
        for item in tree.objects("team")
        if "argocd.argoproj.io/ignore-healthcheck" in item["metadata"].get("annotations", {})
    }
    assert found == {"mirrored-inference-report"}


def test_the_options_repeat_no_figure(tmp_path: Path) -> None:
    """A figure stands where it is set: a comment with another one would be wrong after a change."""
    lines = (Tree(tmp_path / "tree").folder / OPTIONS).read_text().splitlines()
    comments = [line.split("#")[-1] for line in lines if "#" in line]
    assert len(comments) > 10
    assert [comment for comment in comments if re.search(r"\d|once a", comment)] == []


def test_a_missing_api_key_stops_the_rendering(tmp_path: Path) -> None:
    """Switched on without a key, the option does not render: nothing is opened by forgetting."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    (tree.folder / "manifests/options/api-key/api-key.env").unlink()
    with pytest.raises(AssertionError, match=r"api-key\.env"):
        tree.text()
