"""What a running stack tells other programs: `state.json`."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Side:
    """One InferenceService's processes; a process id is None for a process left out."""

    transformer_url: str
    transformer_grpc_url: str
    transformer_pid: int | None
    predictor_url: str
    predictor_pid: int | None
    spool_dir: str


@dataclass(frozen=True)
class State:
    """Where a stack that takes traffic is; a side that is not deployed is None."""

    gateway_url: str
    predict_url: str
    direct_urls: dict[str, str]
    postgres_uri: str
    mirror_percentage: float | None
    primary: Side | None
    shadow: Side | None

    def write(self, path: Path) -> None:
        """Replace the file at once, so that no reader sees half of it."""
        draft = path.with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(path)


def read_state(path: Path) -> dict[str, object] | None:
    """The state that a running stack wrote, None when there is none."""
    try:
        found = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) else None
