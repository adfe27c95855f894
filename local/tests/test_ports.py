"""Ports that are given out are free, and given out once."""

from __future__ import annotations

import socket

import pytest

from shadow_local.ports import PortBusy, claim, free_port, is_free


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_someone_listens_on_is_not_free(host: str) -> None:
    """Whether it listens on one address or on all."""
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) != port
        with pytest.raises(PortBusy, match=rf"Port {port} \(gateway\) is in use; .* GATEWAY_PORT"):
            claim(port, "gateway", "GATEWAY_PORT")


def test_no_port_is_given_out_twice() -> None:
    """A port that was given out stays that one's, although nobody listens on it yet."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
    assert free_port(ports[0]) != ports[0]
