"""The candidate's address, and where a stored call goes there."""

import re
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from shadow_report.errors import SettingWrong
from shadow_report.replay.stored_calls import StoredCall

MODEL_PATH = re.compile(r"^(?P<base>.*?)/v[12]/models/(?P<model>[^/:]+)(?::\w+|/.*)?$")
EXPLAIN = re.compile(r":explain(?:$|\?)")

# Headers that belong to the connection or to the call's first way through the mesh.
NOT_SENT = {
    "connection",
    "content-encoding",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "x-request-id",
    "x-shadow-pair-id",
}


@dataclass(frozen=True, slots=True)
class Target:
    """A candidate: its address before `/v1` or `/v2`; `model` overrides the stored name."""

    base: str
    model: str | None

    def url(self, call: StoredCall) -> str:
        """Where this call goes: the path of its protocol, with the candidate's model name."""
        model = quote(self.model or call.model_name, safe="")
        if call.protocol == "v1":
            verb = "explain" if EXPLAIN.search(call.predict_url) else "predict"
            return f"{self.base}/v1/models/{model}:{verb}"
        return f"{self.base}/v2/models/{model}/infer"


def parse_target(text: str) -> Target:
    """The address before `/v1`, or a whole predict URL, whose model name then counts."""
    parts = urlsplit(text.strip())
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise SettingWrong(
            f"--to is {text!r}; give the candidate's address, like http://candidate:8080."
        )
    address = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    if match := MODEL_PATH.match(address):
        return Target(match["base"], match["model"])
    return Target(address, None)


def headers_of(call: StoredCall) -> dict[str, str]:
    """The stored headers and the original pair id; JSON is the type unless one was stored."""
    kept = {
        name.lower(): value for name, value in call.headers.items() if name.lower() not in NOT_SENT
    }
    return {"content-type": "application/json", **kept, "x-shadow-pair-id": call.pair_id}


def why_not_sent(call: StoredCall) -> str | None:
    """Why a call cannot be replayed; None when it can."""
    if call.protocol == "grpc":
        return "gRPC"
    if call.body is None:
        return "body not stored whole"
    return None
