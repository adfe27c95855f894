"""What differs between two answers, said exactly: the reference that the fast comparer agrees with."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from shadow_report.answers.bodies import UNPARSEABLE
from shadow_report.answers.numbers import FIRST_INEXACT, Number, nearest_float
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import Rules, Tolerance, join
from shadow_report.answers.tensors import Tensor

VALUE_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that differs: `template` collapses list positions, `path` keeps them."""

    template: str
    path: str
    outcome: Outcome
    primary: object
    shadow: object


def first_difference(primary: object, shadow: object, rules: Rules) -> str:
    """The gravest difference in words: `predictions[0]: 6.6 became 9.9`."""
    if primary is UNPARSEABLE or shadow is UNPARSEABLE:
        return "the answer is not JSON" if shadow is UNPARSEABLE else "the primary's is not JSON"
    found = max(differences(primary, shadow, rules), key=lambda d: d.outcome, default=None)
    if found is None:
        return "no difference"
    at = found.path or "answer"
    if found.outcome is Outcome.MISSING:
        return f"{at} is missing; it was {_short(found.primary)}"
    if found.outcome is Outcome.EXTRA:
        return f"{at} is new: {_short(found.shadow)}"
    if found.outcome is Outcome.LENGTH and isinstance(found.primary, list):
        return f"{at}: {len(found.primary)} values became {len(found.shadow)}"  # type: ignore[arg-type]
    return f"{at}: {_short(found.primary)} became {_short(found.shadow)}"


def differences(primary: object, shadow: object, rules: Rules) -> Iterator[Difference]:
    """Every difference of two values as `bodies.parse` returns them, also within tolerance."""
    yield from _walk(primary, shadow, "", "", rules, rules.tolerance_at("", rules.tolerance))


def _walk(
    p: Any, s: Any, template: str, path: str, rules: Rules, tolerance: Tolerance
) -> Iterator[Difference]:
    if template in rules.ignored:
        return

    def differ(outcome: Outcome) -> Difference:
        return Difference(template, path, outcome, p, s)

    def below(step: str, a: Any, b: Any) -> Iterator[Difference]:
        deeper = join(template, step)
        tolerated = rules.tolerance_at(deeper, tolerance)
        return _walk(a, b, deeper, join(path, step), rules, tolerated)

    if _is_number(p) and _is_number(s):
        outcome = compare_numbers(p, s, tolerance)
        if outcome is not Outcome.EQUAL:
            yield differ(outcome)
    elif s is None and _is_number(p):
        yield differ(Outcome.NON_FINITE)
    elif p is None and _is_number(s):
        yield differ(Outcome.MENDED)
    elif type(p) is not type(s):
        yield differ(Outcome.TYPE)
    elif type(p) is dict:
        for key in p.keys() | s.keys():
            if key in p and key in s:
                yield from below(key, p[key], s[key])
            elif (at := join(template, key)) not in rules.ignored:
                outcome = Outcome.MISSING if key in p else Outcome.EXTRA
                yield Difference(at, join(path, key), outcome, p.get(key), s.get(key))
    elif type(p) is Tensor:
        if p.datatype != s.datatype:
            yield from _unless_ignored(rules, template, path, "datatype", Outcome.TYPE, p, s)
        if p.shape != s.shape:
            yield from _unless_ignored(rules, template, path, "shape", Outcome.LENGTH, p, s)
        yield from below("data", p.data, s.data)
        yield from _walk(p.rest, s.rest, template, path, rules, tolerance)
    elif type(p) is list:
        yield from _lists(p, s, template, path, rules, tolerance)
    elif p != s:
        yield differ(Outcome.LABEL)


def _unless_ignored(
    rules: Rules, template: str, path: str, field: str, outcome: Outcome, p: Tensor, s: Tensor
) -> Iterator[Difference]:
    if (at := join(template, field)) not in rules.ignored:
        yield Difference(at, join(path, field), outcome, getattr(p, field), getattr(s, field))


def _lists(
    p: list[Any], s: list[Any], template: str, path: str, rules: Rules, tolerance: Tolerance
) -> Iterator[Difference]:
    if len(p) != len(s):
        yield Difference(template, path, Outcome.LENGTH, p, s)
        return
    item = join(template, None)
    if not p or item in rules.ignored:
        return
    tolerated = rules.tolerance_at(item, tolerance)
    found = [
        difference
        for i, (a, b) in enumerate(zip(p, s, strict=True))
        for difference in _walk(a, b, item, join(path, i), rules, tolerated)
    ]
    worst = max((difference.outcome for difference in found), default=Outcome.EQUAL)
    if worst in (Outcome.NUMBER, Outcome.LABEL) and _is_reordered(p, s):
        yield Difference(item, path, Outcome.ORDER, p, s)
    else:
        yield from found


def _is_reordered(p: list[Any], s: list[Any]) -> bool:
    plain = {*map(type, p), *map(type, s)}
    if plain <= {int, float}:
        return all(map(math.isfinite, map(nearest_float, p))) and sorted(p) == sorted(s)
    return plain in ({str}, {bool}) and Counter(p) == Counter(s)


def compare_numbers(p: Number, s: Number, tolerance: Tolerance) -> Outcome:
    """The outcome of two numbers: equal by value, within tolerance, or not; NaN is not finite."""
    a, b = nearest_float(p), nearest_float(s)
    if math.isfinite(a) and math.isfinite(b):
        exact = type(p) is int and type(s) is int
        if exact and min(abs(p), abs(s)) >= FIRST_INEXACT:
            return Outcome.EQUAL if p == s else Outcome.NUMBER
        if a == b:
            return Outcome.EQUAL
        allowed = tolerance.absolute + tolerance.relative * max(abs(a), abs(b))
        return Outcome.WITHIN_TOLERANCE if abs(b - a) <= allowed else Outcome.NUMBER
    if math.isfinite(a):
        return Outcome.NON_FINITE
    if math.isfinite(b):
        return Outcome.MENDED
    return Outcome.EQUAL if a == b or (a != a and b != b) else Outcome.NUMBER


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def _short(value: object) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except (ValueError, RecursionError):
        text = type(value).__name__
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 1] + "…"
