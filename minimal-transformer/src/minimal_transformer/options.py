"""All that a start is told: KServe's arguments and the settings in the environment."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from kserve import context, model_server
from kserve.constants.constants import (
    DEFAULT_GRPC_PORT,
    DEFAULT_HTTP_PORT,
    DEFAULT_HTTPS_PORT,
)
from kserve.predictor_config import PredictorConfig

from minimal_transformer.predictor.settings import PredictorSettings
from minimal_transformer.server_settings import ServerSettings
from minimal_transformer.settings import RecordSettings, SettingsError

_Settings = TypeVar("_Settings")

# Longer than what calls us keeps an idle connection: Envoy an hour, Knative's queue-proxy 90 s.
# Whoever sends a call over a connection in the moment that we close it, as KServe does after 65 s,
# gets no answer, and a mirrored copy is lost.
KEEP_ALIVE_SECONDS = 3660


class DefaultPort(int):
    """A port that nobody asked for."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a server is made from."""

    args: argparse.Namespace
    records: RecordSettings
    server: ServerSettings
    predictor: PredictorSettings

    @classmethod
    def read(cls, argv: Sequence[str] | None) -> Self:
        """The options, or SettingsError with a line for each bad one."""
        args = _arguments(argv)
        problems: list[str] = []
        records = _or_problem(RecordSettings.from_environment, problems)
        server = _or_problem(ServerSettings.from_environment, problems)
        predictor = _or_problem(lambda: _predictor_settings(args), problems)
        if records is None or server is None or predictor is None:
            raise SettingsError("\n".join(problems))
        return cls(args, records, server, predictor)


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="minimal-transformer",
        description="Forwards each call to the predictor and records it in Postgres. "
        "POSTGRES_URI and SHADOW_ROLE must be set; see README.md for the other variables.",
        parents=[model_server.parser],
        allow_abbrev=False,
    )
    # KServe logs a line per call by default; ACCESS_LOG=1 does it with the pair id.
    parser.set_defaults(
        enable_latency_logging=False,
        grpc_port=DefaultPort(DEFAULT_GRPC_PORT),
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    args = parser.parse_args(argv)
    if args.ssl_certfile and args.ssl_keyfile and args.http_port == DEFAULT_HTTP_PORT:
        args.http_port = DEFAULT_HTTPS_PORT
    return args


def _predictor_settings(args: Any) -> PredictorSettings:
    config = PredictorConfig(
        args.predictor_host,
        args.predictor_protocol,
        args.predictor_use_ssl,
        args.predictor_request_timeout_seconds,
        args.predictor_request_retries,
        args.enable_predictor_health_check,
    )
    context.set_predictor_config(config)
    settings = PredictorSettings.of(args.model_name, config)
    if problem := settings.problem():
        raise SettingsError(problem)
    return settings


def _or_problem(read: Callable[[], _Settings], problems: list[str]) -> _Settings | None:
    """The settings, or None and one more problem."""
    try:
        return read()
    except SettingsError as failure:
        problems.append(str(failure))
        return None
