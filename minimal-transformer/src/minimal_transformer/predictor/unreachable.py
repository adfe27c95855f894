"""A predictor that cannot be called, as the log tells it: when that begins and when it ends."""

from __future__ import annotations

import logging

from minimal_transformer.episode import Episode

log = logging.getLogger(__name__)

_LOOK = "check --predictor_host and that the predictor runs"
_TRUST = "have REQUESTS_CA_BUNDLE name the certificate of its authority"
_NO_HOST = ("no such host", _LOOK)
_REFUSED = ("refused", _LOOK)
_TOO_LONG = ("it does not answer a connect", _LOOK)
_UNTRUSTED = ("its certificate is not trusted", _TRUST)
_NO_TLS = ("no TLS", "check --predictor_use_ssl and --predictor_host")
# What aiohttp, gRPC and the system say.
_MEANINGS = {
    "Connection refused": _REFUSED,
    "Connect call failed": _REFUSED,
    "Name or service not known": _NO_HOST,
    "No address associated": _NO_HOST,
    "name resolution": _NO_HOST,
    "lookup": _NO_HOST,
    "DNS": _NO_HOST,
    "timeout": _TOO_LONG,
    "timed out": _TOO_LONG,
    "CERTIFICATE_VERIFY_FAILED": _UNTRUSTED,
    "SSL": _NO_TLS,
    "Ssl": _NO_TLS,
}


class Unreachable(Episode):
    """One line when the predictor is lost and one when it answers again, from each process."""

    def __init__(self, host: str | None) -> None:
        self._host = host
        named = str(host).replace("%", "%%")
        super().__init__(log, f"predictor {named} answers again; it was unreachable %d times.")

    def met(self, failure: str) -> None:
        """A call or a probe found no predictor; `failure` is what the connection's library said."""
        reason, remedy = next(
            (meaning for words, meaning in _MEANINGS.items() if words in failure), (failure, _LOOK)
        )
        self.hit(
            f"predictor {self._host} is unreachable ({reason}), calls are answered 503; {remedy}."
        )


class UnknownModel(Episode):
    """One line when the predictor serves no model of that name, one when it does."""

    def __init__(self, host: str | None, model_name: str) -> None:
        self._what = f"predictor {host} {{}} model {model_name!r}"
        known = self._what.format("knows").replace("%", "%%")
        super().__init__(log, f"{known} now; %d probes failed.")

    def met(self) -> None:
        """A probe was told so."""
        self.hit(
            f"{self._what.format('does not know')}, so this pod is not ready; set --model_name to"
            " the name that the predictor serves."
        )
