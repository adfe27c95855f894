"""What a report says beside its figures: remarks and notes, in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from shlex import quote

from shadow_report.answers.figures import NumbersByName, advice
from shadow_report.answers.kinds import Patterns
from shadow_report.judging.integrity import MENDED_BELOW
from shadow_report.judging.rates import MEASURED_REQUESTS, Net
from shadow_report.report import (
    Bucket,
    Difference,
    Finding,
    Generated,
    Noise,
    Opinion,
    PathReport,
    Refused,
)
from shadow_report.settings import Comparison
from shadow_report.wording import counted, moment, pasted, percent, percent_range

NOT_FOUND = 404
# Further differences that a reason names: with the first, two or three lines.
ALSO_TOLD = 2
# A first token that is later by less is left to the table.
LATER_SHARE = 0.1
# Noise beyond this leaves little room for an excess, and beyond what is allowed to differ, none.
MOSTLY_NOISE = 0.5
PRESET = (
    "Each answer of OpenAI's API has an id of its own: write `presets: [openai]` into the file of "
    "rules, which stands alone otherwise."
)
UNASKED = (
    "Not all calls of the window are of OpenAI's API, so its preset was not taken: name it, "
    "--rules openai, or leave the others out (--since)."
)
LONGER_QUEUE = (
    "A shadow on less hardware, or on the primary's own, queues longer: raise "
    "--first-token-ratio where that is known."
)


def remarks(
    noise: Noise, opinion: Opinion | None, generated: Generated | None, settings: Comparison
) -> tuple[str, ...]:
    """What stands next to the reasons: the noise floor, what a judge says, and first tokens that
    come later and answers that are newly refused though nothing judges them.
    """
    return (
        *_of_noise(noise, settings, is_generated=generated is not None),
        *_of_judge(opinion),
        *_of_first_tokens(generated, settings),
        *_of_refusals(generated, settings),
    )


def of_refused(
    refused: Refused | None, pairs: int, protocols: Mapping[str, int]
) -> tuple[str, ...]:
    """That the calls are refused alike, where they were sent and what the refusal says."""
    if refused is None:
        return ()
    asked = f" at {refused.path}" * bool(refused.path)
    said = f": {refused.body}" if refused.body else ", with an empty body"
    told = (
        f"Both sides answer {refused.pairs:,} of {counted(pairs, 'call')} with {refused.status}, "
        f"which says nothing of the models. The primary's predictor{asked} said {refused.status}"
        f"{said}"
    )
    if refused.status == NOT_FOUND and "openai" in protocols:
        told += " (a predictor with OpenAI's API elsewhere: set OPENAI_PREDICTOR_PREFIX)"
    return (told,)


def notes(settings: Comparison, warm_up: int, ignored: Sequence[str]) -> tuple[str, ...]:
    """What the verdict is about, and what was left out of it.

    warm_up: pairs left out as such. ignored: paths that are not compared.
    """
    said = ["The verdict is about this window's traffic; other days may bring other requests."]
    if (of := len(settings.candidates)) > 1:
        alpha = settings.margins.alpha
        said.append(
            f"Judged at alpha {alpha:g}, its share of {of * alpha:g} among {of} candidates."
        )
    if warm_up:
        said.append(f"{counted(warm_up, 'pair')} of the warm-up left out.")
    if settings.mirrored_share < 1:
        said.append(
            "Coverage is judged against the configured mirrored share of "
            f"{settings.mirrored_share:g}."
        )
    if settings.rules_by_protocol:
        said.append("Generated answers are compared by the rules of --rules openai.")
    if ignored:
        said.append(f"Not compared: {', '.join(ignored)}.")
    if settings.slo_ms is None:
        said.append("Without --slo-ms no answer is too slow for the verdict.")
    return tuple(said)


def details(
    findings: Sequence[Finding],
    differences: Sequence[Difference],
    paths: Sequence[PathReport],
    objects: Sequence[NumbersByName],
    *,
    faults: int,
    disagreements: int,
    preset: str,
    outage: str,
) -> dict[str, str]:
    """By gate, what its reason adds: in how many pairs each place differs, when the shadow's calls
    ended and what may mend the coverage, and when the faults were.

    differences: the most frequent first. objects: those with numbers by name. preset: what to say
    where ids differ, of_preset. outage: of_outage.
    """
    told = {finding.code: finding for finding in findings}
    said = {"first_token": LONGER_QUEUE}
    if missing := told.get("coverage"):
        # A shadow whose calls end before the primary's has stopped, whatever else may be.
        behind = f"{told['shadow-behind'].what} " if "shadow-behind" in told else ""
        said["coverage"] = behind + missing.remedy
    ids_differ = any(path.path == "id" for path in paths if path.differing_pairs)
    for gate, is_fault, alike in (
        ("faults", True, faults),
        ("disagreement", False, disagreements),
    ):
        found = [d for d in differences if d.is_fault is is_fault]
        # What differs in pairs with a new fault alone is not a disagreement of any pair.
        if alike and found:
            hint = _of_one_side(found[0])
            if not is_fault:
                hint = (preset if ids_differ else "") or hint or advice(paths, objects)
            said[gate] = " ".join(filter(None, (_by_place(found, alike), hint)))
    said["faults"] = " ".join(filter(None, (said.get("faults"), outage)))
    return said


def _of_one_side(most: Difference) -> str:
    """What to think about where the commonest difference is a field that one side lacks."""
    if not most.one_sided:
        return ""
    return f"If no caller reads it: --ignore {quote(most.one_sided)}."


def of_outage(timeline: Sequence[Bucket], *, unanswered: bool) -> str:
    """When all new faults were, where so many calls after them without one cannot be chance.

    unanswered: calls without a shadow call are faults too, as where everything is mirrored.
    """
    faults = [step.new_faults + step.unanswered * unanswered for step in timeline]
    calls = [step.pairs + step.unanswered * unanswered for step in timeline]
    faulty = [i for i, count in enumerate(faults) if count]
    if not faulty:
        return ""
    within = slice(faulty[0], faulty[-1] + 1)
    share = sum(faults[within]) / sum(calls[within])
    if (1 - share) ** sum(calls[within.stop :]) >= MENDED_BELOW:
        return ""
    begin, end = timeline[within.start].start, timeline[within.stop - 1].end
    return (
        f"All new faults are from {moment(begin)} to {moment(end)} UTC: if that was an outage, "
        f"and is over, judge later calls alone: --since {pasted(end)}."
    )


def of_preset(protocols: Mapping[str, int], settings: Comparison) -> str:
    """How calls of OpenAI's API come to the rules that they need, where they may be without."""
    if settings.rules.is_of_file:
        return PRESET if protocols.keys() == {"openai"} else ""
    return UNASKED if "openai" in protocols and not settings.rules_by_protocol else ""


