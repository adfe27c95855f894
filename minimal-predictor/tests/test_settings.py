"""Settings are right, or the start says which variable to set to what."""

import re
from pathlib import Path

import pytest

from minimal_predictor.settings import Settings, read_settings

README = Path(__file__).parents[1] / "README.md"


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without variables the model is `model` and doubles."""
    monkeypatch.delenv("FACTOR", raising=False)
    monkeypatch.delenv("MODEL_NAME", raising=False)
    settings = read_settings()
    assert (settings.model_name, settings.factor) == ("model", 2.0)


def test_an_argument_wins_over_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """--model_name wins over MODEL_NAME."""
    monkeypatch.setenv("MODEL_NAME", "from-environment")
    assert read_settings().model_name == "from-environment"
    assert read_settings("from-argument").model_name == "from-argument"


@pytest.mark.parametrize("factor", ["3", "-0.5", "1e3", "+2", ".5", "0"])
def test_finite_factors_are_taken(factor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any finite decimal number is a factor."""
    monkeypatch.setenv("FACTOR", factor)
    assert read_settings().factor == float(factor)


@pytest.mark.parametrize("factor", ["", "two", "nan", "inf", "1e999", "1_000", " 2", "0x2", "true"])
def test_other_factors_are_refused(factor: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the variable, the value and the remedy."""
    monkeypatch.setenv("FACTOR", factor)
    with pytest.raises(SystemExit) as refusal:
        read_settings()
    assert str(refusal.value) == f'FACTOR is "{factor}"; set it to a finite number such as 2.'


def test_a_name_that_fits_no_path_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The name stands in the path of every call."""
    monkeypatch.setenv("MODEL_NAME", "a/b")
    with pytest.raises(SystemExit, match='MODEL_NAME is "a/b"; set it to letters'):
        read_settings()


def test_every_setting_has_its_row_and_its_remedy() -> None:
    """In the README's table; the remedy is the field's description."""
    listed = set(re.findall(r"^\| `([A-Z_]+)` \|", README.read_text(), re.MULTILINE))
    fields = {name.upper(): field for name, field in Settings.model_fields.items()}
    assert listed == fields.keys(), "README.md, *Settings*, against settings.py"
    without = {name for name, field in fields.items() if not field.description}
    assert not without, f"settings.py: no description of {without}"
