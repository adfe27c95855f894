"""What a start needs to know: read once, refused with a remedy when wrong."""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import gettempdir
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from jsonpath import JSONPath
from pydantic import (
    BeforeValidator,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from minimal_transformer.paths import compile_path, split_paths

# A body of one row must stay far below Postgres' 1 GB field and the reader's memory.
MAX_RECORDED_BYTES = 64 * 1024 * 1024
MIN_SPOOL_BYTES = 64 * 1024

DEFAULT_HEADERS = (
    "content-type",
    "content-encoding",
    # Why a call was not mirrored: the mirrored route takes a declared length below its limit.
    "content-length",
    "transfer-encoding",
    "inference-header-content-length",
    "traceparent",
    "user-agent",
    "x-request-id",
    "x-shadow-source",  # what a follower or a replay says of its calls
)
# What crosses the hop. The lists are settings; what describes the body, and the ids by which the
# predictor's log and the tables are joined, cross it in any case. Credentials are the gateway's,
# not the model's, so they cross it only where they are listed.
ALWAYS_FORWARDED = (
    "content-encoding",
    "content-type",
    "inference-header-content-length",
    "x-request-id",
    "x-shadow-pair-id",
)
DEFAULT_FORWARDED = ("accept", "b3", "traceparent", "tracestate", "x-b3-*", "ce-*")
ALWAYS_RETURNED = ("content-encoding", "content-type", "inference-header-content-length")
# The third has no proxy hold back a stream.
DEFAULT_RETURNED = (
    *("cache-control", "content-language", "x-accel-buffering"),
    *("retry-after", "ce-*"),
)
# Tells the model that it works on a copy, whose answer nobody gets.
SHADOW_HEADER = "x-shadow"
OF_ONE_HOP = frozenset(
    {
        *("connection", "content-length", "date", "expect", "host", "keep-alive"),
        *("proxy-authenticate", "proxy-authorization", "proxy-connection", "server", "te"),
        *("trailer", "transfer-encoding", "upgrade", SHADOW_HEADER),
    }
)
_HEADER_PATTERN = re.compile(r"[!#$%&'+.^_`|~0-9a-z-]+\*?")
_HOOK_NAME = re.compile(r"\w+(\.\w+)*:\w+(\.\w+)*")
_CREDENTIAL = re.compile(
    r"authorization|api-?key|cookie|credential|password|secret|token|client-cert|jwt",
    re.IGNORECASE,
)

# KServe sets the first on a transformer whose predictor has TLS; the second is its fallback.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


def temporary_folder() -> Path:
    """The system's temporary folder, also where it is full or cannot be written."""
    try:
        return Path(gettempdir())
    except FileNotFoundError:
        return Path(os.environ.get("TMPDIR") or "/tmp")  # noqa: S108


class SettingsError(ValueError):
    """A setting that stops the start; its text is one line per setting: what, where, what to do."""


def _split(value: object) -> object:
    """The parts of a comma-separated text; anything else as it is."""
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


# An empty variable is how a manifest says that one is not set.
_EmptyIsUnset = BeforeValidator(lambda value: None if value == "" else value)
_Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]
_Timeout = Annotated[Annotated[float, Field(gt=0, le=86400)] | None, _EmptyIsUnset]


def _split_prefixes(names: tuple[str, ...]) -> tuple[list[str], tuple[str, ...]]:
    """Exact names, and the prefixes of those that end in a star."""
    exact = [name for name in names if not name.endswith("*")]
    return exact, tuple(name[:-1] for name in names if name.endswith("*"))


class _EnvironmentSettings(BaseSettings):
    """Settings that are the environment variables of their names, in capitals."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True)

    @classmethod
    def from_environment(cls) -> Self:
        """The settings of this process' environment; SettingsError names fault and remedy."""
        try:
            return cls()
        except ValidationError as error:
            raise SettingsError("\n".join(_complaints(error))) from None


class ServerSettings(_EnvironmentSettings):
    """The settings of the server itself."""

    access_log: bool = False
    log_format: Literal["text", "json"] = "text"
    # Both must fit into the pod's terminationGracePeriodSeconds, after its preStop.
    shutdown_grace_seconds: float = Field(default=30, ge=0, le=3600)
    shutdown_drain_seconds: float = Field(default=10, ge=0, le=3600)
    max_connections: int = Field(default=2048, ge=16, le=1_000_000)


