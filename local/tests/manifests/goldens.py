"""The rendered manifests as they are meant to be; run as a program, this writes them anew."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tree import LONG_NAMES, OTHER_SETTINGS, STAGES_OF_THEIR_OWN, TOPOLOGIES, Tree

FOLDER = Path(__file__).with_name("golden")
DASHBOARD = "  shadow-deployment.json: the file of manifests/options/dashboard\n"


def renderings(folder: Path) -> Iterator[tuple[str, str]]:
    """Each golden file's name, with what kubectl renders today."""
    for topology in TOPOLOGIES:
        plain = Tree(folder / topology)
        plain.choose_topology(topology)
        yield f"{topology}.yaml", plain.text()
        for stage in STAGES_OF_THEIR_OWN:
            yield f"{topology}-{stage}.yaml", plain.text(f"manifests/stages/{stage}")
        long = Tree(folder / f"{topology}-long")
        long.choose_topology(topology)
        long.choose_settings(long.settings() | LONG_NAMES)
        yield f"{topology}-long-names.yaml", long.text()
        two = Tree(folder / f"{topology}-two")
        two.choose_topology(topology)
        two.switch_on(f"second-shadow/{topology}")
        yield f"{topology}-second-shadow.yaml", two.text()
        full = Tree(folder / f"{topology}-full")
        full.choose_topology(topology)
        full.switch_on_options(topology)
        full.choose_settings(OTHER_SETTINGS)
        yield f"{topology}-every-option-other-settings.yaml", without_dashboard(full.text())


def without_dashboard(text: str) -> str:
    """A rendering without the dashboard's 1,500 lines, which are a file of their own already."""
    return re.sub(r"(?m)^  shadow-deployment\.json: \|\n(    .*\n|\n)+", DASHBOARD, text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        # All of them first: a rendering that fails leaves the files as they are.
        for name, text in dict(renderings(Path(scratch))).items():
            (FOLDER / name).write_text(text)
            print(f"wrote {name}")
