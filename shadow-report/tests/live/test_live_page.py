"""The served page in a real browser: it refreshes itself and leaves the reader's place alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect
from test_serve import WRONG, Served, numbered, serving
from traffic import pair, pairs, record

from embedded_postgres import as_role

PATIENCE_MS = 90_000
expect.set_options(timeout=PATIENCE_MS)


@pytest.fixture
def served(postgres_uri: str) -> Iterator[Served]:
    """A shadow with a few wrong answers, far from each other (four in a row may be a bad run,
    whatever else there is), looked at every second.
    """
    wrong = {"answer": WRONG}
    record(
        postgres_uri, [c for i in range(404) for c in pair(i, None, wrong if i % 100 == 50 else {})]
    )
    with serving(as_role(postgres_uri, "report"), "--every", "1s") as served:
        yield served


@pytest.fixture
def opened(browser: Browser, served: Served) -> Iterator[Callable[..., Page]]:
    """Opens the page; it is closed before the service is, also where a test fails."""
    with ExitStack() as pages:

        def opened(**context: Any) -> Page:
            page = browser.new_page(**context)
            pages.callback(page.close)
            page.set_default_timeout(PATIENCE_MS)
            page.goto(served.url)
            return page

        yield opened


def test_it_takes_over_what_is_new_and_keeps_what_is_unfolded(
    opened: Callable[..., Page], postgres_uri: str
) -> None:
    """New pairs appear without a reload; an unfolded pair, the focus and the place stay."""
    page = opened()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.evaluate("window.was_here = true")
    last = page.locator("#worst details").last
    key = last.get_attribute("data-key")
    last.locator("summary").focus()
    page.keyboard.press("Enter")
    expect(last).to_have_attribute("open", "")
    page.wait_for_function("scrollY > 0")
    place = page.evaluate("document.activeElement.getBoundingClientRect().y")
    record(postgres_uri, numbered(pairs(300, first=404), 404))
    expect(page.locator(".tile").first).to_contain_text("704")
    assert page.evaluate("window.was_here") is True
    # What is above may have grown; what is read stays where it is.
    now = page.evaluate("document.activeElement.getBoundingClientRect().y")
    assert abs(now - place) < 3
    unfolded = page.locator(f'#worst details[data-key="{key}"]')
    expect(unfolded).to_have_attribute("open", "")
    assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    assert complaints == []


@pytest.mark.parametrize("reader", ["scrolls", "focuses"])
def test_what_is_read_stays_in_place_whatever_grows_above_it(
    opened: Callable[..., Page], served: Served, reader: str
) -> None:
    """The verdict's text and the sections grow by hundreds of pixels at one refresh, that of the
    pair that is read among them; it stays where it is.
    """
    page = opened(viewport={"width": 900, "height": 600})
    last = page.locator("#worst details").last
    if reader == "focuses":
        last.locator("summary").focus()
    last.evaluate("it => it.scrollIntoView({ block: 'center', behavior: 'instant' })")
    place = last.evaluate("it => it.getBoundingClientRect().y")
    assert page.evaluate("scrollY") > 0

    def grown(route: Route) -> None:
        text = route.fetch().text()
        for end in ("</header>", "</section>", '<table class="worst"'):
            text = text.replace(end, f'<p class="grown" style="height: 300px"></p>{end}', 1)
        route.fulfill(content_type="text/html", body=text)

    page.route(served.url, grown)
    page.wait_for_selector(".grown", state="attached", timeout=PATIENCE_MS)
    # Whatever the browser itself does to the place, it has done two frames later.
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert abs(last.evaluate("it => it.getBoundingClientRect().y") - place) < 3


def test_it_says_when_the_service_is_gone(opened: Callable[..., Page], served: Served) -> None:
    """The last figures stay, marked as such."""
    page = opened()
    served.process.kill()
    expect(page.locator("#age")).to_contain_text("does not answer")
    expect(page.locator("h1")).to_contain_text("WAIT")


def test_it_refreshes_without_a_script(opened: Callable[..., Page], postgres_uri: str) -> None:
    """By itself, as any browser does what the page's head says."""
    page = opened(java_script_enabled=False)
    expect(page.locator(".tile").first).to_contain_text("404")
    record(postgres_uri, numbered(pairs(300, first=404), 404))
    expect(page.locator(".tile").first).to_contain_text("704")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_is_named(opened: Callable[..., Page], width: int, scheme: str) -> None:
    """Nothing sticks out at either width; age and progress have names that are read out."""
    page = opened(viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    expect(page.get_by_role("progressbar", name="Towards the verdict")).to_be_visible()
    expect(page.locator("#age")).to_contain_text("looked at")
    assert page.get_by_role("status").count() == 1
