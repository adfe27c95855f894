"""The state file: where a stopped replay goes on. It exists only while a replay is unfinished."""

from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import UUID

import orjson

from shadow_report.errors import OneLineError

VERSION = 1


@dataclass(frozen=True, slots=True)
class Counts:
    """What became of the calls so far."""

    answered: int = 0
    failed: int = 0
    """Answered with a status from 400 on; these are records like any other."""
    unanswered: int = 0
    skipped: dict[str, int] = field(default_factory=dict)

    @property
    def done(self) -> int:
        return self.answered + self.unanswered + sum(self.skipped.values())


@dataclass(frozen=True, slots=True)
class State:
    """A replay: what is sent where, since when, and how far it got.

    `after_time` and `after_record` are the last call before which all are done; `done_beyond` are
    the few after it that are done too, since calls end out of order.
    """

    to: str
    primary: str
    since: datetime | None
    until: datetime | None
    started: datetime
    total: int = 0
    after_time: datetime | None = None
    after_record: UUID | None = None
    done_beyond: tuple[UUID, ...] = ()
    counts: Counts = Counts()


def save(state: State, file: Path) -> None:
    """Write the state in one step."""
    draft = file.with_name(f".{file.name}.draft")
    try:
        draft.write_bytes(orjson.dumps({"version": VERSION, **asdict(state)}))
        draft.replace(file)
    except OSError as error:
        raise OneLineError(
            f"Cannot write the replay's state to {file} ({error.strerror}); "
            "name a writable file with --state."
        ) from error


def load(file: Path) -> State:
    """The state of an unfinished replay."""
    try:
        stored = orjson.loads(file.read_bytes())
        if stored.pop("version") != VERSION:
            raise ValueError("another version")
        times = {name: moment(stored[name]) for name in ("since", "until", "started", "after_time")}
        record = stored["after_record"]
        state = State(
            **{
                **stored,
                **times,
                "after_record": UUID(record) if record else None,
                "done_beyond": tuple(UUID(text) for text in stored["done_beyond"]),
                "counts": Counts(**stored["counts"]),
            }
        )
    except FileNotFoundError as error:
        raise OneLineError(
            f"There is no unfinished replay in {file}; start one without --resume."
        ) from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OneLineError(
            f"{file} is not the state of a replay ({error}); delete it and start anew."
        ) from error
    return state


def moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)
