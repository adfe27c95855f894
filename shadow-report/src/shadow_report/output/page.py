"""The report as one HTML file that needs nothing else: no network, no server, no other file.

Foreign text is escaped by Jinja2, and before that its control and bidirectional characters are
written out. The page's policy (Content-Security-Policy) lets run only the style and the script
whose hashes it names, so that even a hole in the escaping could neither run nor load anything.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, replace
from difflib import SequenceMatcher
from functools import cache
from pathlib import Path

import orjson
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from shadow_report import wording
from shadow_report.output import plots
from shadow_report.output.files import as_json, replace_file
from shadow_report.output.plots import timeline_plot
from shadow_report.report import (
    Judged,
    Report,
    ShownPair,
    SideBySide,
    each_report,
    worst_pairs,
)

TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|[-+.\w]+|\s+|.', re.DOTALL)
# The matcher's time grows with the square of the tokens.
MOST_TOKENS = 500

Parts = list[tuple[str, bool]]
MOST_BYTES = 300_000
MOST_EMBEDDED_BYTES = 80_000
# (pairs, characters of each body): the first that keeps the page small enough is used.
BUDGETS = ((60, 2_000), (60, 700), (40, 300), (20, 120), (5, 60))


@dataclass(frozen=True, slots=True)
class WorstPair:
    """A pair as the page shows it, its bodies cut and their difference marked."""

    shown: ShownPair
    request: str
    primary: Parts
    shadow: Parts
    primary_error: str
    shadow_error: str
    is_cut: bool


@dataclass(frozen=True, slots=True)
class CandidateLink:
    """A candidate as the live page of another one names it."""

    name: str
    verdict: str
    link: str
    is_shown: bool


@dataclass(frozen=True, slots=True)
class Live:
    """What a page says that is served, and refreshes itself.

    age_mark: stands where the age is to be put in when the page is sent.
    """

    every_seconds: int
    age_mark: str
    candidates: tuple[CandidateLink, ...] = ()
    progress: int | None = None
    """Towards the verdict, in percent."""


def write_page(judged: Judged, file: Path) -> None:
    """Write the page to `file`, in one step."""
    replace_file(file, render_page(judged).encode())


def render_page(judged: Judged, live: Live | None = None) -> str:
    """The page; under 300 kB for each candidate, for which it shows fewer pairs and shorter bodies
    where needed.
    """
    page, most = "", MOST_BYTES * len(each_report(judged))
    for pairs, characters in BUDGETS:
        page = render(judged, pairs, characters, live)
        if len(page.encode()) < most:
            break
    return page


def render_first_page(reason: str, every_seconds: int) -> str:
    """A page that asks again by itself until there is a report."""
    environment = environment_of_templates()
    style = source(environment, "page.css")
    return environment.get_template("first.html.j2").render(
        reason=reason,
        every_seconds=every_seconds,
        style=Markup(style),  # noqa: S704 - our own file, not foreign text
        style_hash=policy_hash(style),
    )


def render(judged: Judged, pairs: int, characters: int, live: Live | None) -> str:
    environment = environment_of_templates()
    style, script = (source(environment, name) for name in ("page.css", "page.js"))
    if live is not None:
        script += "\n" + source(environment, "live.js")
    reports = each_report(judged)
    return environment.get_template("page.html.j2").render(
        judged=judged,
        side_by_side=isinstance(judged, SideBySide),
        views=[view(report, pairs, characters) for report in reports],
        gate_names=dict.fromkeys(gate.name for report in reports for gate in report.gates),
        # Of the first, as those of all: they are of one version and moment.
        report=reports[0],
        live=live,
        plots=plots,
        style=Markup(style),  # noqa: S704 - our own files, not foreign text
        script=Markup(script),  # noqa: S704
        style_hash=policy_hash(style),
        script_hash=policy_hash(script),
        embedded=embedded(judged),
    )


def view(report: Report, pairs: int, characters: int) -> dict[str, object]:
    """What the templates draw of one report."""
    return {
        "report": report,
        "gates": {gate.name: gate for gate in report.gates},
        "shares": {gate.name: gate.estimate for gate in report.gates},
        "meaning": wording.VERDICT_MEANINGS.get(report.verdict, ""),
        "further": next((g.need.further for g in report.gates if g.need and g.need.further), ""),
        "worst": [worst_pair(pair, characters) for pair in worst_pairs(report.signatures, pairs)],
        "timeline": timeline_plot(report),
        "shift": plots.shift_plot(report.latency),
        "confidence": confidence(report),
    }


@cache  # to compile the templates takes longer than to render them
def environment_of_templates() -> Environment:
    """Templates in which every printed value is made visible and then escaped."""
    environment = Environment(
        loader=PackageLoader("shadow_report.output"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=shown,
    )
    for filter_name in (
        "percent",
        "percent_range",
        "number",
        "about",
        "number_range",
        "signed",
        "count",
        "moment",
        "span",
        "cut",
    ):
        environment.filters[filter_name] = getattr(wording, filter_name)
    environment.globals["gate_titles"] = wording.GATE_TITLES
    environment.globals["candidates_meaning"] = wording.candidates_meaning
    return environment


def shown(value: object) -> object:
    """What a template prints for a value."""
    if isinstance(value, Markup):
        return value
    return wording.NOTHING if value is None else wording.visible(value)


def source(environment: Environment, name: str) -> str:
    """A style or script as it stands in the templates' folder."""
    assert environment.loader is not None  # noqa: S101 - set above; for the type checker
    return environment.loader.get_source(environment, name)[0].strip()


