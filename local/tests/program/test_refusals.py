"""What stops a run before it takes traffic is one line: what, where, what to do."""

from __future__ import annotations

import socket
import subprocess
import uuid
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict
from runs import PRIMARY_ALONE, Run, Start, up
from tree import Tree
from waiting import until

from shadow_local import Explained
from shadow_local.ports import free_port
from shadow_local.translate.document import render

UNREACHABLE = "postgresql://me:s3cret@127.0.0.1:1/gone"
SHOWN = "postgresql://me:***@127.0.0.1:1/gone"
URI_FORM = "postgresql://USER:PASSWORD@HOST:PORT/DATABASE"


def test_report_without_a_deployment_says_so(start: Start, tmp_path: Path) -> None:
    """There is nothing to compare before something runs."""
    run = start("report", "--folder", str(tmp_path))
    assert run.ends() == 1
    assert "start `make up` and wait for `ready:`, or set POSTGRES_URI" in run.output.read_text()


def test_a_busy_port_is_named(start: Start, tmp_path: Path) -> None:
    """One line says which port, who wanted it, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = start("up", "--folder", str(tmp_path / "stack"), GATEWAY_PORT=str(port))
        assert run.ends() == 1
    assert run.output.read_text() == (
        f"shadow-local: Port {port} (gateway) is in use; "
        "stop what listens there or set GATEWAY_PORT to another.\n"
    )


def test_a_second_run_in_the_same_folder_is_refused(start: Start, tmp_path: Path) -> None:
    """Two stacks would share one database folder; the second one says who is there."""
    first = up(start, tmp_path / "stack", KUSTOMIZATION=PRIMARY_ALONE)
    _wait_for_lock(tmp_path / "stack")
    without = "primary-predictor"
    second = up(start, tmp_path / "stack", KUSTOMIZATION=PRIMARY_ALONE, WITHOUT=without)
    assert second.ends() == 1
    line = _only_line(second)
    assert f"Process {first.process.pid} already runs in {tmp_path / 'stack'}; stop it" in line
    assert f"GATEWAY_PORT=9000 local/.venv/bin/shadow-local up --folder {tmp_path}" in line
    assert f"`KUSTOMIZATION={PRIMARY_ALONE} WITHOUT={without} GATEWAY_PORT" in line
    first.process.terminate()
    assert first.ends() == 0


def test_the_log_of_an_earlier_run_is_not_left_beside_a_process_started_by_hand(
    start: Start, tmp_path: Path
) -> None:
    """Whoever looks for what it says would read what another one said."""
    folder = tmp_path / "stack" / "kustomizations" / "manifests-stages-primary-alone"
    log = folder / "logs" / "primary-predictor.log"
    log.parent.mkdir(parents=True)
    log.write_text("stopped")
    run = up(start, tmp_path / "stack", KUSTOMIZATION=PRIMARY_ALONE, WITHOUT="primary-predictor")
    assert run.says(r"^waiting for primary-predictor; start it by hand:$")
    assert not log.exists()


def test_a_second_demo_is_told_how_to_run_a_demo(start: Start, tmp_path: Path) -> None:
    """The remedy is the command that was typed, in a folder of its own."""
    first = start("demo", "--folder", str(tmp_path))
    _wait_for_lock(tmp_path / "demo")
    second = start("demo", "--folder", str(tmp_path))
    assert second.ends() == 1
    line = _only_line(second)
    assert f"Process {first.process.pid} already runs in {tmp_path / 'demo'}; stop it" in line
    assert f"own: `local/.venv/bin/shadow-local demo --folder {tmp_path}/second`." in line
    first.ctrl_c()
    first.ends()


@pytest.mark.parametrize(
    ("command", "settings", "words"),
    [
        ("up", {"GATEWAY_PORT": "abc"}, "GATEWAY_PORT is 'abc'; set it to a whole number from 1"),
        ("up", {"GATEWAY_PORT": "70000"}, "GATEWAY_PORT is '70000'; set it to a whole number"),
        ("demo", {"REQUESTS": "abc"}, "REQUESTS is 'abc'; set it to a whole number from 1"),
        (
            "demo",
            {"TOPOLOGY": "mesh"},
            "TOPOLOGY is 'mesh'; set it to follow, knative or standard.",
        ),
        (
            "up",
            {"TOPOLOGY": "follow", "KUSTOMIZATION": "manifests/stages/shadow-added"},
            "write `- follow` there and leave TOPOLOGY out.",
        ),
        (
            "check",
            {"TOPOLOGY": "follow", "KUSTOMIZATION": "manifests/stages/shadow-added"},
            "TOPOLOGY is 'follow', and manifests/stages/shadow-added has the topology of manif",
        ),
        ("up", {"WITHOUT": "green-model"}, "WITHOUT names green-model; it can name primary-pred"),
        (
            "up",
            {"WITHOUT": "primary-predictor, green-model"},
            "WITHOUT names green-model; it can name primary-predictor, primary-transformer, shad",
        ),
        ("up", {"KUSTOMIZATION": "gone"}, "KUSTOMIZATION is 'gone', which holds no kustomization"),
        ("up", {"MIRROR_HOST_SUFFIX": "x"}, "MIRROR_HOST_SUFFIX"),
        (
            "up",
            {"POSTGRES_URI": "host=db user=me"},
            f"is not the URI of a Postgres server; set it to {URI_FORM}",
        ),
        (
            "demo",
            {"POSTGRES_URI": UNREACHABLE},
            f"POSTGRES_URI {SHOWN} cannot be reached (connection",
        ),
        (
            "up",
            {"POSTGRES_URI": UNREACHABLE},
            f"correct the URI ({URI_FORM}), or leave POSTGRES_URI",
        ),
    ],
)
def test_a_wrong_setting_is_one_line(
    start: Start, tmp_path: Path, command: str, settings: dict[str, str], words: str
) -> None:
    """The variable, its value without a password, and the remedy; no trace and no box."""
    port = str(free_port())
    folder = () if command == "check" else ("--folder", str(tmp_path / "stack"))
    run = start(command, *folder, **({"GATEWAY_PORT": port} | settings))
    assert run.ends() == 1
    assert words in _only_line(run)
    assert "s3cret" not in run.output.read_text()


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_model_of_an_example_takes_no_topology(
    start: Start, tmp_path: Path, command: str
) -> None:
    """It has that of the manifests: the option would be ignored."""
    run = start(command, "--model", "llm", "--folder", str(tmp_path), TOPOLOGY="follow")
    assert run.ends() == 1
    line = _only_line(run)
    assert "examples/generative has the topology of manifests/mirroring/kustomization.yaml;" in line
    assert "write `- follow` there and leave TOPOLOGY out." in line


@pytest.mark.parametrize("command", ["demo", "up"])
def test_a_model_that_there_is_not_is_one_line(start: Start, tmp_path: Path, command: str) -> None:
    """And two that exclude each other."""
    run = start(command, "--model", "llama", "--folder", str(tmp_path))
    assert run.ends() == 1
    assert "MODEL is 'llama'; set it to number or llm." in _only_line(run)
    run = start("up", "--model", "llm", "--folder", str(tmp_path), KUSTOMIZATION="examples/runtime")
    assert run.ends() == 1
    assert "MODEL is 'llm', and KUSTOMIZATION 'examples/runtime'; leave one" in _only_line(run)


def test_an_unknown_option_is_one_line(start: Start) -> None:
    """It says where the options stand."""
    run = start("up", "--bogus")
    assert run.ends() == 1
    assert "No such option: --bogus; `shadow-local --help`" in _only_line(run)


def test_a_user_who_may_not_make_the_tables_is_told_how(
    start: Start, tmp_path: Path, empty_postgres_uri: str
) -> None:
    """A database without tables gets them; when it may not, the message names `make schema`."""
    name = f"reader_{uuid.uuid4().hex}"
    with psycopg.connect(empty_postgres_uri, autocommit=True) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN PASSWORD 's3cret'")
    parts = conninfo_to_dict(empty_postgres_uri)
    uri = f"postgresql://{name}:s3cret@{parts['host']}:{parts['port']}/{parts['dbname']}"
    run = up(start, tmp_path / "stack", POSTGRES_URI=uri)
    assert run.ends() == 1
    line = _only_line(run)
    assert f"{name}:***@" in line
    assert "permission denied" in line
    assert "run `make schema` with the URI of a user who may create tables and roles." in line
    with psycopg.connect(empty_postgres_uri, autocommit=True) as connection:
        connection.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize("written", [None, "api-key=sesame\n"])
def test_an_option_without_its_key_says_how_to_write_it(
    start: Start, tmp_path: Path, written: str | None
) -> None:
    """kubectl's own ten lines are left out, of a key by another name too."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    file = tree.folder / "manifests/options/api-key/api-key.env"
    file.unlink()
    if written:
        file.write_text(written)
    run = up(start, tmp_path / "stack", KUSTOMIZATION=str(tree.folder))
    assert run.ends() == 1
    options = tree.folder / "manifests/options"
    assert _only_line(run) == (
        "shadow-local: The option api-key is on and its key is missing; write it by "
        f'`echo "key=$X_API_KEY" > {options}/api-key/api-key.env`, or put a # before the option in '
        f"{options}/kustomization.yaml."
    )


