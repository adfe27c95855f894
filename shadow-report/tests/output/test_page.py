"""The page in a real browser: silent, offline, sortable, accessible, safe."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from sample_reports import (
    HOSTILE,
    candidates,
    hostile,
    invalid,
    promoted,
    rejected,
    timeline,
    waiting,
)

from shadow_report.output import write_page
from shadow_report.output.page import render_page
from shadow_report.report import Judged, each_report

ALL = {
    "rejected": rejected(),
    "waiting": waiting(),
    "promoted": promoted(),
    "invalid": invalid(),
    "hostile": hostile(),
    "candidates": candidates(),
}


class Opened:
    """A page and everything that it complained about or asked for."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("request", lambda request: self.requests.append(request.url))


@contextmanager
def opened(
    browser: Browser, report: Judged, tmp_path: Path, scheme: str = "light", width: int = 1180
) -> Iterator[Opened]:
    file = tmp_path / "report.html"
    write_page(report, file)
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 900})  # type: ignore[arg-type]
    try:
        opened = Opened(page)
        page.goto(file.as_uri(), wait_until="load")
        yield opened
    finally:
        page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ALL)
def test_opens_without_complaint_or_request(
    browser: Browser, tmp_path: Path, name: str, scheme: str
) -> None:
    """No console message, no error, no dialog; the file itself is all that is asked for."""
    with opened(browser, ALL[name], tmp_path, scheme) as it:
        it.page.wait_for_timeout(100)
        assert it.page.text_content("h1 span") == ALL[name].verdict
        assert it.complaints == []
        assert [url for url in it.requests if not url.startswith(("file:", "data:"))] == []
        # Nothing is wider than the window.
        assert it.page.evaluate("document.documentElement.scrollWidth") <= 1180


def test_no_figure_of_a_gate_has_to_be_scrolled_to(browser: Browser, tmp_path: Path) -> None:
    """The longest sentence on what n is worth is broken, and does not widen the table."""
    worth = "10,211 distinct requests; more calls of the same add nothing yet, different ones do"
    report = rejected()
    gates = tuple(replace(gate, n_eff_reason=worth) for gate in report.gates)
    with opened(browser, replace(report, gates=gates), tmp_path) as it:
        wider = "table => table.scrollWidth - table.parentElement.clientWidth"
        assert it.page.eval_on_selector(".gates", wider) <= 0


@pytest.mark.parametrize("name", ALL)
def test_is_readable_on_a_phone(browser: Browser, tmp_path: Path, name: str) -> None:
    """At 390 pixels nothing is wider than the screen but what scrolls by itself, the gates' figures
    are on it, and no text of a plot is smaller than 9 pixels.
    """
    with opened(browser, ALL[name], tmp_path, width=390) as it:
        assert it.page.evaluate("document.documentElement.scrollWidth") <= 390
        ends = it.page.eval_on_selector_all(
            ".gates .figure span, .gates .figure b, .gates svg text",
            "all => all.map(element => element.getBoundingClientRect().right)",
        )
        assert max(ends) <= 390
        sizes = it.page.eval_on_selector_all(
            "main svg text",
            """all => all.map(text => parseFloat(getComputedStyle(text).fontSize)
                * text.getScreenCTM().a)""",
        )
        assert min(sizes, default=9) >= 9


@pytest.mark.parametrize("name", ALL)
def test_is_small(name: str) -> None:
    """Under 300 kB for each shadow whatever is in its report, with less than 5 kB of script."""
    text = render_page(ALL[name])
    assert len(text.encode()) < 300_000 * len(each_report(ALL[name]))
    script = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    assert len(script) == 1
    assert len(script[0].encode()) < 5_000


def test_names_both_services_with_their_versions() -> None:
    """Beside the service, as in the terminal."""
    page = render_page(rejected())
    assert "<dd>double-minimal-inference, version 2026-11-1</dd>" in page
    assert "<dd>triple-minimal-inference, version 2026-12-rc1</dd>" in page


def test_a_gate_that_found_nothing_says_what_it_looked_at() -> None:
    """No zero beside a pass, as if nothing had been checked."""
    page = render_page(rejected())
    assert "<b>12,480</b><span>calls looked at</span>" in page
    assert "n 0," not in page