def policy_hash(text: str) -> str:
    """The hash by which the page's policy knows an inline style or script."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def embedded(judged: Judged) -> Markup | None:
    """The figures as JSON within a script element, without the bodies that the page shows anyway.

    ASCII, with `<`, `>` and `&` as escapes, so that no text in it can end the element. None when
    they would be the larger part of the page: `--json` has them.
    """
    bare = tuple(replace(report, signatures=()) for report in each_report(judged))
    figures = orjson.loads(
        as_json(replace(judged, candidates=bare) if isinstance(judged, SideBySide) else bare[0])
    )
    text = json.dumps(figures, separators=(",", ":"))
    for char in "<>&":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return Markup(text) if len(text) < MOST_EMBEDDED_BYTES * len(bare) else None  # noqa: S704 - see above


def worst_pair(pair: ShownPair, characters: int) -> WorstPair:
    example = pair.example
    bodies = (example.request, example.primary_response, example.shadow_response)

    def cut(text: str) -> str:
        return wording.cut(wording.visible(text), characters)

    request, *answers = map(cut, bodies)
    primary, shadow = marked(*answers)
    is_cut = example.request_cut or example.primary_cut or example.shadow_cut
    too_long = any(len(wording.visible(body)) > characters for body in bodies)
    return WorstPair(
        shown=pair,
        request=request,
        primary=primary,
        shadow=shadow,
        primary_error=cut(example.primary_error),
        shadow_error=cut(example.shadow_error),
        is_cut=is_cut or too_long,
    )


def confidence(report: Report) -> str:
    """The level of the intervals, as `95 %`."""
    alpha = report.settings.get("alpha")
    return wording.percent(1 - alpha) if isinstance(alpha, float) else ""


def marked(primary: str, shadow: str) -> tuple[Parts, Parts]:
    """Both texts as (text, differs) parts; long ones are left unmarked."""
    left, right = TOKEN.findall(primary), TOKEN.findall(shadow)
    if max(len(left), len(right)) > MOST_TOKENS:
        return [(primary, False)], [(shadow, False)]
    first: Parts = []
    second: Parts = []
    matcher = SequenceMatcher(None, left, right, autojunk=False)
    for kind, low, high, other_low, other_high in matcher.get_opcodes():
        if high > low:
            first.append(("".join(left[low:high]), kind != "equal"))
        if other_high > other_low:
            second.append(("".join(right[other_low:other_high]), kind != "equal"))
    return first, second