def _by_place(found: Sequence[Difference], alike: int) -> str:
    """The most frequent difference, and a few of the others, the gravest first."""
    most, *others = found
    # A pair with a new fault is not a disagreement, and may differ elsewhere all the same.
    of = f"{most.pairs:,} of {counted(alike, 'such pair')}"
    text = f"Most often {most.in_words}: {of if most.pairs <= alike else f'{most.pairs:,}'}."
    others.sort(key=lambda d: -d.gravity)
    if shown := "; ".join(f"{d.in_words}: {d.pairs:,}" for d in others[:ALSO_TOLD]):
        further = len(others) - ALSO_TOLD
        more = f"; and {counted(further, 'more difference')}" if further > 0 else ""
        text += f" Also {shown}{more}."
    if sum(difference.pairs for difference in found) > alike:
        text += " Some pairs differ in several places."
    return text


def _of_first_tokens(generated: Generated | None, settings: Comparison) -> tuple[str, ...]:
    """What no gate judges, where the shadow's median is later by a tenth for sure."""
    if generated is None or settings.first_token_ratio is not None:
        return ()
    for drift in generated.drifts:
        for at in drift.shifts:
            is_median = drift.name == "first token" and at.quantile == 0.5
            if is_median and at.interval and at.interval.lower > LATER_SHARE * at.primary:
                times = f"{at.shadow:,.0f} {drift.unit}, the primary's after {at.primary:,.0f}"
                of = f"(medians of {counted(drift.pairs, 'pair')})"
                unjudged = "no gate judges that without --first-token-ratio."
                return (f"The shadow's first token comes after {times} {of}; {unjudged}",)
    return ()


