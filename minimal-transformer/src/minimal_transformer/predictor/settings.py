"""How to reach the predictor, from KServe's own arguments and the CA variables it honours."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from kserve.predictor_config import PredictorConfig

# KServe sets the first on a transformer whose predictor has TLS; the second is its fallback.
CA_VARIABLES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


@dataclass(frozen=True, slots=True)
class PredictorSettings:
    """Where the predictor is and how long a call to it may take."""

    model_name: str
    host: str | None
    protocol: Literal["v1", "v2", "grpc-v2"]
    use_tls: bool
    timeout_seconds: float
    retries: int
    ca_bundle: str | None

    @classmethod
    def of(cls, model_name: str, config: PredictorConfig) -> Self:
        """The settings in KServe's arguments and this process's environment."""
        bundles = (os.environ.get(variable) for variable in CA_VARIABLES)
        return cls(
            model_name=model_name,
            host=config.predictor_host or None,
            protocol=config.predictor_protocol,
            use_tls=bool(config.predictor_use_ssl),
            timeout_seconds=float(config.predictor_request_timeout_seconds),
            retries=int(config.predictor_request_retries),
            ca_bundle=next((bundle for bundle in bundles if bundle), None),
        )

    @property
    def base_url(self) -> str:
        """The predictor's address for REST, without a path."""
        return f"{'https' if self.use_tls else 'http'}://{self.host}"

    def problem(self) -> str | None:
        """What keeps these settings from working and what to do, or None."""
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

    def ssl_context(self) -> ssl.SSLContext:
        """A verifying context: the named bundle's authorities, or the system's."""
        if self.ca_bundle is None:
            return ssl.create_default_context()
        if Path(self.ca_bundle).is_dir():
            return ssl.create_default_context(capath=self.ca_bundle)
        return ssl.create_default_context(cafile=self.ca_bundle)