def test_a_remote_base_cannot_have_the_key(tmp_path: Path) -> None:
    """git ignores it, and what kubectl has cloned is gone by the time that somebody reads this."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on("api-key")
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-q", "-m", "base"]):
        author = ["-c", "user.name=a", "-c", "user.email=a@example.com"]
        subprocess.run(["git", *author, *words], cwd=tree.folder, check=True)
    folder = tmp_path / "team"
    folder.mkdir()
    base = f"file://{tree.folder}//manifests/mirroring?ref=main"
    (folder / "kustomization.yaml").write_text(f'resources: ["{base}"]\n')
    with pytest.raises(Explained) as refusal:
        render(folder)
    assert "as it is in every remote base, since git ignores it; put a # bef" in str(refusal.value)
    assert "/kustomize-" not in str(refusal.value)


def test_manifests_that_do_not_render_say_where_to_look(start: Start, tmp_path: Path) -> None:
    """The remedy first, then kubectl's words."""
    (tmp_path / "kustomization.yaml").write_text("resources: [gone.yaml]\n")
    run = up(start, tmp_path / "stack", KUSTOMIZATION=str(tmp_path))
    assert run.ends() == 1
    first, rest = run.output.read_text().split("\n", 1)
    assert first.startswith(f"shadow-local: kubectl cannot render {tmp_path}; mend the file that")
    assert "gone.yaml" in rest


