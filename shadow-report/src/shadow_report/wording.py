"""Figures and foreign text as a person reads them; the same in the terminal and on the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

NOT_RECORDED = "(none)"
"""Stands for a missing value where calls are counted by value."""


NOTHING = "–"  # noqa: RUF001 - the dash of an empty cell


def percent(share: float | None) -> str:
    """A share as a percentage with three digits that matter: `0.0812 %`, `2.61 %`, `99.931 %`.

    Close to 100 % the digits that matter are those of the distance to 100 %. A dash for None and
    NaN.
    """
    if share is None or not math.isfinite(share):
        return NOTHING
    telling = 100 * min(abs(share), abs(1 - share)) if 0 <= share <= 1 else 100 * abs(share)
    if telling < 1e-9:
        return f"{100 * share:.0f} %"
    decimals = max(0, 2 - math.floor(math.log10(telling)))
    text = f"{100 * share:.{decimals}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) + " %"


def counted(number: int, noun: str) -> str:
    """A number of things: `1 pair`, `2,992 pairs`."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(span: timedelta) -> str:
    """A span in the unit that fits, rounded up: `40 s`, `12 min`, `3 h`, `9 days`."""
    seconds = span.total_seconds()
    for size, unit, limit in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800)):
        if seconds < limit:
            return f"{math.ceil(seconds / size)} {unit}"
    return f"{math.ceil(seconds / 86_400)} days"


GATE_TITLES = {
    "coverage": "Coverage",
    "faults": "New faults",
    "disagreement": "Disagreement",
    "slow": "Newly slow",
    "first_token": "Late first token",
    "bad": "All that is bad",
    "newest": "Newest calls",
    "worst": "Worst run",
    "slices": "Slices",
    "judge": "Judged worse",
}
VERDICT_MEANINGS = {
    "PROMOTE": "The shadow may replace the primary.",
    "REJECT": "The shadow must not replace the primary.",
    "WAIT": "There is not enough evidence yet.",
    "INVALID": "The evidence is unsound: no verdict can rest on it.",
}


def candidates_meaning(promoted: Sequence[str], candidates: int) -> str:
    """What the verdicts on several candidates come to."""
    if not promoted:
        return f"None of the {candidates} candidates may replace the primary yet."
    if len(promoted) == candidates:
        return f"Each of the {candidates} candidates may replace the primary."
    return f"Of {candidates} candidates {' or '.join(promoted)} may replace the primary."


def percent_range(interval: tuple[float, float] | None) -> str:
    """Both ends of an interval of shares, the upper one alone when the data cannot say the lower,
    or a dash when they can say neither.
    """
    if interval is None or not math.isfinite(interval[1]):
        return NOTHING
    if not math.isfinite(interval[0]):
        return f"at most {percent(interval[1])}"
    return f"{percent(interval[0]).removesuffix(' %')} to {percent(interval[1])}"


def number(value: float | None) -> str:
    """A figure with up to four telling digits."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.4g}" if abs(value) < 10_000 else f"{value:,.0f}"


def about(value: float | None) -> str:
    """A figure that is known within 1 %: three digits, of which the last may be off."""
    return number(value if value is None else float(f"{value:.3g}"))


def signed(value: float | None) -> str:
    """A difference: the sign is always there."""
    text = number(value)
    return text if value is None or value <= 0 or text == NOTHING else f"+{text}"


def number_range(interval: tuple[float, float] | None) -> str:
    """Both ends of an interval of differences."""
    if interval is None or not all(map(math.isfinite, interval)):
        return NOTHING
    return f"{signed(interval[0])} to {signed(interval[1])}"


def count(value: float | None) -> str:
    """A whole number with thousands separated."""
    return NOTHING if value is None or not math.isfinite(value) else f"{value:,.0f}"


def moment(time: datetime | None) -> str:
    """A UTC time to the second."""
    return NOTHING if time is None else f"{time:%Y-%m-%d %H:%M:%S}"


def second_after(time: datetime) -> datetime:
    """The first whole second that is later: a window from there on leaves it out."""
    return time.replace(microsecond=0) + timedelta(seconds=1)


def pasted(time: datetime) -> str:
    """A UTC time as an option takes it."""
    return time.isoformat().replace("+00:00", "Z")


EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Postgres counts microseconds from here."""


def instant(microseconds: int) -> str:
    """A time as Postgres counts it, to the second."""
    return f"{moment(EPOCH + timedelta(microseconds=microseconds))} UTC"


def span(hours: float | None) -> str:
    """A length of time in its two largest units."""
    if hours is None or not math.isfinite(hours):
        return NOTHING
    seconds = round(timedelta(hours=hours).total_seconds())
    parts = [
        f"{amount} {unit}"
        for amount, unit in (
            (seconds // 86_400, "d"),
            (seconds // 3600 % 24, "h"),
            (seconds // 60 % 60, "min"),
            (seconds % 60, "s"),
        )
        if amount
    ]
    return " ".join(parts[:2]) or "0 s"


def visible(text: object) -> str:
    r"""Foreign text with everything that could act or hide written out, as in `\x1b` or `\u202e`.

    Control characters, bidirectional overrides, invisible characters and lone surrogates could
    drive a terminal or show another text than the one stored; line feeds and tabs stay.
    """
    return "".join(
        char
        if char.isprintable() or char in "\n\t"
        else char.encode("unicode_escape", "surrogatepass").decode()
        for char in str(text)
    )


def one_line(text: object) -> str:
    """Foreign text on a single line."""
    return " ".join(visible(text).split())


def around(one: str, other: str, limit: int) -> tuple[str, str]:
    """Both texts from shortly before their first difference on, each of at most `limit` characters;
    as they are where both are that short.
    """
    start = 0
    if max(len(one), len(other)) > limit and one != other:
        both = zip(one, other, strict=False)
        shorter = min(len(one), len(other))
        start = next((i for i, (a, b) in enumerate(both) if a != b), shorter)
    return part_at(one, start, limit), part_at(other, start, limit)


def part_at(text: str, place: int, limit: int) -> str:
    """The text from shortly before a place on: at most `limit` characters, with an ellipsis at
    either side where there is more.
    """
    start = max(0, place - limit // 4)
    return cut(f"…{text[start:]}" if start else text, limit)


def cut(text: str, limit: int) -> str:
    """The first `limit` characters, with an ellipsis when there is more."""
    return text if len(text) <= limit else text[: max(limit - 1, 0)] + "…"
