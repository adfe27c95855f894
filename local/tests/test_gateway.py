"""The manifests' routes in a real Envoy, with recording servers in place of the transformers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from backends import Backend
from calls import CLIENT_IDS, get, post, post_chunked
from gateways import Gateways, StartGateway
from tree import MIRRORED, Tree
from waiting import until

from shadow_local import Explained
from shadow_local.stack import Options, Stack
from shadow_local.translate.document import render

CREDENTIALS = {"authorization": "Bearer secret", "x-api-key": "secret", "cookie": "session=secret"}
MARKS = {"x-shadow-source": "follow", "x-shadow": "true"}
TOPOLOGIES = [(name, suffix) for name in MIRRORED for suffix in (False, True)]


@pytest.mark.parametrize(("topology", "suffix"), TOPOLOGIES)
def test_primary_answers_and_shadow_gets_a_copy(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, topology: str, suffix: bool
) -> None:
    """In both topologies, with the Host suffix and without, each side gets each call once."""
    gateway = start_gateway(primary.port, shadow.port, topology, suffix)
    for _ in range(20):
        status, _, body = post(gateway.predict_url)
        assert (status, json.loads(body)) == (200, {"from": "primary"})
    until(lambda: len(shadow.calls) == 20)
    assert len(primary.calls) == 20
    assert {call.path for call in primary.calls + shadow.calls} == {"/v1/models/model:predict"}
    assert sorted(primary.pair_ids) == sorted(shadow.pair_ids)
    assert len(set(primary.pair_ids)) == 20


@pytest.mark.parametrize(("topology", "suffix"), TOPOLOGIES)
@pytest.mark.parametrize("ids", CLIENT_IDS.values(), ids=CLIENT_IDS.keys())
def test_any_request_id_of_the_caller_pairs(  # noqa: PLR0917
    start_gateway: StartGateway,
    primary: Backend,
    shadow: Backend,
    topology: str,
    suffix: bool,
    ids: list[str],
) -> None:
    """Whatever x-request-id the caller sends, both copies and the answer carry one pair id."""
    gateway = start_gateway(primary.port, shadow.port, topology, suffix)
    _, headers, _ = post(gateway.predict_url, headers=[("x-request-id", value) for value in ids])
    until(lambda: len(shadow.calls) == 1)
    assert primary.pair_ids == shadow.pair_ids == [headers["x-shadow-pair-id"]]
    assert primary.pair_ids[0]


@pytest.mark.parametrize("topology", MIRRORED)
def test_pair_id_of_the_caller_is_overwritten(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, topology: str
) -> None:
    """Nobody can choose a pair id, so nobody can spoil another call's evidence."""
    gateway = start_gateway(primary.port, shadow.port, topology)
    forged = [("x-shadow-pair-id", "forged"), ("X-Shadow-Pair-Id", "again")]
    _, headers, _ = post(gateway.predict_url, headers=forged)
    until(lambda: len(shadow.calls) == 1)
    for value in (*primary.pair_ids, *shadow.pair_ids, headers["x-shadow-pair-id"]):
        assert "forged" not in value
        assert "again" not in value


@pytest.mark.parametrize("topology", MIRRORED)
def test_credentials_and_a_callers_own_marks_do_not_reach_the_models(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, topology: str
) -> None:
    """By no path does a model see what the caller proved itself with, or a header by which a
    replay, a follower or a transformer says what a call is."""
    gateway = start_gateway(primary.port, shadow.port, topology)
    sent = [*CREDENTIALS.items(), *MARKS.items(), ("x-tenant", "kept")]
    for path in ("mirrored-inference", "double-minimal-inference"):
        url = gateway.predict_url.replace("mirrored-inference", path)
        assert post(url, headers=sent)[0] == 200
    assert post_chunked(gateway.predict_url, [b"x"], headers=sent)[0] == 200
    url = gateway.predict_url.replace("mirrored-inference", "triple-minimal-inference")
    assert post(url, headers=sent)[0] == 200
    until(lambda: len(shadow.calls) == 2 and len(primary.calls) == 3)
    for call in primary.calls + shadow.calls:
        assert not call.headers.keys() & (CREDENTIALS | MARKS).keys()
        assert call.headers["x-tenant"] == "kept"


@pytest.mark.parametrize("topology", MIRRORED)
def test_direct_paths_reach_one_model_each(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, topology: str
) -> None:
    """A direct path reaches its own model alone, without a pair id of the caller's choosing."""
    gateway = start_gateway(primary.port, shadow.port, topology)
    forged = [("x-shadow-pair-id", "forged")]
    for path, model, other in (
        ("double-minimal-inference", primary, shadow),
        ("triple-minimal-inference", shadow, primary),
    ):
        url = gateway.predict_url.replace("mirrored-inference", path)
        _, _, body = post(url, headers=forged)
        assert json.loads(body) == {"from": model.name}
        assert [call.path for call in model.calls] == ["/v1/models/model:predict"]
        assert model.pair_ids == [""]
        assert not other.calls
        model.calls.clear()


@pytest.mark.parametrize("topology", MIRRORED)
def test_large_bodies_are_answered_and_not_mirrored(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, topology: str
) -> None:
    """A body of 1 MB or of unknown length goes to the primary alone; a smaller one to both."""
    gateway = start_gateway(primary.port, shadow.port, topology)
    for size in (1_000_000, 8_000_000):
        status, headers, _ = post(gateway.predict_url, b"x" * size)
        assert (status, bool(headers["x-shadow-pair-id"])) == (200, True)
    assert post_chunked(gateway.predict_url, [b"x", b"yz"])[0] == 200
    assert post(gateway.predict_url, b"x" * 999_999)[0] == 200
    until(lambda: len(shadow.calls) == 1)
    assert [call.size for call in primary.calls] == [1_000_000, 8_000_000, 3, 999_999]
    assert [call.size for call in shadow.calls] == [999_999]


