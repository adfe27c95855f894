"""The retries of a VirtualService's route as Envoy makes them."""

from __future__ import annotations

from typing import Any

from shadow_local.document import Section

DEFAULT_RETRIES = {
    "num_retries": 2,
    "retry_on": "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes",
    "retriable_status_codes": [503],
    "host_selection_retry_max_attempts": 5,
}


def retry_policy(http: Section) -> dict[str, Any] | None:
    """Istio retries twice unless a route says otherwise; None when it says 0 attempts."""
    if not http.has("retries"):
        return DEFAULT_RETRIES
    with http.section("retries") as retries:
        attempts = retries.whole("attempts", 0)
        policy = DEFAULT_RETRIES | {"num_retries": attempts}
        if retries.has("perTryTimeout"):
            policy["per_try_timeout"] = retries.duration("perTryTimeout")
        if retries.has("retryOn"):
            words = [word.strip() for word in retries.text("retryOn").split(",")]
            policy["retriable_status_codes"] = [int(word) for word in words if word.isdigit()]
            policy["retry_on"] = ",".join(word for word in words if not word.isdigit())
    return policy if attempts else None