class CallSettings(_EnvironmentSettings):
    """The settings of what crosses the hop to the predictor, and of how much and how long."""

    forward_headers: _Names = DEFAULT_FORWARDED
    return_headers: _Names = DEFAULT_RETURNED
    predict_timeout_seconds: _Timeout = None
    max_body_bytes: int = Field(default=64 * 1024**2, ge=1024)
    max_in_flight_bytes: int = Field(default=256 * 1024**2, ge=1024**2)

    @field_validator("forward_headers", "return_headers")
    @classmethod
    def _holds_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.lower() for name in names))
        for name in names:
            if not _HEADER_PATTERN.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a header's name; write names, or prefixes like ce-*"
                )
            if name in OF_ONE_HOP:
                raise ValueError(f"take {name} off it: it belongs to one connection, or is ours")
        return names

    @model_validator(mode="after")
    def _one_body_fits(self) -> Self:
        if self.max_in_flight_bytes < 2 * self.max_body_bytes:
            raise ValueError(
                f"MAX_IN_FLIGHT_BYTES is {self.max_in_flight_bytes}; set it to twice MAX_BODY_BYTES"
                f" ({self.max_body_bytes}) or more: a request and its answer are held at once."
            )
        return self


@dataclass(frozen=True, slots=True)
class HeaderRules:
    """Which headers cross the hop, by exact name or by prefix, in lower case."""

    forwarded: frozenset[str]
    forwarded_prefixes: tuple[str, ...]
    returned: frozenset[bytes]
    returned_prefixes: tuple[bytes, ...]

    @classmethod
    def of(cls, settings: CallSettings) -> Self:
        """The settings' lists, and what a body cannot be read or paired without."""
        there, prefixes = _split_prefixes(settings.forward_headers)
        back, back_prefixes = _split_prefixes(settings.return_headers)
        return cls(
            frozenset({*there, *ALWAYS_FORWARDED}),
            prefixes,
            frozenset(name.encode() for name in {*back, *ALWAYS_RETURNED}),
            tuple(prefix.encode() for prefix in back_prefixes),
        )


