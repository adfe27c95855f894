"""What can go wrong outside this program, in one line: what, where, what to do."""

from __future__ import annotations

import errno

import psycopg
import typer

from embedded_postgres import PostgresFailed
from shadow_local.document import Untranslated
from shadow_local.occupation import Occupied
from shadow_local.ports import PortBusy
from shadow_local.probes import NotReady
from shadow_local.rendering import RenderingFailed
from shadow_local.report import ReportFailed
from shadow_local.settings import WrongSetting
from shadow_local.supervisor import ChildDied
from shadow_local.uris import BadUri

# Their own messages are enough; a trace would hide them.
EXPLAINED = (
    BadUri,
    ChildDied,
    NotReady,
    Occupied,
    PortBusy,
    PostgresFailed,
    RenderingFailed,
    ReportFailed,
    Untranslated,
    WrongSetting,
    psycopg.Error,
)
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
POSTGRES_FULL = ("No space left on device", "Check free disk space")
MAKE_ROOM = "make room there, or remove what earlier runs left: `make clean`."
NO_RIGHT = (errno.EACCES, errno.EPERM, errno.EROFS)


def line_of(error: Exception) -> str | None:
    """What to tell about an error; None for one that is a mistake of this program."""
    if isinstance(error, typer.TyperException):
        message = error.format_message().rstrip(".")
        return f"{message}; `shadow-local --help` has the commands and options."
    if isinstance(error, PostgresFailed) and any(words in str(error) for words in POSTGRES_FULL):
        return f"No room is left on the disk; {MAKE_ROOM}\n{error}"
    if isinstance(error, EXPLAINED):
        return str(error).strip()
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return _on_disk(error, MAKE_ROOM)
    if isinstance(error, OSError) and error.errno in NO_RIGHT:
        return _on_disk(error, "run it as a user who may write there, or name another `--folder`.")
    return None


def _on_disk(error: OSError, remedy: str) -> str:
    return f"{error.filename or 'the data folder'}: {error.strerror}; {remedy}"
