"""What the report knows of the deployment."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from runs import Start
from tree import SETTINGS, Tree

from shadow_local.report import comparison
from shadow_local.translate.document import render, repository
from shadow_local.translate.routes import mirror_percentage


@pytest.mark.parametrize("topology", ["standard", "knative"])
@pytest.mark.parametrize("percentage", ["100", "12.5", "0.01"])
def test_the_mirrored_share_is_read_from_the_manifests(
    tmp_path: Path, topology: str, percentage: str
) -> None:
    """In either topology it is the one of the settings; a stage without copies has none."""
    tree = Tree(tmp_path)
    tree.choose_topology(topology)
    tree.replace(SETTINGS, 'mirror-percentage: "100"', f'mirror-percentage: "{percentage}"')
    assert mirror_percentage(render(tree.folder)) == float(percentage)
    assert mirror_percentage(render(tree.folder / "manifests/stages/mirroring-off")) is None


def test_the_report_gets_the_mirrored_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """As MIRROR_PERCENTAGE, unless that is set by hand or nothing is mirrored."""
    monkeypatch.delenv("MIRROR_PERCENTAGE", raising=False)
    assert comparison("postgresql://", 12.5, [])[1]["MIRROR_PERCENTAGE"] == "12.5"
    assert comparison("postgresql://", 100.0, [])[1]["MIRROR_PERCENTAGE"] == "100"
    assert "MIRROR_PERCENTAGE" not in comparison("postgresql://", None, [])[1]
    monkeypatch.setenv("MIRROR_PERCENTAGE", "10")
    assert comparison("postgresql://", 12.5, [])[1]["MIRROR_PERCENTAGE"] == "10"


def test_help_is_the_one_of_compare(start: Start, tmp_path: Path) -> None:
    """`make report ARGS=--help` shows the options that ARGS takes, also when nothing runs."""
    run = start("report", "--help", "--folder", str(tmp_path))
    assert run.ends() == 0
    assert "--max-disagreement" in run.output.read_text()


def test_a_mistyped_option_is_answered_with_what_can_be_typed(start: Start) -> None:
    """The report's own name may be on no PATH."""
    run = start("report", "--hmtl", "x", POSTGRES_URI="postgresql://127.0.0.1:9/x")
    assert run.ends() == 2
    output = run.output.read_text()
    assert "No such option: --hmtl" in output
    assert "`make report ARGS=--help`" in output


def test_a_frozen_postgres_is_said(start: Start, tmp_path: Path) -> None:
    """It takes the connection and never answers; the report does not wait for it without an end."""
    with socket.create_server(("127.0.0.1", 0)) as frozen:
        uri = f"postgresql://postgres@127.0.0.1:{frozen.getsockname()[1]}/postgres"
        (tmp_path / "state.json").write_text(json.dumps({"postgres_uri": uri}))
        run = start("report", "--folder", str(tmp_path))
        assert run.ends() == 1
    said = run.output.read_text()
    assert "Postgres of the running `make up` does not answer" in said
    assert "timeout expired" in said
    assert "Traceback" not in said


def test_a_database_is_judged_by_the_repositorys_manifests(
    start: Start, tmp_path: Path, postgres_uri: str
) -> None:
    """With POSTGRES_URI nothing has to run here."""
    page = tmp_path / "report.json"
    run = start("report", "--folder", str(tmp_path), "--json", str(page), POSTGRES_URI=postgres_uri)
    assert run.ends() in (11, 12)
    assert json.loads(page.read_text())["pairs"] is not None


def test_a_page_in_the_root_is_ignored_by_git() -> None:
    """The README's --html report.html does not show up as a change of the repository."""
    assert "/report.html" in (repository() / ".gitignore").read_text().splitlines()