PATCHED = (
    "patches: [{target: {kind: Service}, patch: '- {op: replace, path: /spec/x/1, value: 1}'}]"
)


@pytest.mark.parametrize(
    ("kustomization", "where"),
    [
        ("resources: [below]", "it was at {}/below, so look there and at what you changed last"),
        (
            f"{PATCHED}\nresources: [service.yaml]",
            "its message names no file, so look at what you changed last",
        ),
        (
            """patches: [{patch: '{apiVersion: v1, kind: Service, metadata: {name: a}}'}]
resources: [in-namespace.yaml]""",
            "put `namespace: <profile>` into its metadata",
        ),
        ("components: [gone]", "mend the file that the end of its message names"),
        ("resources: [no-object.yaml]", "mend the file that the end of its message names"),
    ],
)
def test_where_kustomize_tells_less_less_is_said(
    tmp_path: Path, kustomization: str, where: str
) -> None:
    """A file where the end of its message names one, else the folder, else nothing of the kind."""
    service = "{apiVersion: v1, kind: Service, metadata: {name: a}}\n"
    (tmp_path / "service.yaml").write_text(service)
    (tmp_path / "in-namespace.yaml").write_text(service.replace("name: a", "name: a, namespace: b"))
    (tmp_path / "no-object.yaml").write_text("a: [\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below/service.yaml").write_text(service)
    twice = "resources: [service.yaml]\ncomponents: [more]\n"
    (tmp_path / "below/kustomization.yaml").write_text(twice)
    (tmp_path / "below/more").mkdir()
    (tmp_path / "below/more/kustomization.yaml").write_text(
        "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
        "replacements: [{source: {kind: Service, fieldPath: spec.x}, targets: []}]\n"
    )
    (tmp_path / "kustomization.yaml").write_text(kustomization + "\n")
    with pytest.raises(Explained) as refusal:
        render(tmp_path)
    first, words = str(refusal.value).split("\n", 1)
    assert words.startswith("error: ")
    assert where.format(tmp_path) in first.replace("/below/more", "/below"), words


@pytest.mark.parametrize("size", ["4k", "1m", "20m"])
def test_a_full_disk_is_named(start: Start, small_disk: Callable[[str], Path], size: str) -> None:
    """Whether nothing fits or not all of the database: first the remedy, then where it was."""
    disk = small_disk(f"size={size}")
    run = up(start, disk / "stack")
    assert run.ends() == 1
    output = run.output.read_text().removeprefix("starting Postgres\n")
    assert "make room there, or remove what earlier runs left" in output.split("\n", 1)[0]
    assert str(disk) in output
    assert "Traceback" not in output


def test_a_folder_that_may_not_be_written_is_named(start: Start) -> None:
    """No trace; the folder, and what to do. Not even root may make a folder there."""
    run = start("up", "--folder", "/sys/stack", GATEWAY_PORT=str(free_port()))
    assert run.ends() == 1
    assert _only_line(run).startswith("shadow-local: /sys/stack: ")


def _wait_for_lock(folder: Path) -> None:
    until((folder / "lock").exists)
    until(lambda: (folder / "lock").read_text() != "")


def _only_line(run: Run) -> str:
    """The message, when there is nothing else but the steps."""
    lines = run.output.read_text().splitlines()
    other = [line for line in lines if not line.startswith(("starting", "connecting", "waiting"))]
    assert len(other) == 1, run.output.read_text()
    return other[0]
