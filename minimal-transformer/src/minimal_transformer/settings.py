"""What a recording process must know: read once at start, refused with a remedy when wrong."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from minimal_transformer.headers import CREDENTIAL_HEADERS, is_credential
from minimal_transformer.redaction import JsonPath, parse_path

# A body of one row must stay far below Postgres' 1 GB field and the reader's memory.
MAX_BODY_BYTES = 64 * 1024 * 1024
MIN_SPOOL_BYTES = 64 * 1024

DEFAULT_HEADERS = (
    "content-type",
    "content-encoding",
    "inference-header-content-length",
    "traceparent",
    "user-agent",
    "x-request-id",
)


class SettingsError(ValueError):
    """A setting that stops the start; its text is one line per setting: what, where, what to do."""


class RecordSettings(BaseSettings):
    """The settings of recording and delivery; every one is an environment variable of its name."""

    model_config = SettingsConfigDict(case_sensitive=False, extra="ignore", frozen=True)

    postgres_uri: SecretStr
    postgres_secret_dir: str = ""
    shadow_role: Literal["primary", "shadow"]
    inference_service: str = Field(default="unnamed", min_length=1, max_length=253)
    model_version: str | None = Field(default=None, max_length=256)
    spool_dir: str = ""
    spool_max_bytes: int = Field(default=1024**3, ge=MIN_SPOOL_BYTES)
    spool_fsync: bool = False
    record_headers: Annotated[tuple[str, ...], NoDecode] = DEFAULT_HEADERS
    record_max_body_bytes: int = Field(default=1024**2, ge=0, le=MAX_BODY_BYTES)
    record_sample: float = Field(default=1.0, ge=0.0, le=1.0)
    record_redact: Annotated[tuple[str, ...], NoDecode] = ()

    @classmethod
    def from_environment(cls) -> RecordSettings:
        """The settings of this process' environment; SettingsError names fault and remedy."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(_complaints(error))) from None

    def as_environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a child process."""
        values = self.model_dump(exclude_none=True)
        values["postgres_uri"] = self.postgres_uri.get_secret_value()
        values["record_headers"] = ",".join(self.record_headers)
        values["record_redact"] = ",".join(self.record_redact)
        return {name.upper(): str(value) for name, value in values.items()}

    @property
    def redacted_paths(self) -> tuple[JsonPath, ...]:
        return tuple(parse_path(path) for path in self.record_redact)

    @property
    def max_body_bytes(self) -> int:
        """What is stored of a body at most: one record may not take a small spool for itself."""
        return min(self.record_max_body_bytes, self.spool_max_bytes // 16)

    @property
    def spool_folder(self) -> Path:
        """SPOOL_DIR; unset, a folder of this InferenceService below the system's temporary one.

        One folder belongs to one database: whoever delivers a folder sends all of it to its own.
        """
        if self.spool_dir:
            return Path(self.spool_dir)
        return Path(gettempdir()) / "minimal-transformer" / self.inference_service

    @property
    def secret_folder(self) -> Path | None:
        """Where Kubernetes mounts the database's Secret; None when POSTGRES_URI says it all."""
        return Path(self.postgres_secret_dir) if self.postgres_secret_dir else None

    @field_validator("postgres_uri")
    @classmethod
    def _is_a_uri(cls, value: SecretStr) -> SecretStr:
        if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError("set it to postgresql://user:password@host:5432/database")
        return value

    @field_validator("model_version", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: object) -> object:
        return value or None

    @field_validator("record_headers", "record_redact", mode="before")
    @classmethod
    def _split_commas(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return value

    @field_validator("record_headers")
    @classmethod
    def _holds_no_credential(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.lower() for name in names))
        if refused := [name for name in names if is_credential(name)]:
            raise ValueError(
                f"take {', '.join(refused)} off it: what lets its reader act as the caller is never"
                f" stored ({', '.join(sorted(CREDENTIAL_HEADERS))} and the like)"
            )
        return names

    @field_validator("record_redact")
    @classmethod
    def _holds_json_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            parse_path(path)
        return paths


_REMEDIES = {
    "postgres_uri": "set it to postgresql://user:password@host:5432/database",
    "shadow_role": "set it to 'primary' or 'shadow'",
    "inference_service": "set it to the name of the InferenceService, at most 253 characters",
    "model_version": "set it to at most 256 characters",
    "spool_max_bytes": f"set it to a number of bytes, at least {MIN_SPOOL_BYTES}",
    "spool_fsync": "set it to 0 or 1",
    "record_max_body_bytes": f"set it to a number of bytes from 0 to {MAX_BODY_BYTES}",
    "record_sample": "set it to a number from 0 to 1",
}


def _complaints(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else "settings"
        variable = name.upper()
        remedy = _REMEDIES.get(name, fault["msg"])
        if fault["type"] == "value_error":
            remedy = str(fault["ctx"]["error"])
        if fault["type"] == "missing":
            lines.append(f"{variable} is not set; {remedy}.")
        elif name == "postgres_uri":  # it holds a password
            lines.append(f"{variable} is not a connection URI; {remedy}.")
        else:
            lines.append(f"{variable} is {os.environ.get(variable, fault['input'])!r}; {remedy}.")
    return lines