def test_stays_small_with_a_thousand_of_everything() -> None:
    """Long lists are cut, never the limit."""
    report = hostile()
    report = replace(
        report,
        reasons=report.reasons * 1000,
        notes=report.notes * 1000,
        unmatched_rules=report.unmatched_rules * 1000,
        paths=report.paths * 500,
        slices=report.slices * 500,
        statuses=report.statuses * 500,
        signatures=report.signatures * 50,
        timeline=timeline(1000),
        settings={f"{i} {HOSTILE}": HOSTILE for i in range(1000)},
    )
    assert len(render_page(report).encode()) < 300_000


def test_candidates_stand_side_by_side_on_the_first_screen(
    browser: Browser, tmp_path: Path
) -> None:
    """A column each with its verdict and every gate's figure, and a link to its own part below."""
    with opened(browser, candidates(), tmp_path) as it:
        table = it.page.locator(".overview table")
        assert table.bounding_box()["y"] < 400  # type: ignore[index]
        badges = table.locator("tbody tr").first.locator(".badge").all_text_contents()
        assert badges == ["PROMOTE", "WAIT", "REJECT"]
        assert table.locator("th", has_text="New faults").count() == 1
        table.locator("thead a").nth(1).click()
        assert it.page.evaluate("location.hash") == "#candidate-2"
        kickers = it.page.locator("article .kicker").all_text_contents()
        assert kickers == [f"Candidate {i} of 3" for i in (1, 2, 3)]
        assert it.page.locator("article > .tiles").count() == 3
        embedded = json.loads(it.page.text_content("#report") or "")
        assert [each["verdict"] for each in embedded["candidates"]] == badges
        assert it.complaints == []


def test_hostile_text_stays_text(browser: Browser, tmp_path: Path) -> None:
    """Nothing in a body becomes an element, runs, hides or turns the writing direction."""
    with opened(browser, hostile(), tmp_path) as it:
        assert it.page.title() == "REJECT: shadow report"
        assert it.page.locator("img").count() == 0
        assert it.page.locator("svg[onload]").count() == 0
        assert it.page.locator("script").count() == 2
        body = it.page.locator("pre").nth(1).text_content() or ""
        assert body.startswith("</script><img src=x onerror=")
        assert r"\x1b[31mred\x1b[0m \x00 \u202egnp.exe \u2066iso \ud800 {{7*7}}" in body
        everything = it.page.content()
        assert not {"\x1b", "\x00", "\u202e", "\u2066"} & set(everything)
        assert it.complaints == []


def test_embedded_figures_are_json(browser: Browser, tmp_path: Path) -> None:
    """The figures can be read back from the page, hostile text and all."""
    with opened(browser, hostile(), tmp_path) as it:
        embedded = json.loads(it.page.text_content("#report") or "")
    assert embedded["verdict"] == "REJECT"
    assert embedded["notes"][0].startswith("</script>")


def test_policy_lets_nothing_else_run(browser: Browser, tmp_path: Path) -> None:
    """Even text that got past the escaping could neither run nor load: the policy forbids it."""
    with opened(browser, rejected(), tmp_path) as it:
        it.page.evaluate(
            """() => {
                const hole = document.createElement("div");
                hole.innerHTML =
                    '<img src="https://example.invalid/x.png" onerror="document.title=1">';
                const script = document.createElement("script");
                script.textContent = "document.title = 'taken over'";
                document.body.append(hole, script);
            }"""
        )
        it.page.wait_for_timeout(200)
        assert it.page.title() == "REJECT: shadow report"
        assert any("Content Security Policy" in text for text in it.complaints)


def sizes(page: Page) -> list[str]:
    return page.locator("table.worst tbody > tr:first-child > td:nth-child(4)").all_text_contents()