def _of_refusals(generated: Generated | None, settings: Comparison) -> tuple[str, ...]:
    """What a margin for all that differs may hold: more refusals than before, for sure."""
    if generated is None or _judges_refusals(settings):
        return ()
    found, alpha = generated.refusals, settings.margins.alpha
    new, gone = found.shadow_only, found.primary_only
    pairs = found.neither + new + gone + found.both
    if not pairs or Net(new, gone, pairs).bounds(alpha, alpha).lower <= 0:
        return ()
    refused = f"{counted(new, 'answer')} newly refused, {gone:,} no longer"
    return (f"{refused}: no gate judges that without a margin in the rule of the pattern.",)


def _judges_refusals(settings: Comparison) -> bool:
    rules = settings.rules
    return any(isinstance(rules.by_path[i].how, Patterns) for i in rules.margins)


def _of_judge(opinion: Opinion | None) -> tuple[str, ...]:
    """What the judge says, which is a gate only with --judge-margin."""
    if opinion is None:
        return ()
    about = f"questions about {counted(opinion.failed, 'pair')} failed ({opinion.failure})"
    failed = about if opinion.failed else ""
    changed = opinion.inconsistent
    further = f"its opinion changed with their order in {changed:,}" if changed else ""
    if not opinion.consistent or opinion.net_worse is None:
        none = f"The judge {opinion.model} has no opinion of {counted(opinion.asked, 'pair')}"
        return (f"{'; '.join(filter(None, (none, further, failed)))}.",)
    said = (
        f"The judge {opinion.model} calls the shadow's answer better in {opinion.better:,}, worse "
        f"in {opinion.worse:,} and as good in {opinion.ties:,} of "
        f"{counted(opinion.consistent, 'differing pair')} (worse less better "
        f"{percent_range(opinion.net_worse)})"
    )
    return (f"{'; '.join(filter(None, (said, further, failed)))}.",)


def _of_noise(noise: Noise, settings: Comparison, *, is_generated: bool) -> tuple[str, ...]:
    """What moves the verdict without being a reason for it: the noise floor."""
    floor = settings.margins.noise_floor
    how = "(shadow-report replay --itself --to <its transformer>; next to make up: make noise)"
    if floor == "auto" and not noise.comparisons:
        send = f"send the primary its own calls of it {how}."
        return (f"The noise floor is not known in this window, so nothing is taken off: {send}",)
    if floor == "auto" and noise.repeated_requests < MEASURED_REQUESTS:
        few = counted(noise.repeated_requests, "repeated request")
        so_far = f"by {few} so far, of {MEASURED_REQUESTS} or more"
        more = f"send the primary more of its own calls, with other requests {how}."
        return (f"The noise floor is not measured yet, {so_far}: {more}",)
    differing = noise.shadow_share or 0.0
    is_too_much = differing > settings.margins.max_disagreement
    if floor == "off" and not noise.comparisons and is_generated and is_too_much:
        send = f"Send it its own calls {how}, then judge by --noise-floor auto."
        return (f"How often the primary differs from itself, if it samples, is not known. {send}",)
    if noise.shadow_share is None or (floor == "off" and not noise.disagreements):
        return ()
    what = (
        f"The primary disagrees with itself in {percent(noise.share)} of "
        f"{counted(noise.comparisons, 'answer')} to repeated requests (noise), and the shadow "
        f"with it in {percent(noise.shadow_share)}"
    )
    if settings.rules.margins:
        what += ", but for the places whose rules have a margin, which has to hold the noise too"
    if floor == "off":
        return (f"{what}; --noise-floor auto judges what exceeds the noise.",)
    over = "the noise" if floor == "auto" else f"the {percent(floor)} given as noise"
    # An excess may be negative: a word of it stands wherever the gates' figures do.
    judged = f"Disagreement and all that is bad are judged by their excess over {over}."
    share = floor if isinstance(floor, float) else noise.share
    if share is not None and share > MOSTLY_NOISE:
        judged += (
            " Noise in most answers hides what the shadow changes: compare more loosely (a text's "
            "least), until the primary mostly agrees with itself, or ask a judge (--judge)."
        )
    return (f"{what}. {judged}" if noise.comparisons else judged,)