class PassingSettings(_EnvironmentSettings):
    """The settings of calls that are passed on as they come: OpenAI's, and PASS_PATHS."""

    # Where the predictor serves OpenAI's API: KServe's has /openai, others nothing before /v1.
    openai_predictor_prefix: str = "/openai"
    pass_paths: _Names = ()
    max_streams: int = Field(default=2000, ge=1, le=100_000)
    stream_idle_timeout_seconds: _Timeout = None
    predictor_ready_path: str = ""

    def passes(self, path: str) -> bool:
        """Whether PASS_PATHS has the path, or a folder that it is in."""
        return any(
            path == prefix or path.startswith(prefix.rstrip("/") + "/")
            for prefix in self.pass_paths
        )

    @field_validator("pass_paths", "openai_predictor_prefix", "predictor_ready_path")
    @classmethod
    def _begins_with_a_slash(cls, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
        for path in (value,) if isinstance(value, str) else value:
            if path and not path.startswith("/"):
                raise ValueError("have each path begin with /")
        return value.rstrip("/") if isinstance(value, str) else value


class HookSettings(_EnvironmentSettings):
    """The settings of a user's own functions: `package.module:function`, or nothing."""

    preprocess: str = ""
    postprocess: str = ""

    @field_validator("preprocess", "postprocess")
    @classmethod
    def _names_a_function(cls, value: str) -> str:
        if value and not _HOOK_NAME.fullmatch(value):
            raise ValueError("write package.module:function")
        return value


class SpoolSettings(_EnvironmentSettings):
    """The settings of where records wait, and of the database that they go to."""

    postgres_uri: SecretStr
    postgres_secret_dir: str = ""
    inference_service: str = Field(default="unnamed", min_length=1, max_length=253)
    spool_dir: str = ""

    @property
    def spool_folder(self) -> Path:
        """SPOOL_DIR; unset, a folder of this InferenceService below the system's temporary one.

        One folder belongs to one database: whoever delivers a folder sends all of it to its own.
        """
        if self.spool_dir:
            return Path(self.spool_dir)
        return temporary_folder() / "minimal-transformer" / self.inference_service

    @property
    def secret_folder(self) -> Path | None:
        """Where Kubernetes mounts the database's Secret; None when POSTGRES_URI has it all."""
        return Path(self.postgres_secret_dir) if self.postgres_secret_dir else None

    @field_validator("postgres_uri")
    @classmethod
    def _is_a_uri(cls, value: SecretStr) -> SecretStr:
        if urlsplit(value.get_secret_value()).scheme not in ("postgresql", "postgres"):
            raise ValueError(_REMEDIES["postgres_uri"])
        return value


class RecordSettings(SpoolSettings):
    """The settings of recording and delivery."""

    shadow_role: Literal["primary", "shadow"]
    model_version: Annotated[Annotated[str, Field(max_length=256)] | None, _EmptyIsUnset] = None
    spool_max_bytes: int = Field(default=1024**3, ge=MIN_SPOOL_BYTES)
    spool_fsync: bool = False
    record_headers: _Names = DEFAULT_HEADERS
    record_max_body_bytes: int = Field(default=1024**2, ge=0, le=MAX_RECORDED_BYTES)
    record_sample: float = Field(default=1.0, ge=0.0, le=1.0)
    record_redact: Annotated[tuple[str, ...], NoDecode] = ()
    record_stream_raw: bool = False
    record_errors: bool = False

    def as_environment(self) -> dict[str, str]:
        """The same settings as environment variables, for a child process."""
        values = self.model_dump(exclude_none=True)
        values["postgres_uri"] = self.postgres_uri.get_secret_value()
        values["record_headers"] = ",".join(self.record_headers)
        values["record_redact"] = ",".join(self.record_redact)
        return {name.upper(): str(value) for name, value in values.items()}

    @property
    def redacted_paths(self) -> tuple[JSONPath, ...]:
        return tuple(map(compile_path, self.record_redact))

    @property
    def max_body_bytes(self) -> int:
        """What is stored of a body at most: one record may not take a small spool for itself."""
        return min(self.record_max_body_bytes, self.spool_max_bytes // 16)

    @field_validator("record_headers")
    @classmethod
    def _holds_no_credential(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.lower() for name in names))
        if refused := [name for name in names if _CREDENTIAL.search(name)]:
            raise ValueError(
                f"take {', '.join(refused)} off it: what lets its reader act as the caller is never"
                " stored (authorization, cookie, x-api-key and the like)"
            )
        return names

    @field_validator("record_redact", mode="before")
    @classmethod
    def _split_paths(cls, value: object) -> object:
        if isinstance(value, str):
            return split_paths(value) if value.strip() else ()
        return value

    @model_validator(mode="after")
    def _can_redact_what_it_stores(self) -> Self:
        if self.record_stream_raw and self.record_redact:
            raise ValueError(
                "RECORD_STREAM_RAW is 1, and nothing can be redacted in a stream's bytes; set it to"
                " 0 or unset RECORD_REDACT."
            )
        return self

    @field_validator("record_redact")
    @classmethod
    def _holds_paths(cls, paths: tuple[str, ...]) -> tuple[str, ...]:
        for path in paths:
            compile_path(path)
        return paths


_SECONDS = "set it to a number of seconds from 0 to 3600"
_REMEDIES = {
    "access_log": "set it to 1 for a log line per call, or to 0",
    "log_format": "set it to 'text' or 'json'",
    "shutdown_grace_seconds": _SECONDS,
    "shutdown_drain_seconds": _SECONDS,
    "max_connections": "set it to a number from 16 to 1000000",
    "predict_timeout_seconds": "set it to a number of seconds over 0, at most 86400",
    "max_body_bytes": "set it to a number of bytes, at least 1024",
    "max_in_flight_bytes": "set it to a number of bytes, at least 1048576",
    "postgres_uri": "set it to postgresql://user:password@host:5432/database",
    "shadow_role": "set it to 'primary' or 'shadow'",
    "inference_service": "set it to the name of the InferenceService, at most 253 characters",
    "model_version": "set it to at most 256 characters",
    "spool_max_bytes": f"set it to a number of bytes, at least {MIN_SPOOL_BYTES}",
    "spool_fsync": "set it to 0 or 1",
    "stream_idle_timeout_seconds": "set it to a number of seconds over 0, at most 86400",
    "max_streams": "set it to a number of calls in flight from 1 to 100000",
    "record_max_body_bytes": f"set it to a number of bytes from 0 to {MAX_RECORDED_BYTES}",
    "record_stream_raw": "set it to 1 to keep streamed answers byte for byte as well, or to 0",
    "record_sample": "set it to a number from 0 to 1",
    "record_errors": "set it to 1 to store error texts although they may quote what"
    " RECORD_REDACT names, or to 0",
}


def _complaints(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        name = str(fault["loc"][0]) if fault["loc"] else ""
        variable = name.upper()
        remedy = _REMEDIES.get(name, fault["msg"])
        if fault["type"] == "value_error":
            remedy = str(fault["ctx"]["error"])
        if not fault["loc"]:  # settings that exclude each other
            lines.append(remedy)
            continue
        if fault["type"] == "missing":
            lines.append(f"{variable} is not set; {remedy}.")
        elif name == "postgres_uri":  # it holds a password
            lines.append(f"{variable} is not a connection URI; {remedy}.")
        else:
            lines.append(f"{variable} is {os.environ.get(variable, fault['input'])!r}; {remedy}.")
    return lines


class DefaultTimeout(int):
    """A timeout that no argument set."""


@dataclass(frozen=True, slots=True)
class PredictorSettings:
    """Where the predictor is, what crosses the hop to it, and how long a call may take."""

    model_name: str
    host: str | None
    protocol: Literal["v1", "v2", "grpc-v2"]
    use_tls: bool
    timeout_seconds: float
    retries: int
    ca_bundle: str | None
    headers: HeaderRules
    max_body_bytes: int
    max_in_flight_bytes: int
    passing: PassingSettings = field(default_factory=PassingSettings)
    is_shadow: bool = False
    quotes_errors: bool = True  # whether the log may have the predictor's words
    serving_processes: int = 1  # --workers: they share what a pod may keep of streams

    @classmethod
    def of(cls, args: Any) -> Self:
        """The settings in KServe's arguments and this process's environment, or SettingsError."""
        bundles = (os.environ.get(variable) for variable in CA_VARIABLES)
        calls = CallSettings.from_environment()
        # The argument where it was given, else the variable, else KServe's default.
        timeout = args.predictor_request_timeout_seconds
        if calls.predict_timeout_seconds is not None and isinstance(timeout, DefaultTimeout):
            timeout = calls.predict_timeout_seconds
        settings = cls(
            model_name=args.model_name,
            host=args.predictor_host or None,
            protocol=args.predictor_protocol,
            use_tls=bool(args.predictor_use_ssl),
            timeout_seconds=float(timeout),
            retries=int(args.predictor_request_retries),
            ca_bundle=next((bundle for bundle in bundles if bundle), None),
            passing=PassingSettings.from_environment(),
            headers=HeaderRules.of(calls),
            max_body_bytes=calls.max_body_bytes,
            max_in_flight_bytes=calls.max_in_flight_bytes,
            serving_processes=max(1, int(args.workers)),
        )
        if problem := settings._problem():
            raise SettingsError(problem)
        return settings

    @property
    def stream_idle_seconds(self) -> float:
        """How long a stream that has begun may bring nothing, and its caller read nothing."""
        return self.passing.stream_idle_timeout_seconds or self.timeout_seconds

    @property
    def base_url(self) -> str:
        """The predictor's address for REST, without a path."""
        return f"{'https' if self.use_tls else 'http'}://{self.host}"

    def ssl_context(self) -> ssl.SSLContext:
        """A verifying context: the named bundle's authorities, or the system's."""
        if self.ca_bundle is None:
            return ssl.create_default_context()
        if Path(self.ca_bundle).is_dir():
            return ssl.create_default_context(capath=self.ca_bundle)
        return ssl.create_default_context(cafile=self.ca_bundle)

    def _problem(self) -> str | None:
        if self.timeout_seconds <= 0:
            return (
                f"--predictor_request_timeout_seconds is {self.timeout_seconds:g}; "
                "set it to 1 or more."
            )
        if self.retries < 0:
            return f"--predictor_request_retries is {self.retries}; set it to 0 or more."
        if self.use_tls and self.ca_bundle and not Path(self.ca_bundle).exists():
            return (
                f"{'/'.join(CA_VARIABLES)} names {self.ca_bundle}, which does not exist; "
                "mount the CA bundle there or unset the variable."
            )
        return None
