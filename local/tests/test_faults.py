"""A shadow that fails in any way changes no caller's answer, through a real Envoy."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from backends import Backend, answering, refusing, resetting, stuck, unreachable
from calls import post
from gateways import Gateways, StartGateway, rendered
from tree import MIRRORED, Tree
from waiting import until

from shadow_local.translate.document import render

# Either side of every buffer on the way, of the guard at 1 MB, and what a model may be sent.
SIZES = (200, 50_000, 400_000, 999_999, 1_000_000, 8_000_000)
CALLS_PER_SIZE = 6
# Each may go one beyond a limit that another one has just reached.
ENVOY_THREADS = 2
FAULTS: dict[str, Callable[[], AbstractContextManager[Backend]]] = {
    "answers 500": lambda: answering("shadow", status=500),
    "never answers": lambda: answering("shadow", hold=True),
    "never reads": stuck,
    "resets": resetting,
    "is down": refusing,
    "swallows packets": unreachable,
}


@pytest.mark.parametrize("topology", MIRRORED)
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_every_call_is_answered_by_the_primary(
    start_gateway: StartGateway,
    primary: Backend,
    topology: str,
    fault: Callable[[], AbstractContextManager[Backend]],
) -> None:
    """Calls of 200 B to 8 MB end while the shadow's fault lasts: none of them waits for it."""
    sizes = [size for size in SIZES for _ in range(CALLS_PER_SIZE)]
    with fault() as shadow:
        gateway = start_gateway(primary.port, shadow.port, topology)
        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(lambda n: post(gateway.predict_url, b"x" * n), sizes))
    assert {(status, body) for status, _, body in answers} == {(200, b'{"from": "primary"}')}
    assert sorted(call.size for call in primary.calls) == sizes


def test_small_buffers_hold_what_a_smaller_limit_lets_through(
    gateways: Gateways, primary: Backend, tmp_path: Path
) -> None:
    """With Istio's profile EDGE and bodies of up to four digits, a stuck shadow holds up nobody."""
    tree = Tree(tmp_path / "tree")
    tree.choose_settings(tree.settings() | {"mirror-content-length": "[0-9]{1,4}"})
    sizes = [size for size in (200, 9_999, 10_000, 400_000) for _ in range(CALLS_PER_SIZE)]
    with stuck() as shadow:
        manifests = render(tree.folder)
        gateway = gateways.start_from(manifests, primary.port, shadow.port, edge=True)
        with ThreadPoolExecutor(8) as callers:
            answers = list(callers.map(lambda n: post(gateway.predict_url, b"x" * n), sizes))
    assert [status for status, _, _ in answers] == [200] * len(sizes)
    assert sorted(call.size for call in primary.calls) == sizes


@pytest.mark.parametrize("topology", MIRRORED)
def test_a_silent_shadow_holds_no_more_than_its_limits(
    start_gateway: StartGateway, primary: Backend, topology: str
) -> None:
    """Copies beyond the DestinationRule's limits are dropped at once; their calls are answered."""
    rules = [item for item in rendered(topology) if item["kind"] == "DestinationRule"]
    rule = next(item for item in rules if "-grpc." not in item["spec"]["host"])
    pool = rule["spec"]["trafficPolicy"]["connectionPool"]
    connections = pool["tcp"]["maxConnections"]
    waiting = pool["http"]["http1MaxPendingRequests"]
    calls = connections + waiting + 100
    with answering("shadow", hold=True) as shadow:
        gateway = start_gateway(primary.port, shadow.port, topology)
        with ThreadPoolExecutor(16) as callers:
            answers = list(callers.map(lambda _: post(gateway.predict_url), range(calls)))
        assert {status for status, _, _ in answers} == {200}
        assert len(primary.calls) == calls
        waits, overflows = (
            lambda name=name: _stat(gateway.admin_url, rule["spec"]["host"], name)
            for name in ("upstream_rq_pending_active", "upstream_rq_pending_overflow")
        )
        until(lambda: len(shadow.calls) + waits() + overflows() == calls)
        dropped = overflows()
        assert 0 <= len(shadow.calls) - connections < ENVOY_THREADS
        assert 0 <= calls - dropped - connections - waiting <= ENVOY_THREADS
        shadow.release()
        until(lambda: len(shadow.calls) == calls - dropped)
        assert set(shadow.pair_ids) < set(primary.pair_ids)


def _stat(admin_url: str, host: str, name: str) -> int:
    """A figure of Envoy about the requests for a host."""
    opener = build_opener(ProxyHandler({}))
    with opener.open(f"{admin_url}/stats?filter={name}") as response:
        lines = response.read().decode().splitlines()
    return sum(int(line.rsplit(" ", 1)[1]) for line in lines if host in line)
