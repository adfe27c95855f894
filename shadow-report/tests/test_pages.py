"""What is listed elsewhere is what there is: variables and metrics. Each message names the file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.core import Metric
from pydantic_settings import BaseSettings

import shadow_report
from shadow_report import settings
from shadow_report.live.metrics import Health, Standings
from shadow_report.replay.metrics import Metrics

REPOSITORY = Path(__file__).parents[2]
README = "shadow-report/README.md"
FORMS = "local/src/shadow_local/translate/forms.yaml"
VARIABLES = "| variable | meaning |\n"


def variables() -> Iterator[str]:
    """Those that settings read, and those that any module asks for by name."""
    for each in vars(settings).values():
        if isinstance(each, type) and issubclass(each, BaseSettings):
            yield from map(str.upper, each.model_fields)
    for file in Path(shadow_report.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case (
                    ast.Call(
                        func=ast.Attribute(value=ast.Attribute(attr="environ")),
                        args=[ast.Constant(value=str(name)), *_],
                    )
                    | ast.Subscript(
                        value=ast.Attribute(attr="environ"), slice=ast.Constant(value=str(name))
                    )
                ):
                    yield name


def test_every_variable_has_its_row() -> None:
    """And every row its variable."""
    table = (REPOSITORY / README).read_text().partition(VARIABLES)[2].partition("\n\n")[0]
    listed, read = set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)), set(variables())
    assert not read - listed, f"{README}, the table of variables: no row for {read - listed}"
    assert not listed - read, f"{README}, the table of variables: nobody reads {listed - read}"


def test_every_variable_is_known_to_the_check() -> None:
    """Else the check of a deployment warns of one that is read."""
    forms = yaml.safe_load((REPOSITORY / FORMS).read_text())["shadow-report"]
    without = set(variables()) - {*forms["also"], *forms["properties"]}
    assert not without, f"{FORMS}, shadow-report: neither a form nor `also` has {without}"


VERDICT = Standings(list, lambda: Health(True, 0, {}), lambda: 0, timedelta())
FOLLOWER = Metrics("http://candidate", lambda: 0, lambda: 0).registry


@pytest.mark.parametrize(
    ("families", "page", "heading"),
    [
        (VERDICT.collect(), "docs/live.md", "## Metrics"),
        (FOLLOWER.collect(), "manifests/README.md", "## The follower"),
    ],
    ids=["live verdict", "follower"],
)
def test_every_metric_is_on_its_page(families: Iterator[Metric], page: str, heading: str) -> None:
    """By the name that Prometheus shows; and none that nobody has."""
    section = (REPOSITORY / page).read_text().partition(f"{heading}\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"`(shadow_\w+)", section))
    exposed = {f"{each.name}{'_total' * (each.type == 'counter')}" for each in families}
    assert not exposed - listed, f"{page}, {heading}: nothing of {exposed - listed}"
    assert not listed - exposed, f"{page}, {heading}: nobody has {listed - exposed}"