def test_worst_pairs_sort_by_mouse_and_keyboard(browser: Browser, tmp_path: Path) -> None:
    """A click sorts, another turns it round, Enter does the same; bodies stay with their pair."""
    with opened(browser, rejected(), tmp_path) as it:
        head = it.page.locator("table.worst th", has_text="Size")
        button = head.locator("button")
        assert head.get_attribute("aria-sort") == "none"
        button.click()
        assert head.get_attribute("aria-sort") == "descending"
        assert sizes(it.page) == ["0.7", "0.6", "0.5", "–", "–"]  # noqa: RUF001
        button.focus()
        it.page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == "ascending"
        # Pairs without a size stay last.
        assert sizes(it.page) == ["0.5", "0.6", "0.7", "–", "–"]  # noqa: RUF001
        assert it.page.text_content("#said") == "Sorted by Size, ascending."
        what = it.page.locator("table.worst th", has_text="What differs")
        what.locator("button").click()
        assert (head.get_attribute("aria-sort"), what.get_attribute("aria-sort")) == (
            "none",
            "ascending",
        )
        for body in it.page.locator("table.worst tbody").all():
            assert body.locator("tr").count() == 2
        assert it.complaints == []


def test_bodies_open_by_keyboard_and_mark_the_difference(browser: Browser, tmp_path: Path) -> None:
    """Enter on a pair's line opens both answers; what differs is marked."""
    with opened(browser, rejected(), tmp_path) as it:
        details = it.page.locator("table.worst details").nth(1)
        assert details.locator("pre").first.is_hidden()
        details.locator("summary").focus()
        it.page.keyboard.press("Enter")
        assert details.locator("pre").first.is_visible()
        assert details.locator("mark").first.text_content() == "6.6"


@pytest.mark.parametrize("name", ["rejected", "candidates"])
def test_screen_readers_get_names_for_everything(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    """Each plot and table has a name, each heading level follows the one before, ids are unique."""
    with opened(browser, ALL[name], tmp_path) as it:
        faults = it.page.evaluate(
            """() => {
                const faults = [];
                for (const plot of document.querySelectorAll("svg"))
                    if (!plot.ariaHidden && !plot.getAttribute("aria-label"))
                        faults.push("plot without a name");
                for (const table of document.querySelectorAll("table")) {
                    if (!table.caption?.textContent.trim()) faults.push("table without a caption");
                    for (const head of table.querySelectorAll("th"))
                        if (!head.scope) faults.push("head without a scope: " + head.textContent);
                }
                let level = 0;
                for (const title of document.querySelectorAll("h1,h2,h3,h4")) {
                    const next = Number(title.tagName[1]);
                    if (next > level + 1 && next !== 4) faults.push("jump to " + title.textContent);
                    level = next;
                }
                const ids = [...document.querySelectorAll("[id]")].map((element) => element.id);
                if (new Set(ids).size !== ids.length) faults.push("an id twice");
                for (const link of document.querySelectorAll('a[href^="#"]'))
                    if (!document.querySelector(link.hash)) faults.push("dead link");
                return faults;
            }"""
        )
        assert faults == []
        it.page.keyboard.press("Tab")
        assert it.page.evaluate("document.activeElement.className") == "skip"


CONTRAST = """() => {
    const luminance = (colour) => {
        const [r, g, b] = colour.match(/[\\d.]+/g).slice(0, 3).map((v) => {
            const share = v / 255;
            return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const colour = getComputedStyle(at).backgroundColor;
            if (!/, 0\\)$/.test(colour)) return colour;
        }
        return "rgb(255, 255, 255)";
    };
    const weak = new Set();
    for (const element of document.querySelectorAll("body *:not(svg *, script, .unseen, .skip)")) {
        const text = [...element.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
        if (!text || !element.getClientRects().length) continue;
        const [low, high] = [getComputedStyle(element).color, behind(element)]
            .map(luminance)
            .sort((a, b) => a - b);
        const ratio = (high + 0.05) / (low + 0.05);
        if (ratio < 4.5) weak.add(`${element.className || element.tagName}: ${ratio.toFixed(2)}`);
    }
    return [...weak];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("name", ["rejected", "waiting", "promoted", "invalid", "candidates"])
def test_text_has_enough_contrast(browser: Browser, tmp_path: Path, name: str, scheme: str) -> None:
    """Every text has a contrast of at least 4.5 to 1 (WCAG 2 AA) in light and in dark."""
    with opened(browser, ALL[name], tmp_path, scheme) as it:
        assert it.page.evaluate(CONTRAST) == []
