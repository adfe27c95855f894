"""The package as somebody else installs it: a wheel in an environment of its own, twenty lines."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from serving import PREDICT, Predictor, Transformer, new_pair, row, stored

PROJECT = Path(__file__).parents[1]
PAGE = PROJECT.parent / "docs" / "your-own-transformer.md"
UV = os.environ.get("UV") or shutil.which("uv") or str(PROJECT.parent / ".tools" / "bin" / "uv")


@pytest.mark.skipif(shutil.which(UV) is None, reason="run it through make, which brings uv along")
def test_the_wheel_and_the_pages_twenty_lines(
    tmp_path: Path, shared_uri: str, predictor: Predictor
) -> None:
    """Installed by its name alone, the page's program serves, transforms, records and delivers."""
    built = tmp_path / "dist"
    run(UV, "build", "--quiet", "--wheel", "--out-dir", built, PROJECT)
    [wheel] = built.glob("minimal_transformer-*.whl")
    run(UV, "venv", "--quiet", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    # The versions are those that the other tests run with.
    pins = ["--constraint", PROJECT / "requirements.lock"]
    run(UV, "pip", "install", "--quiet", "--python", python, *pins, wheel)
    [program, *_] = re.findall(
        r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(program.splitlines()) <= 20
    (tmp_path / "scaled.py").write_text(program)

    class Installed(Transformer):
        pass

    Installed.python = str(python)
    settings = {"MODULE": "scaled", "PYTHONPATH": str(tmp_path)}
    with Installed(tmp_path, shared_uri, predictor.address, **settings) as running:
        pair, sent = new_pair(), b'{"values": [100, 250]}'
        answered = running.post(PREDICT, sent, x_shadow_pair_id=pair)
        assert json.loads(answered.body) == {"predictions": [2.0, 5.0]}, running.log
        assert stored(row(shared_uri, pair), "request") == sent


def run(*words: object) -> None:
    """A command that has to succeed."""
    done = subprocess.run(
        [str(word) for word in words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
