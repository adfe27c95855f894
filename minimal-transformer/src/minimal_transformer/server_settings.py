"""The settings of the server itself; those of recording are RecordSettings."""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from minimal_transformer.settings import SettingsError

_REMEDIES = {
    "access_log": "set it to 1 for a log line per call, or to 0.",
    "log_format": "set it to 'text' or 'json'.",
    "shutdown_grace_seconds": "set it to a number of seconds from 0 to 3600.",
    "shutdown_drain_seconds": "set it to a number of seconds from 0 to 3600.",
}


class ServerSettings(BaseSettings):
    """Read from the environment variables of the same names in capitals."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore")

    access_log: bool = False
    log_format: Literal["text", "json"] = "text"
    # Both must fit into the pod's terminationGracePeriodSeconds, after its preStop.
    shutdown_grace_seconds: float = Field(default=30, ge=0, le=3600)
    shutdown_drain_seconds: float = Field(default=10, ge=0, le=3600)

    @classmethod
    def from_environment(cls) -> Self:
        """The settings, or SettingsError with one line for each bad one."""
        try:
            return cls()
        except ValidationError as failure:
            names = [str(error["loc"][0]) for error in failure.errors()]
        raise SettingsError(
            "\n".join(
                f"{name.upper()} is {os.environ.get(name.upper())!r}; {_REMEDIES[name]}"
                for name in names
            )
        )
