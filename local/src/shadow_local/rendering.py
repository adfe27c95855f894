"""The manifests as `kubectl kustomize` renders them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

# What kubectl looks for.
FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")


class RenderingFailed(Exception):
    """There is no kustomization, or kubectl refused it; the message says what to do."""


def repository() -> Path:
    """The folder that holds `manifests/`, above this package."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "kustomization.yaml").exists() and (folder / "manifests").is_dir():
            return folder
    raise RenderingFailed("No folder above shadow_local holds kustomization.yaml and manifests/.")


def render(kustomization: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization folder, in the order in which kubectl would apply them."""
    if not any((kustomization / name).is_file() for name in FILES):
        raise RenderingFailed(
            f"KUSTOMIZATION is '{kustomization}', which holds no kustomization.yaml; set it to a "
            "folder that does, such as examples/scikit-learn."
        )
    kubectl = Path(sys.executable).with_name("kubectl")
    if not kubectl.exists():
        raise RenderingFailed(f"{kubectl} is missing; run `uv sync` in local/.")
    result = subprocess.run(
        [kubectl, "kustomize", kustomization], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RenderingFailed(_explained(kustomization, result.stderr.strip()))
    return [item for item in yaml.safe_load_all(result.stdout) if item]


def _explained(kustomization: Path, refusal: str) -> str:
    """kubectl's words with what to do before them; they are left out where that says it all."""
    if "api-key.env" in refusal:
        return (
            "The option api-key is on and its key is missing; write it by "
            '`echo "key=$X_API_KEY" > manifests/options/api-key/api-key.env`, or put a # before '
            "the option in manifests/options/kustomization.yaml."
        )
    return (
        f"kubectl cannot render {kustomization}; mend the file that the end of its message names, "
        f"and see it again by `kubectl kustomize {kustomization}`:\n{refusal}"
    )


def data_folder(kustomization: Path | None) -> Path:
    """Where in a runner's folder a kustomization's data are: none mixes with another's models."""
    if kustomization is None or kustomization.resolve() == repository():
        return Path()
    path = kustomization.resolve()
    if path.is_relative_to(repository()):
        path = path.relative_to(repository())
    return Path("kustomizations", str(path).strip("/").replace("/", "-"))


def topology(name: str) -> Path:
    """The kustomization of a topology; `standard` is the repository's root."""
    root = repository()
    if name == "standard":
        return root
    folder = root / "manifests" / "mirroring" / name
    if not (folder / "kustomization.yaml").exists():
        raise RenderingFailed(f"TOPOLOGY is {name!r}; set it to standard or knative.")
    return folder
