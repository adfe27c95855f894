"""Every setting, every metric and every protocol stands in all of its places.

Nothing here lists them, so that a new one is looked for at once. Each message names the file that
lacks it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from minimal_transformer.exchange import Protocol
from minimal_transformer.metrics import Counters, RecordMetrics
from minimal_transformer.settings import _REMEDIES, CA_VARIABLES, _EnvironmentSettings

REPOSITORY = Path(__file__).parents[2]
SCHEMA = "manifests/database/schema.sql"
README = "minimal-transformer/README.md"
SETTINGS = "minimal-transformer/src/minimal_transformer/settings.py"


def first_column(head: str) -> set[str]:
    """The names there, each in backticks, of the table that begins with this line."""
    page = (REPOSITORY / README).read_text()
    table = page.partition(f"{head}\n")[2].partition("\n\n")[0]
    cells = (line.split("|")[1] for line in table.splitlines()[1:])
    return {name for cell in cells for name in re.findall(r"`(\w+)[^`]*`", cell)}


def settings(group: type[_EnvironmentSettings] = _EnvironmentSettings) -> dict[str, dict[str, Any]]:
    """Of each field of every group of settings its JSON Schema."""
    found = dict(group.model_json_schema().get("properties", {}))
    for below in group.__subclasses__():
        found |= settings(below)
    return found


def takes_any_text(schema: dict[str, Any]) -> bool:
    """Whether the type alone refuses nothing that the environment can say."""
    of = schema.get("items", schema)
    return of.get("type") == "string" and not schema.keys() - {"title", "default", "type", "items"}


def test_every_setting_has_its_row() -> None:
    """And every row its setting."""
    listed = first_column("| variable | default | meaning |")
    read = {*map(str.upper, settings()), *CA_VARIABLES}
    assert not read - listed, f"{README}, *Settings*: no row for {read - listed}"
    assert not listed - read, f"{README}, *Settings*: {SETTINGS} has no {listed - read}"


def test_every_setting_that_may_be_refused_has_its_remedy() -> None:
    """Without one the start ends in pydantic's words. A text that may be anything needs none, and
    where a validator of ours refuses it, that says what to write.
    """
    bounded = {name for name, schema in settings().items() if not takes_any_text(schema)}
    lacking = bounded - _REMEDIES.keys()
    assert not lacking, f"{SETTINGS}, _REMEDIES: no line for {lacking}"
    stray = _REMEDIES.keys() - settings().keys()
    assert not stray, f"{SETTINGS}, _REMEDIES: no setting is called {stray}"


def test_every_metric_has_its_row(tmp_path: Path) -> None:
    """By the name that Prometheus shows; and every row its metric."""
    families: Iterator[Any] = RecordMetrics(Counters(None), tmp_path).collect()
    exposed = {f"{each.name}{'_total' * (each.type == 'counter')}" for each in families}
    listed = first_column("| metric | meaning |")
    assert not exposed - listed, f"{README}, the table of metrics: no row for {exposed - listed}"
    assert not listed - exposed, f"{README}, the table of metrics: nobody has {listed - exposed}"


def test_every_protocol_may_be_stored() -> None:
    """Else its rows are refused, and set aside as dead letters."""
    [check] = re.findall(
        r"^    protocol .*\n +CHECK \((.*)\)", (REPOSITORY / SCHEMA).read_text(), re.MULTILINE
    )
    stored, named = set(re.findall(r"'(\w+)'", check)), set(get_args(Protocol))
    assert stored == named, f"{SCHEMA}, the CHECK of protocol, against exchange.py, Protocol"
