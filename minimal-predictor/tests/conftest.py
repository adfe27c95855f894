"""A real predictor as a child process, for the tests that talk to it."""

import sys
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

# `import kserve` parses the command line; pytest's own is not meant for it.
_argv, sys.argv = sys.argv, sys.argv[:1]
import kserve  # noqa: E402, F401

sys.argv = _argv

from served import Predictor  # noqa: E402

# A busy machine is not a fault of the code; an example that takes long is judged by its result.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")


@pytest.fixture(scope="session")
def predictor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Predictor]:
    """A predictor with FACTOR=2, shared by the tests that only call it."""
    with Predictor(tmp_path_factory.mktemp("predictor"), FACTOR="2") as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a predictor of the test's own keeps its log."""
    return tmp_path
