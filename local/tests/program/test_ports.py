"""Ports that are given out are free, and given out once."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from backends import Backend
from runs import PRIMARY_ALONE

from shadow_local.ports import PortBusy, claim, free_port, is_free
from shadow_local.stack import Options, Stack


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_port_that_someone_listens_on_is_not_free(host: str) -> None:
    """Whether it listens on one address or on all."""
    with socket.create_server((host, 0)) as taken:
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) != port
        with pytest.raises(PortBusy, match=rf"Port {port} \(gateway\) is in use; .* GATEWAY_PORT"):
            claim(port, "gateway", "GATEWAY_PORT")


def test_a_port_of_a_connection_that_has_just_ended_is_not_called_someones(
    shadow: Backend,
) -> None:
    """Nobody listens there, and no server could: the message says which ports are never taken."""
    with socket.create_connection(("127.0.0.1", shadow.port)) as connection:
        port = connection.getsockname()[1]
    with pytest.raises(PortBusy, match=rf"Port {port} \(gateway\) is an outgoing conn.* 32768"):
        claim(port, "gateway", "GATEWAY_PORT")


@pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 takes Linux; run it there")
def test_what_listens_on_another_address_is_not_in_the_gateways_way() -> None:
    """As the gateway itself, which listens on 127.0.0.1 alone."""
    port = free_port()
    with socket.create_server(("127.0.0.2", port)):
        assert claim(port, "gateway", "GATEWAY_PORT") == port
        assert not is_free(port)


def test_ports_that_connections_are_given_are_not_preferred() -> None:
    """A server that is started again by hand would find its port taken."""
    assert free_port(40_000) < 32_768


def test_no_port_is_given_out_twice() -> None:
    """A port that was given out stays that one's, although nobody listens on it yet."""
    ports = [free_port() for _ in range(500)]
    assert len(set(ports)) == len(ports)
    assert free_port(ports[0]) != ports[0]


CLAIMS = "from shadow_local.ports import free_port; print(free_port(), flush=True); input()"


def test_a_port_that_another_run_has_claimed_is_not_given_out() -> None:
    """Although nobody listens on it yet; once that run has ended, it is."""
    command = [sys.executable, "-c", CLAIMS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        port = int(other.stdout.readline())
        assert is_free(port)
        assert free_port(port) != port
        other.kill()
    assert free_port(port) == port


@pytest.mark.parametrize("who", ["gateway", "primary-transformer"])
def test_a_port_that_is_lost_meanwhile_is_named(tmp_path: Path, who: str) -> None:
    """Whoever takes it after it was chosen: one line with the variable that a user can set, not
    with an option of the server that found it taken."""
    gateway_port = free_port()
    stack = Stack(Options(tmp_path, Path(PRIMARY_ALONE), gateway_port=gateway_port))
    lost: list[int] = []
    with contextlib.ExitStack() as taking:

        def take_it(step: str) -> None:
            if step == "starting Postgres":  # the ports are chosen, and no server has begun
                lost.append(gateway_port if who == "gateway" else stack._ports[who].http)
                taking.enter_context(socket.create_server(("0.0.0.0", lost[0])))

        try:
            with pytest.raises(PortBusy, match=r" was .* GATEWAY_PORT to") as refused:
                stack.start(take_it)
            assert str(refused.value).startswith(f"Port {lost[0]} ({who}) was ")
        finally:
            stack.stop()
