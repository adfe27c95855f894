"""The manifests as `kubectl kustomize` renders them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml


class RenderingFailed(Exception):
    """kubectl refused the kustomization; the message is its own."""


def repository() -> Path:
    """The folder that holds `manifests/`, above this package."""
    for folder in Path(__file__).resolve().parents:
        if (folder / "kustomization.yaml").exists() and (folder / "manifests").is_dir():
            return folder
    raise RenderingFailed("No folder above shadow_local holds kustomization.yaml and manifests/.")


def render(kustomization: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization folder, in the order in which kubectl would apply them."""
    kubectl = Path(sys.executable).with_name("kubectl")
    if not kubectl.exists():
        raise RenderingFailed(f"{kubectl} is missing; run `uv sync` in local/.")
    result = subprocess.run(
        [kubectl, "kustomize", kustomization], capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise RenderingFailed(f"kubectl kustomize {kustomization}: {result.stderr.strip()}")
    return [item for item in yaml.safe_load_all(result.stdout) if item]


def topology(name: str) -> Path:
    """The kustomization of a topology; `standard` is the repository's root."""
    root = repository()
    if name == "standard":
        return root
    folder = root / "manifests" / "mirroring" / name
    if not (folder / "kustomization.yaml").exists():
        raise RenderingFailed(f"TOPOLOGY is {name!r}; set it to standard or knative.")
    return folder
