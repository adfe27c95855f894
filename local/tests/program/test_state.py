"""Each kustomization has data of its own."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadow_local.state import data_folder
from shadow_local.translate.document import repository


def test_the_example_keeps_the_runners_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both topologies run the same models; the root named by hand is the same deployment."""
    monkeypatch.chdir(repository())
    assert data_folder(None) == data_folder(Path()) == data_folder(repository()) == Path()


def test_no_kustomization_shares_data_with_another(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One model's records are never compared with another's, however its folder is written."""
    monkeypatch.chdir(repository())
    own = data_folder(Path("examples/scikit-learn"))
    assert own == Path("kustomizations/examples-scikit-learn")
    assert data_folder(repository() / "examples" / "scikit-learn/") == own
    assert data_folder(tmp_path) not in (own, Path())