def test_calls_without_the_key_are_refused(
    start_gateway: StartGateway, primary: Backend, shadow: Backend
) -> None:
    """With a key set, no call without it reaches a model by any path."""
    gateway = start_gateway(primary.port, shadow.port, api_key="s3cret")
    for headers in ([], [("x-api-key", "wrong")], [("x-api-key", "s3cret2")]):
        for path in ("mirrored-inference", "triple-minimal-inference"):
            url = gateway.predict_url.replace("mirrored-inference", path)
            assert post(url, headers=headers)[0] == 403
    assert not primary.calls
    assert not shadow.calls
    assert post(gateway.predict_url, headers=[("x-api-key", "s3cret")])[0] == 200


def test_the_key_of_the_option_is_the_only_one(tmp_path: Path) -> None:
    """It is demanded without X_API_KEY too; with another one there no call would pass."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on("api-key")
    for given in (None, "sesame123"):
        assert Stack(Options(tmp_path / "run", tree.folder, api_key=given)).api_key == "sesame123"
    with pytest.raises(Explained, match=f"leave X_API_KEY out.*{tree.folder}/manifests/options"):
        Stack(Options(tmp_path / "run", tree.folder, api_key="another"))


@pytest.mark.parametrize("topology", MIRRORED)
def test_only_inference_passes(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, topology: str
) -> None:
    """Metrics, documentation and the model repository are not for callers, by any way in."""
    gateway = start_gateway(primary.port, shadow.port, topology)
    served = ["v1/models", "v1/models/model", "v2", "v2/models/model/ready", "v2/health/ready"]
    closed = ["", "metrics", "docs", "openapi.json", "v2/repository/index", "v1/modelsx"]
    closed += ["v2/repository/models/model/unload", "v1/models/../../metrics", "v1//models"]
    for way in ("mirrored", "double-minimal", "triple-minimal"):
        url = gateway.entry_url.replace("mirrored", way, 1)
        assert [get(url + path)[0] for path in served] == [200] * len(served)
        assert [get(url + path)[0] for path in closed] == [404] * len(closed)
    arrived = {call.path for call in primary.calls + shadow.calls}
    assert arrived == {f"/{path}" for path in served}


@pytest.mark.parametrize("word", ["websocket", "WebSocket"])
def test_a_web_socket_is_refused(
    start_gateway: StartGateway, primary: Backend, shadow: Backend, word: str
) -> None:
    """What nobody would record does not pass, however its name is spelled."""
    gateway = start_gateway(primary.port, shadow.port)
    upgrade = [("connection", "upgrade"), ("upgrade", word), ("sec-websocket-version", "13")]
    for way in ("mirrored", "double-minimal", "triple-minimal"):
        url = gateway.entry_url.replace("mirrored", way, 1)
        assert get(url + "v1/models/model", [*upgrade, ("sec-websocket-key", "x")])[0] == 403
    assert not primary.calls
    assert not shadow.calls


@pytest.mark.parametrize("topology", MIRRORED)
def test_an_unknown_host_is_unknown_here_too(
    gateways: Gateways, primary: Backend, shadow: Backend, tmp_path: Path, topology: str
) -> None:
    """Only the domain of the settings and this machine's own names are served; `*` is any Host."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    for domain, other in (("inference.example.com", 404), ("*", 200)):
        tree.choose_settings(tree.settings() | {"domain": domain})
        gateway = gateways.start_from(render(tree.folder), primary.port, shadow.port)
        known = ["inference.example.com", "inference.example.com:8443", "localhost:8080"]
        for host in known:
            assert post(gateway.predict_url, headers=[("host", host)])[0] == 200
        for host in ("other.example.com", "inference.example.com.evil.org"):
            assert post(gateway.predict_url, headers=[("host", host)])[0] == other
        expected = len(known) + (2 if domain == "*" else 0)
        until(lambda n=expected: len(primary.calls) == len(shadow.calls) == n)
        primary.calls.clear()
        shadow.calls.clear()


@pytest.mark.parametrize("topology", MIRRORED)
def test_the_entry_may_have_the_primarys_name(
    gateways: Gateways, primary: Backend, shadow: Backend, tmp_path: Path, topology: str
) -> None:
    """KServe's own path as the way in: each call is answered and copied once."""
    tree = Tree(tmp_path / "tree")
    tree.choose_topology(topology)
    tree.choose_settings(tree.settings() | {"entry": "double-minimal-inference"})
    gateway = gateways.start_from(render(tree.folder), primary.port, shadow.port)
    assert gateway.entry_url.endswith("/double-minimal-inference/")
    for _ in range(10):
        assert json.loads(post(gateway.predict_url)[2]) == {"from": "primary"}
    until(lambda: (len(primary.calls), len(shadow.calls)) == (10, 10))


def test_other_paths_lead_nowhere(
    start_gateway: StartGateway, primary: Backend, shadow: Backend
) -> None:
    """Only the three paths exist; one that merely begins like them is unknown."""
    gateway = start_gateway(primary.port, shadow.port)
    for path in ("/", "/v1/models/model:predict", "/serving/other/mirrored-inference/v1/models"):
        assert post(gateway.url + path)[0] == 404
    assert post(gateway.entry_url.rstrip("/") + "-more/v1/models/model:predict")[0] == 404
    assert not primary.calls
