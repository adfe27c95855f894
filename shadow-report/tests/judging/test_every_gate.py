"""Every gate stands wherever gates are named, and every setting wherever settings are.

Nothing here lists them: the gates are those that evidence of every kind brings, so that a new one
is looked for at once. Each message names the file that lacks it.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
import yaml

from shadow_report import cli
from shadow_report.answers.kinds import Tolerance
from shadow_report.answers.paths import RequestField, Rules
from shadow_report.assemble import Observed
from shadow_report.cli import app
from shadow_report.counting.trials import TrialTally
from shadow_report.judging.gates import judge
from shadow_report.judging.questions import Evidence, Margins
from shadow_report.judging.rates import Net, Rate, Unmirrored
from shadow_report.report import Gate
from shadow_report.settings import Comparison, NoiseFloor, TimeUnit
from shadow_report.wording import GATE_TITLES

REPOSITORY = Path(__file__).parents[3]
VERDICT_PAGE = REPOSITORY / "docs/verdict.md"
FORMS = REPOSITORY / "local/src/shadow_local/translate/forms.yaml"
# A value that is not the default, by the type of a setting; a setting of a new type needs one here.
ANOTHER: dict[Any, object] = {
    str | None: "other",
    bool: True,
    int: 7,
    float: 0.25,
    float | None: 1.0,
    timedelta: timedelta(minutes=7),
    datetime | None: datetime(2026, 11, 26, tzinfo=UTC),
    tuple[str, ...]: ("a", "b"),
    tuple[RequestField, ...]: (RequestField.of("user"),),
    RequestField | TimeUnit | None: RequestField.of("user"),
    NoiseFloor: "auto",
    Rules: Rules(Tolerance(1.0, 1.0)),
}
# Factors of a margin; less than one makes no sense.
FACTORS = {"newest_factor": 2.0, "worst_factor": 2.0}
# The rules stand there themselves, and each margin.
NOT_FINGERPRINTED = {"rules_by_protocol", "margins"}


def others(settings: type[Comparison | Margins]) -> dict[str, Any]:
    """By the name of a setting, another value than its default."""
    types = get_type_hints(settings)
    names = {each.name for each in fields(settings)} - NOT_FINGERPRINTED
    unknown = {str(types[name]) for name in names} - {*map(str, ANOTHER)}
    assert not unknown, f"test_every_gate.py, ANOTHER lacks a value of the type {unknown}"
    return {name: FACTORS.get(name, ANOTHER[types[name]]) for name in sorted(names)}


def figures(settings: type[Comparison | Margins]) -> dict[str, Any]:
    """The numbers among them that are None by default."""
    off = {each.name for each in fields(settings) if each.default is None}
    given = others(settings).items()
    return {name: value for name, value in given if name in off and type(value) in (int, float)}


ASKED = Comparison(**figures(Comparison), margins=Margins(**figures(Margins)))
"""Each figure that is off until its option is given."""
COUNTED = TrialTally(ASKED, 0, 1_000_000)


def gates() -> Iterator[str]:
    """Those of evidence that has a count in every place for one."""
    types = get_type_hints(Evidence)
    counts = {
        each.name: Rate(0, 9) if types[each.name] in (Rate, Rate | Unmirrored) else Net(0, 0, 9)
        for each in fields(Evidence)
        if types[each.name] in (Rate, Rate | Unmirrored, Net | None)
    }
    evidence = Evidence(**counts, scans=COUNTED.scans(), slices=())  # type: ignore[arg-type]
    return (gate.name for gate in judge(evidence, ASKED.margins))


def table_of_gates() -> set[str]:
    table = VERDICT_PAGE.read_text().partition("| gate | counts |")[2].partition("\n\n")[0]
    return set(re.findall(r"^\| (\w+) \|", table, re.MULTILINE))


def test_every_gate_has_its_names() -> None:
    """Its title in the report, its row on the page, its name in what describes the JSON."""
    known = list(gates())
    assert GATE_TITLES.keys() == set(known), "wording.py, GATE_TITLES"
    assert table_of_gates() == set(known), "docs/verdict.md, the table of the gates"
    described = set(re.findall(r"`(\w+)`", (Gate.__doc__ or "").partition("estimate:")[0]))
    assert described == set(known), "report.py, the docstring of Gate"


def test_what_is_counted_is_asked() -> None:
    """A count without its question would never be judged."""
    without = COUNTED.gates.keys() - set(gates())
    assert not without, f"counting/trials.py counts {without}; judging/questions.py does not ask"


def test_what_is_asked_is_counted() -> None:
    """Every kind of evidence that a gate may rest on is filled from the counters."""
    [call] = [
        node
        for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(Observed._evidence))))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Evidence"
    ]
    filled = {keyword.arg for keyword in call.keywords}
    assert filled == {each.name for each in fields(Evidence)}, "assemble.py, Observed._evidence"


@pytest.mark.parametrize("name", others(Comparison))
def test_every_setting_is_in_the_fingerprint(name: str) -> None:
    """Reports with one fingerprint were judged alike."""
    changed = replace(Comparison(), **{name: others(Comparison)[name]})
    assert changed.sha256() != Comparison().sha256(), f"settings.py, as_plain lacks {name}"


@pytest.mark.parametrize("name", others(Margins))
def test_every_margin_is_in_the_fingerprint(name: str) -> None:
    changed = Comparison(margins=replace(Margins(), **{name: others(Margins)[name]}))
    assert changed.sha256() != Comparison().sha256(), f"settings.py, as_plain lacks {name}"


@pytest.mark.parametrize("of", [Comparison, Margins])
def test_every_setting_is_an_option(of: type) -> None:
    """The command line fills each field by its name; one that nobody can set is not a setting."""
    calls = [node for node in ast.walk(ast.parse(inspect.getsource(cli))) if type(node) is ast.Call]
    filled = {keyword.arg for call in calls for keyword in call.keywords}
    without = {each.name for each in fields(of)} - filled - {"rules_by_protocol"}
    assert not without, f"cli.py has no option that fills {without}"


def test_every_option_of_the_live_verdict_is_a_variable() -> None:
    """`serve` reads each from its environment, so the check of a deployment has to list it."""
    serve = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    prefix = serve.context_settings["auto_envvar_prefix"]
    read = {f"{prefix}_{p.name.upper()}" for p in serve.params if p.name != "help"}
    also = yaml.safe_load(FORMS.read_text())["shadow-report"]["also"]
    assert {name for name in also if name.startswith("SERVE_")} == read, str(FORMS)
