"""Copies of the manifests that a test may change, and what kubectl renders from them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from shadow_local.translate.document import topologies

REPOSITORY = Path(__file__).parents[3]
KUBECTL = Path(sys.executable).with_name("kubectl")
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
SETTINGS = "manifests/settings/settings.yaml"
OPTIONS = "manifests/options/kustomization.yaml"
# mirroring-on renders the same as the root, and mirroring-off as shadow-added: see test_stages.
STAGES_OF_THEIR_OWN = ("primary-alone", "shadow-added", "shadow-promoted")
# From the folders, as the programs find them: a new topology is in every test that takes these.
TOPOLOGIES = tuple(topologies())
MIRRORED = tuple(
    name
    for name, folder in topologies().items()
    if "  - ../routes\n" in (folder / "kustomization.yaml").read_text()
)

# Values that differ in form too: a port in the registry, a number as tag, more and fewer hyphens.
OTHER_SETTINGS = {
    "domain": "models.company.internal",
    "profile": "fraud",
    "gateway": "gateways/public-gateway",
    "gateway-namespace": "edge",
    "gateway-label": "public-pods",
    "entry": "score",
    "primary": "fraud-2024-11",
    "shadow": "fraudnext",
    "second-shadow": "other-2025-02-01",
    "primary-version": "2",
    "shadow-version": "churn-2024.11",
    "second-shadow-version": "churn-2025.02",
    "mirror-percentage": "12.5",
    "mirror-content-length": "[0-9]{1,4}",
    "mirror-grpc-copies": "17",
    "mirror-port": "8190",
    "mirror-port-name": "http-copies",
    "second-mirror-port": "8191",
    "second-mirror-port-name": "http-more-copies",
    "follow-concurrency": "41",
    "follow-rate": "1777/s",
    "predict-timeout-seconds": "135",
    "primary-min-replicas": "2",
    "primary-max-replicas": "9",
    "shadow-min-replicas": "4",
    "shadow-max-replicas": "7",
    "standard-scale-metric": "memory",
    "standard-scale-target": "55",
    "knative-scale-metric": "rps",
    "knative-scale-target": "65",
    "image-registry": "registry.company.internal:5000/ml/shadow",
    "image-tag": "2026",
    "runbook": "https://wiki.company.internal/shadow/operations",
}

# As long as they can be: 50 characters for a name and its profile, 63 for the mirror's Service.
LONG_NAMES = {
    "profile": "a-profile-of-26-characters",
    "entry": "an-entry-of-29-characters-too",
    "primary": "a-model-of-24-characters",
    "shadow": "another-of-24-characters",
    "second-shadow": "a-third-of-24-characters",
}


class Tree:
    """A copy of the repository's manifests in a folder of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(REPOSITORY / "manifests", folder / "manifests")
        for name in ("kustomization.yaml", "postgres-crd.yml"):
            shutil.copy(REPOSITORY / name, folder / name)
        # The tests bring a key of their own; a developer's real one stays out of them.
        (folder / "manifests/options/api-key/api-key.env").write_text("key=sesame123\n")

    def replace(self, file: str, old: str, new: str) -> None:
        """Put `new` where `old` stands first; the test is wrong when it stands nowhere."""
        path = self.folder / file
        text = path.read_text()
        assert old in text, f"{file} has no {old!r}"
        path.write_text(text.replace(old, new, 1))

    @contextlib.contextmanager
    def replaced(self, file: str, old: str, new: str) -> Iterator[None]:
        """As `replace`, until the block ends."""
        path = self.folder / file
        before = path.read_text()
        self.replace(file, old, new)
        try:
            yield
        finally:
            path.write_text(before)

    def choose_topology(self, name: str) -> None:
        self.replace("manifests/mirroring/kustomization.yaml", "- standard ", f"- {name} ")

    def choose_settings(self, values: dict[str, str]) -> None:
        document = yaml.load((self.folder / SETTINGS).read_text(), Loader=LOADER)
        assert document["data"].keys() == values.keys()
        document["data"] = values
        (self.folder / SETTINGS).write_text(yaml.safe_dump(document))

    def switch_on_options(self, topology: str) -> None:
        """Every option that fits the topology."""
        path = self.folder / OPTIONS
        unfit = {option for option, fits in OPTIONS_OF.items() if topology not in fits}
        lines = [line for line in path.read_text().splitlines() if option_of(line) not in unfit]
        path.write_text("\n".join(line.replace("  # - ", "  - ") for line in lines) + "\n")

    def switch_on(self, option: str) -> None:
        """One option, by its folder."""
        path = self.folder / OPTIONS
        off, on = f"  # - {option}", f"  - {option}"
        lines = path.read_text().splitlines()
        kept = [on if f"{line} ".startswith(f"{off} ") else line for line in lines]
        assert kept != lines, option
        path.write_text("\n".join(kept) + "\n")

    def example(self, name: str) -> Path:
        """The folder of an example's deployment, on top of this tree's manifests."""
        folder = self.folder / "examples" / name
        folder.mkdir(parents=True)
        shutil.copy(REPOSITORY / "examples" / name / "kustomization.yaml", folder)
        return folder

    def settings(self) -> dict[str, str]:
        text = (self.folder / SETTINGS).read_text()
        data: dict[str, str] = yaml.load(text, Loader=LOADER)["data"]
        return data

    def text(self, kustomization: str = ".") -> str:
        """What kubectl renders; once for all trees whose files are the same."""
        rendering = (str(KUBECTL), kustomization, self._digest())
        if rendering not in _rendered:
            _rendered[rendering] = kustomize(self.folder / kustomization)
        return _rendered[rendering]

    def objects(self, kustomization: str = ".") -> list[dict[str, Any]]:
        return parse(self.text(kustomization))

    def _digest(self) -> bytes:
        """Of every file's name and content."""
        digest = hashlib.sha256()
        for path in sorted(path for path in self.folder.rglob("*") if path.is_file()):
            content = hashlib.sha256(path.read_bytes()).digest()
            digest.update(f"{path.relative_to(self.folder)}\0".encode() + content)
        return digest.digest()


def option_of(line: str) -> str | None:
    """The option that a line of the options' kustomization has, switched on or off."""
    found = re.match(r"  (?:# )?- (\S+)", line)
    return found and found[1]


def _fits(option: str) -> tuple[str, ...]:
    """The topologies that its objects name, which the check of a deployment goes by; or all."""
    files = (REPOSITORY / "manifests/options" / option).rglob("*.yaml")
    said = re.findall(r'shadow-deployment/fits: "?([a-z, ]+)', "".join(map(Path.read_text, files)))
    return tuple(said[0].split(", ")) if said else TOPOLOGIES


OPTIONS_OF = {
    option: _fits(option)
    for option in map(option_of, (REPOSITORY / OPTIONS).read_text().splitlines())
    if option
}

_rendered: dict[tuple[str, str, bytes], str] = {}


def parse(text: str) -> list[dict[str, Any]]:
    """The objects of a rendering."""
    return list(yaml.load_all(text, Loader=LOADER))


def kustomize(folder: Path) -> str:
    """What `kubectl kustomize` prints; AssertionError with its message when it refuses."""
    result = subprocess.run(
        [KUBECTL, "kustomize", folder], capture_output=True, text=True, check=False, timeout=240
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
