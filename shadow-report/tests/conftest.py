"""What holds for every test of the report, and a real browser for the pages: the system's Chromium,
driven by Playwright.
"""

from __future__ import annotations

import gc
import os
import shutil
from collections.abc import Iterator

import hypothesis
import pytest
from playwright.sync_api import Browser, sync_playwright

# Until all tests are imported, as the program itself: that is half of a collection's CPU.
gc.disable()
# A busy machine is not a fault of the code; an example that takes long is judged by its result.
hypothesis.settings.register_profile(
    "patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("patient")

NAMES = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable", "chrome"),
)
# Headless in a container, and quiet: none of the browser's own traffic.
ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def pytest_collection_finish() -> None:
    """From here on garbage is collected, and not among what was imported."""
    gc.freeze()
    gc.enable()


def browser_path() -> str | None:
    """CHROMIUM, or the first browser on PATH that Playwright's Chromium driver can steer."""
    named = os.environ.get("CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The browser, for one module: Playwright holds an event loop while it runs.

    Without a browser the test is skipped, and in CI it fails.
    """
    path = browser_path()
    if path is None:
        missing = "No Chromium: `apt-get install chromium-headless-shell`, or name one in CHROMIUM."
        if os.environ.get("CI"):
            pytest.fail(missing)
        pytest.skip(missing)
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield running
        running.close()
