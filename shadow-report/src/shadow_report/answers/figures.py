"""What was counted at each path, as figures for the report."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from shlex import quote

import numpy as np
from numpy.typing import NDArray

from shadow_report.answers.comparer import MAX_PLACES, OTHER_PLACES, Place
from shadow_report.answers.kinds import TITLES
from shadow_report.answers.numbers import Label, LabelTally, NumberTally, SimilarityTally
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.paths import RulesHere
from shadow_report.answers.similarity import Cosine, Ranking
from shadow_report.report import Labels, Numbers, PathReport, Similarity
from shadow_report.statistics.agreement import cohens_kappa, limits_of_agreement, pearson
from shadow_report.statistics.distribution_shift import DistributionShift, distribution_shift
from shadow_report.statistics.samples import Sketch, histogram
from shadow_report.statistics.sequences import mean_interval
from shadow_report.wording import about, percent

# A float's relative rounding; sums of many differences add up a few of them.
ROUNDING = 4 * float(np.finfo(np.float64).eps)
CLASSES_SHOWN = 12
OTHER_CLASSES = "other"
WHOLE = "(answer)"
"""An answer that is one value has no path."""


def path_reports(
    places: list[Place], differing: Counter[int], alpha: float
) -> tuple[PathReport, ...]:
    """A report for each place that holds values or differences, the most differing first.

    differing: by place key, in how many pairs it differs beyond tolerance.
    """
    reports = [
        _path_report(place, differing[place.key], alpha)
        for place in places
        if not place.rules.is_ignored and (_values(place) or place.faults)
    ]
    return tuple(sorted(reports, key=lambda r: (-r.differing_pairs, -r.values, r.path)))


def _values(place: Place) -> int:
    counted = place.numbers.tally.values + place.nulls
    counted += place.labels.values + place.bools.values + place.tops.values
    return counted + max((tally.values for tally in place.similarities.values()), default=0)


def _path_report(place: Place, differing_pairs: int, alpha: float) -> PathReport:
    numbers, tops = place.numbers.tally, place.tops
    agreeing = numbers.agreeing + tops.agreeing + place.nulls
    agreeing += place.labels.agreeing + place.bools.agreeing
    agreeing += min((t.values - t.below for t in place.similarities.values()), default=0)
    margin, rules = place.margin, place.rules.rules.by_path
    shown = _labels_of(place)
    return PathReport(
        path=place.path or WHOLE,
        kind=_kind(place),
        pairs=place.pairs,
        differing_pairs=differing_pairs,
        values=_values(place) + _lost_values(place),
        agreeing=agreeing,
        absolute_tolerance=place.rules.tolerance.absolute,
        relative_tolerance=place.rules.tolerance.relative,
        faults={
            outcome.title: count
            for outcome, count in sorted(place.faults.items(), reverse=True)
            if outcome is not Outcome.WITHIN_TOLERANCE
        },
        numbers=_numbers(numbers, alpha) if numbers.pairs.n else None,
        labels=None if shown is None else _labels(shown),
        similarities=tuple(
            _similarity(name, tally, _least(name, place.rules))
            for name, tally in place.similarities.items()
        ),
        lengths=_numbers(place.lengths, alpha) if place.lengths.pairs.n else None,
        margin=None if margin is None else rules[margin].margin,
    )


# Values that are further apart than this share of their size do not differ by rounding: there is no
# tolerance that is worth calling all of them equal for.
WORTH_A_TOLERANCE = 0.2
# Where one in twenty pairs is further apart than this share of what the primary's own spread over,
# or of how far they are from 0, as another factor makes them, the two models do not say the same,
# and nothing is worth being tolerated.
WORTH_A_MARGIN = 0.4
# Texts that have less than this in common are not the same in other words.
WORTH_A_LEAST = 0.5
# In %; the first that is 1.5 times the share of pairs that differ is named; beyond a third, none.
MARGINS = (10, 20, 30, 50)
# Lists of so many numbers are more often embeddings than anything else.
EMBEDDING_LENGTH = 32


@dataclass(frozen=True, slots=True)
class NumbersByName:
    """An object with numbers of several names, as the probabilities of classes, or a record's.

    names: the paths of these. within: of all numbers that a tolerance at the object would hold for;
    none where these are too many to be known. agreement: where they are probabilities, the share of
    the objects in which the same name has the most.
    """

    path: str
    names: frozenset[str]
    within: frozenset[str]
    agreement: float | None


def numbers_by_name(places: Sequence[Place]) -> tuple[NumbersByName, ...]:
    """Each object that has several."""
    are_all_known = len(places) < MAX_PLACES
    found = []
    for place in places:
        within = frozenset(below.path for below in _numbers_below(place, place))
        below = {child.path for step, child in place.children.items() if isinstance(step, str)}
        if len(names := within & below) > 1:
            tops = place.by_name
            agreement = tops.agreeing / tops.values if tops and tops.values else None
            known = within if are_all_known else frozenset[str]()
            found.append(NumbersByName(place.path, names, known, agreement))
    return tuple(found)


def _numbers_below(top: Place, place: Place) -> Iterator[Place]:
    """The places below, but for those with a nearer rule for numbers."""
    for child in place.children.values():
        if child.rules.numbers is top.rules.numbers:
            if child.numbers.tally.values:
                yield child
            yield from _numbers_below(top, child)


def advice(paths: Sequence[PathReport], objects: Sequence[NumbersByName] = ()) -> str:
    """Which option to think about when the answers differ most at a place of this kind, with the
    value that would have made it agree; empty when there is none.

    paths: the most differing first. objects: those that a tolerance may be named for as a whole.
    """
    named = [path for path in paths if path.margin is None and path.path != OTHER_PLACES]
    if not named or not (told := named[0]).differing_pairs:
        return ""
    above = next((found for found in objects if told.path in found.names), None)
    if above and (said := _of_object(above, paths)):
        return said
    # A text and its class differ at one place, where neither's remedy helps without the other's.
    half = told.differing_pairs / 2
    here = [p for p in named if _text_of(p) == _text_of(told) and p.differing_pairs >= half]
    return " ".join(filter(None, map(_of_place, here)))


def _text_of(report: PathReport) -> str:
    """The path of a text that a pattern may have given a class, `choices[*].text (refusal)`."""
    return report.path.rpartition(" (")[0] if report.path.endswith(")") else report.path


def _of_object(found: NumbersByName, paths: Sequence[PathReport]) -> str:
    """One tolerance for all of its numbers, where these are of about one size, and the rule for the
    largest where they are probabilities; nothing where no other than one of them differs.
    """
    numbers = [(path, path.numbers) for path in paths if path.path in found.within and path.numbers]
    told = [path for path in paths if path.path in found.names and path.differing_pairs]
    if len(told) < 2:
        return ""
    said = []
    if numbers and (found.agreement is not None or all(p.kind == "number" for p, _ in numbers)):
        extents = [max(map(abs, each.primary_quantiles.values())) for _, each in numbers]
        extent = min(extents) if found.agreement is None else max(extents)
        largest = max(each.absolute_quantiles["max"] for _, each in numbers)
        if 0 < max(n.absolute_quantiles["p99"] for _, n in numbers) <= WORTH_A_TOLERANCE * extent:
            said.append(
                f"The numbers of {found.path or 'the answer'} differ by at most about "
                f"{about(largest)}: {_tolerance(found.path or '*', largest)}"
            )
    if found.agreement is not None and found.path:
        said.append(_of_top_classes(found.path, found.agreement))
    return " ".join(said)


def _of_top_classes(path: str, agreement: float) -> str:
    rule = _rule(path, "top_class")
    others = ""
    if agreement < 1 and (margin := _first_margin(1 - agreement, 1)):
        others = f"; put `,margin={margin}` behind `top_class` if some may be others"
    return f"The top class is the same in {percent(agreement)}: {rule} compares that alone{others}."


def _tolerance(path: str, largest: float) -> str:
    allowed = quote(f"{path}={_rounded_up(largest)}")
    return f"--tolerance {allowed} would have called all of them equal."


def _of_place(told: PathReport) -> str:
    """By the kind of the one place."""
    of_list = told.path.removesuffix("[*]")
    if told.faults.get("order", 0) * 2 > told.differing_pairs and of_list != told.path:
        return f"If its order means nothing: {_rule(of_list, 'unordered')}."
    match told.kind:
        case "text":
            return _of_wording(told)
        case "label" | "boolean" | "top class":
            return _of_classes(told)
        case "number" | "probability vector" if told.numbers is not None:
            return _of_lists(told, told.numbers)
    return ""


def _of_lists(told: PathReport, found: Numbers) -> str:
    """The rule for what a list of numbers may be, or for the numbers themselves."""
    of_list = told.path.removesuffix("[*]")
    is_list = bool(of_list) and of_list != told.path
    if is_list and told.values >= EMBEDDING_LENGTH * told.pairs:
        return f"If it is an embedding: {_rule(of_list, 'cosine')}."
    said = [_of_numbers(told, found)]
    if told.kind == "probability vector" and told.labels is not None and is_list:
        said.append(_of_top_classes(of_list, told.labels.agreement))
    return " ".join(filter(None, said))


def _of_numbers(told: PathReport, found: Numbers) -> str:
    """The tolerance that all are within; where they are too far apart for one, what most pairs are
    within, with a margin for the others, as a decision that the models' owner may take.
    """
    sizes, of_pairs, primary = (
        found.absolute_quantiles,
        found.pair_quantiles,
        found.primary_quantiles,
    )
    figures = (
        f"{told.path} differs by at most about {about(sizes['max'])}, 95 % of the values by at "
        f"most {about(sizes['p95'])} and half by at most {about(sizes['p50'])}"
    )
    ends = primary["p5"], primary["p95"]
    extent = min(ends[1] - ends[0], max(map(abs, ends)))
    allowing = ""
    if told.kind == "number" and 0 < of_pairs["p95"] <= WORTH_A_MARGIN * extent:
        near = _rounded_up(of_pairs["p95"])
        rule = _rule(told.path, f"number,absolute={near},margin=10%")
        # Of fewer, the one beyond the quantile is more than that.
        beyond = "; 1 in 20 of these do" if told.pairs >= 20 else ""
        allowing = f"{rule} lets 1 pair in 10 differ by more than {near}{beyond}."
    if 0 < sizes["p99"] <= WORTH_A_TOLERANCE * max(map(abs, primary.values())):
        # The widest pair alone may make it so wide.
        is_wide = told.pairs >= 20 and sizes["max"] >= 2 * of_pairs["p95"]
        other = f" {allowing}" if allowing and is_wide else ""
        return f"{figures}: {_tolerance(told.path, sizes['max'])}{other}"
    if not allowing:
        return ""
    return (
        f"{figures}, too far apart to call all of them equal. Whether your use tolerates it is for "
        f"you to decide: {allowing}"
    )


def _of_classes(told: PathReport) -> str:
    """A margin for labels, which have no tolerance; in the rule that made the classes, if any."""
    if (margin := _margin_above(told)) is None or told.path == WHOLE:
        return ""
    if (path := _text_of(told)) != told.path:
        return (
            f"If some texts may be of another class: margin: {margin} in the rule of the pattern, "
            f'in a file of rules; of a preset\'s, {{path: "{path}", compare: pattern, margin: '
            f"{margin}}} there, after presets: [openai]."
        )
    if told.kind == "top class":
        # The vectors of a tensor have a rule at its `data`, and no path of their own.
        return f"If some top classes may be others, put `,margin={margin}` behind `top_class`."
    how = "label" if told.kind == "label" else "default"
    return f"If some labels may be others: {_rule(told.path, f'{how},margin={margin}')}."


def _of_wording(told: PathReport) -> str:
    """A rule for texts; where one holds already, what makes it looser."""
    found = next(iter(told.similarities), None)
    if found is None:
        rule = _rule(told.path, "text,least=0.8")
        return f"If the wording may differ: {rule}, and then it says here how alike they are."
    if (margin := _margin_above(told)) is not None:
        rule = _rule(told.path, f"text,least={found.least:g},margin={margin}")
        return f"If more of the wording may differ: {rule}, or a lower least."
    half, most = (_rounded_down(found.quantiles[share]) for share in ("p50", "p5"))
    all_of = f"Of all {told.values:,} texts there, equal ones too, half"
    alike = f"{all_of} are at least {half} alike, 95 % of them at least {most}"
    if found.quantiles["p5"] < WORTH_A_LEAST:
        return f"{alike}: too little to call them one text."
    return f"{alike}. If so much of it may differ: {_rule(told.path, f'text,least={most}')}."


def _margin_above(told: PathReport) -> str | None:
    """The first margin that what differs is well within; None where too much does."""
    # Where one side lacks the place a pair differs and is not among the pairs.
    differing, pairs = told.differing_pairs, max(told.pairs, told.differing_pairs)
    return _first_margin(differing, pairs)


def _first_margin(differing: float, of: float) -> str | None:
    # Best in whole numbers: of floats, 1.5 times a fifth is more than 30 %.
    return next((f"{each}%" for each in MARGINS if 150 * differing <= each * of), None)


def _rule(path: str, how: str) -> str:
    return f"--rule {quote(f'{path}={how}')}"


def _rounded_up(value: float) -> str:
    """Two digits that are no less than the value."""
    step = 10.0 ** (math.floor(math.log10(value)) - 1)
    return f"{float(f'{math.ceil(value / step) * step:.2g}'):g}"  # 970, and not 9.7e+02


def _rounded_down(share: float) -> str:
    """Two decimals that are no more than it."""
    return f"{math.floor(share * 100) / 100:g}"


def _least(name: str, rules: RulesHere) -> float:
    """What the rule asks for by this name."""
    match rules.lists:
        case Cosine(least=least) if name == "cosine":
            return least
        case Ranking(overlap=overlap, correlation=correlation):
            return correlation if name == "correlation" else overlap
    return 0.0 if rules.text is None else rules.text.least


def _similarity(name: str, tally: SimilarityTally, least: float) -> Similarity:
    distances = tally.distances
    shares = {"min": 0.0, "p1": 0.01, "p5": 0.05, "p25": 0.25, "p50": 0.5}
    bars = [(1 - high, 1 - low, count) for low, high, count in reversed(histogram(distances))]
    return Similarity(
        name=name,
        values=tally.values,
        below=tally.below,
        least=least,
        mean=tally.sum / tally.values,
        quantiles={n: 1 - distances.quantile(1 - share) for n, share in shares.items()},
        histogram=tuple(bars),
    )


_ON_ONE_SIDE = (Outcome.MISSING, Outcome.EXTRA, Outcome.TYPE, Outcome.FORM)


def _lost_values(place: Place) -> int:
    """Values that stand on one side only, or are of two types: they are in no tally."""
    return sum(place.faults[outcome] for outcome in _ON_ONE_SIDE)


def _kind(place: Place) -> str:
    numbers, labels = place.numbers.tally, place.labels
    counted: dict[str, NumberTally | LabelTally]
    counted = {"number": numbers, "boolean": place.bools, "top class": place.tops}
    kinds = {name for name in place.kinds if name != "null"}
    kinds |= {name for name, tally in counted.items() if tally.values}
    of_texts = TITLES.get(type(place.rules.text), "text")
    if place.similarities:
        name = next(iter(place.similarities))
        measures = {"similarity": of_texts, "cosine": "embedding"}
        kinds.add((measures | dict.fromkeys(("overlap", "correlation"), "ranking"))[name])
    if labels.values:
        kinds.add(of_texts if labels.is_text else "label")
        kinds.discard("label" if labels.is_text else "text")
    if len(kinds) > 1:
        return "mixed"
    if kinds == {"number"}:
        # No option of plain numbers is worth a thought where a kind has a difference of its own.
        if (rule := TITLES[type(place.rules.numbers)]) not in ("number", "label"):
            return rule
        if numbers.top_classes and numbers.top_classes.values:
            return "probability vector"
        return "label" if numbers.classes and numbers.classes.values else "number"
    if kinds:
        return kinds.pop()
    return "null" if place.nulls else "list" if None in place.children else "object"


def _labels_of(place: Place) -> LabelTally | None:
    numbers = place.numbers.tally
    for tally in (place.tops, place.labels, place.bools):
        if tally.values and not tally.is_text:
            return tally
    for classes in (numbers.top_classes, numbers.classes):
        if classes and classes.values and not classes.is_text:
            return classes
    return None


OF_PAIRS = {"p50": 0.5, "p95": 0.95, "max": 1.0}


def _numbers(tally: NumberTally, alpha: float) -> Numbers:
    differences = tally.differences
    interval = mean_interval(differences, alpha, tally.signed.nonzero)
    correlation = pearson(tally.pairs)
    sizes, shares = tally.signed.sizes(), {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99}
    quantiles = {"p5": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95}
    shift = _shift(tally.primary, tally.shadow)
    return Numbers(
        values=differences.n,
        bias=_without_rounding(differences.mean, tally),
        bias_interval=None if math.isnan(interval.lower) else interval,
        sd=0.0 if differences.n < 2 else differences.standard_deviation,
        mean_absolute=tally.absolute_sum / differences.n,
        absolute_quantiles={name: sizes.quantile(share) for name, share in shares.items()}
        | {"max": tally.largest},
        pair_quantiles={n: tally.by_pair.quantile(q) for n, q in OF_PAIRS.items()},
        correlation=None if math.isnan(correlation) else correlation,
        limits_of_agreement=limits_of_agreement(differences),
        primary_quantiles={n: tally.primary.quantile(q) for n, q in quantiles.items()},
        shadow_quantiles={n: tally.shadow.quantile(q) for n, q in quantiles.items()},
        distance=shift.ks,
        wasserstein=shift.wasserstein,
        psi=shift.psi,
        psi_by_chance=shift.psi_by_chance,
        histogram=histogram(tally.signed),
    )


def _shift(primary: Sketch, shadow: Sketch) -> DistributionShift:
    p, s = primary.bins(), shadow.bins()
    return distribution_shift(
        [value for value, _ in p],
        [value for value, _ in s],
        [count for _, count in p],
        [count for _, count in s],
    )


def _without_rounding(bias: float, tally: NumberTally) -> float:
    """The bias; 0 where it is no more than the rounding of the values that it is a mean of."""
    size = max(abs(value) for sketch in (tally.primary, tally.shadow) for value in sketch.ends())
    return 0.0 if abs(bias) <= size * ROUNDING else bias


def _labels(tally: LabelTally) -> Labels:
    totals: Counter[Label] = Counter()
    for (primary, shadow), count in tally.counts.items():
        totals[primary] += count
        totals[shadow] += count
    # Of equally frequent ones the order of arrival must not matter.
    ranked = sorted(totals, key=lambda label: (-totals[label], str(label)))
    index = {label: i for i, label in enumerate(ranked)}
    matrix: NDArray[np.float64] = np.zeros((len(ranked), len(ranked)))
    for (primary, shadow), count in tally.counts.items():
        matrix[index[primary], index[shadow]] += count
    kappa = cohens_kappa(matrix)
    shares = matrix.sum(axis=1) / tally.values, matrix.sum(axis=0) / tally.values
    names = [_name(label) for label in ranked]
    if len(ranked) > CLASSES_SHOWN:
        names = [*names[: CLASSES_SHOWN - 1], OTHER_CLASSES]
        matrix = _gathered(matrix, CLASSES_SHOWN - 1)
    return Labels(
        values=tally.values,
        agreement=tally.agreeing / tally.values,
        kappa=None if math.isnan(kappa) else kappa,
        classes=tuple(names),
        confusion=tuple(tuple(int(n) for n in row) for row in matrix.tolist()),
        distance=float(np.abs(shares[0] - shares[1]).sum() / 2),
    )


def _name(label: Label) -> str:
    return str(label).lower() if isinstance(label, bool) else str(label)


def _gathered(matrix: NDArray[np.float64], kept: int) -> NDArray[np.float64]:
    """The matrix with all classes from `kept` on added up in one."""
    group = np.minimum(np.arange(len(matrix)), kept)
    gathered = np.zeros((kept + 1, kept + 1))
    np.add.at(gathered, (group[:, None], group[None, :]), matrix)
    return gathered
