"""`make pictures`: the README's pictures, from the demo's own pages in a real browser.

Run by shadow-report's Python, which has Playwright for its tests. CHROMIUM names another browser.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

# The first screen of the page, down to the list of its sections.
WIDTH, HEIGHT, SCALE = 960, 500, 1.5
NAMES = (
    *("chromium-headless-shell", "chromium", "chromium-browser"),
    *("google-chrome", "google-chrome-stable", "chrome"),
)


def main(pages: Path, pictures: Path) -> None:
    """Photograph every page of a folder, in light and in dark."""
    browser_path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if browser_path is None:
        sys.exit("No Chromium: `apt-get install chromium-headless-shell`, or name one in CHROMIUM.")
    pictures.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        for page in sorted(pages.glob("*.html")):
            for scheme in ("light", "dark"):
                picture = pictures / f"{page.stem}-{scheme}.png"
                photograph(browser, page, picture, scheme)
                print(f"{picture}: {picture.stat().st_size // 1024} kB")
        browser.close()


def photograph(browser: Browser, page: Path, picture: Path, scheme: str) -> None:
    """The first screen of one page."""
    context = browser.new_context(
        viewport={"width": WIDTH, "height": HEIGHT},
        device_scale_factor=SCALE,
        color_scheme="dark" if scheme == "dark" else "light",
    )
    tab = context.new_page()
    tab.goto(page.resolve().as_uri())
    tab.screenshot(path=picture)
    context.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
