"""The folder of a run: its own subfolder for other models, its lock, and `state.json`."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path

from shadow_local import Explained
from shadow_local.translate.document import Manifest, from_repository, repository

STATE, MODELS = "state.json", "models.json"


@dataclass(frozen=True)
class Pods:
    """A transformer and its predictor; a process id is None for a process left out."""

    transformer_url: str
    transformer_grpc_url: str
    transformer_pid: int | None
    predictor_url: str
    predictor_pid: int | None
    spool_dir: str


@dataclass(frozen=True)
class Side(Pods):
    """One InferenceService: whose model its transformer records calls as, where it logs, its first
    pods, and with REPLICAS=2 and more the others.
    """

    service: str
    version: str | None
    transformer_log: str
    more: tuple[Pods, ...] = ()


@dataclass(frozen=True)
class Follower:
    """What brings the primary's recorded calls to the shadow where nothing is mirrored."""

    metrics_url: str
    pid: int | None


@dataclass(frozen=True)
class State:
    """Where a stack that takes traffic is; a side that is not deployed is None."""

    gateway_url: str
    predict_url: str
    direct_urls: dict[str, str]
    serving_path: str | None  # a gRPC caller's header x-serving-path, at the gateway's own address
    postgres_uri: str
    mirror_percentage: float | None
    primary: Side | None
    shadow: Side | None  # the first of them
    follower: Follower | None = None
    verdict_url: str | None = None  # the page of the live verdict
    judging: tuple[str, ...] = ()  # the options of `compare` that the live verdict judges by
    candidates: tuple[str, ...] = ()  # the shadows' names
    more_shadows: tuple[Side, ...] = ()
    more_followers: tuple[Follower, ...] = ()
    copies_url: str | None = None  # Envoy's figures of the copies that no shadow has answered yet
    kustomization: str = ""  # its folder
    postgres_log: str | None = None  # of the stack's own Postgres; None with a POSTGRES_URI
    rendered: str = ""  # the digest of what it was when the stack started

    def write(self, folder: Path) -> None:
        """Replace `state.json` at once, so that no reader sees half of it."""
        draft = (folder / STATE).with_suffix(".draft")
        draft.write_text(json.dumps(asdict(self), indent=2) + "\n")
        draft.replace(folder / STATE)


def read_state(folder: Path) -> dict[str, object] | None:
    """The state that a running stack wrote, None when there is none."""
    try:
        found = json.loads((folder / STATE).read_text())
    except FileNotFoundError:
        return None
    return found if isinstance(found, dict) else None


def digest(manifests: list[Manifest]) -> str:
    """One for the same objects in the same order, another for any other field."""
    return sha256(json.dumps(manifests, default=str).encode()).hexdigest()


def other_models(folder: Path, models: Mapping[str, dict[str, str]]) -> dict[str, list[str]]:
    """Which of these, by name and version, were another one in an earlier run in the folder, and in
    which parts; what they are now, a digest of each part, is written there.
    """
    file = folder / MODELS
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | dict(models), indent=2) + "\n")
    return {
        name: sorted({part for part, _ in known[name].items() ^ model.items()})
        for name, model in models.items()
        if known.get(name, model) != model
    }


def copies_url_of(folder: Path, url: str) -> str | None:
    """The `copies_url` of the stack that runs in a folder, where it is its gateway that answers."""
    state = read_state(folder) or {}
    gateway, copies_url = state.get("gateway_url"), state.get("copies_url")
    return str(copies_url) if gateway and copies_url and url.startswith(f"{gateway}/") else None


@contextmanager
def claimed(folder: Path, second_run: str) -> Iterator[None]:
    """Keep a second run out of a folder; it is free again when this process ends in any way.

    `second_run` is the command that runs next to the first, in a folder of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a+") as lock:
        try:
            # The system drops the lock with the process, so a killed run leaves none behind.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.seek(0)
            pid = lock.read()
            raise Explained(
                f"Process {pid} already runs in {folder}; stop it (Ctrl-C there, or `kill {pid}`), "
                f"or run this one next to it with a folder of its own: {second_run}"
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


def data_folder(kustomization: Path | None) -> Path:
    """Where in a runner's folder a kustomization's data are: none mixes with another's models."""
    if kustomization is None or kustomization.resolve() == repository():
        return Path()
    path = from_repository(kustomization)
    return Path("kustomizations", path.strip("/").replace("/", "-"))
