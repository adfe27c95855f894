"""The report for programs: JSON (`schema_version` says which shape it has), and JUnit XML.

In JUnit's XML there is one test case per gate, and one suite per candidate. A gate that fails is a
failure, one that waits is skipped with what it waits for. Unsound evidence is an error of a test
case of its own: no gate can be trusted then, so the others are skipped.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import orjson

from shadow_report.report import Gate, Judged, Report, SideBySide, each_report
from shadow_report.wording import (
    GATE_TITLES,
    NOTHING,
    count,
    one_line,
    percent,
    percent_range,
    visible,
)

OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z


def as_json(judged: Judged) -> bytes:
    """The report as indented UTF-8 JSON; figures that are not finite are null, never NaN.

    Of several candidates `gates` has all, each with its `candidate`.
    """
    figures = plain(judged)
    if isinstance(judged, SideBySide) and isinstance(figures, dict):
        candidates = figures.pop("candidates")
        figures["gates"] = [
            {"candidate": encodable(report.shadow.service)} | gate
            for report, its in zip(judged.candidates, candidates, strict=True)
            for gate in its["gates"]
        ]
        figures["candidates"] = candidates
    return orjson.dumps(figures, option=OPTIONS) + b"\n"


def write_json(judged: Judged, file: Path) -> None:
    """Write the report to `file`, in one step: a reader sees the old file or the new one."""
    replace_file(file, as_json(judged))


def plain(value: object) -> object:
    """The value as dicts, lists, text, numbers, times and None, all of which JSON can hold."""
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {encodable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    return scalar(value)


def scalar(value: object) -> object:
    """One value as a number, truth, time, text or None."""
    match value:
        case None | bool() | datetime():
            return value
        case float():
            return float(value) if math.isfinite(value) else None
        # Whole numbers past 64 bits are text: no reader of JSON keeps them exactly.
        case int() if -(2**63) <= value < 2**63:
            return int(value)
        case timedelta():
            return value.total_seconds()
        case _:
            return encodable(str(value))


def encodable(text: str) -> str:
    r"""The text with lone surrogates written out (`\ud800`): UTF-8 cannot hold them."""
    return text.encode("utf-8", "backslashreplace").decode()


def replace_file(file: Path, content: bytes) -> None:
    """Put `content` in the place of `file` in one step; a device or pipe is written to."""
    if file.exists() and not file.is_file():
        file.write_bytes(content)
        return
    draft = file.with_name(f".{file.name}.draft")
    try:
        draft.write_bytes(content)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)


def write_junit(judged: Judged, file: Path) -> None:
    """Write the gates to `file`, in one step."""
    replace_file(file, as_junit(judged))


def as_junit(judged: Judged) -> bytes:
    """The gates as JUnit XML; hostile text is written out, so that any XML parser takes it."""
    suites = Element("testsuites")
    for report in each_report(judged):
        name = "shadow-report"
        if isinstance(judged, SideBySide):
            name += f".{visible(report.shadow.service)}"
        suites.append(suite_of(report, name))
    text: bytes = tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def suite_of(report: Report, name: str) -> Element:
    """One report's evidence and gates."""
    cases = [evidence_case(report, name), *(gate_case(gate, report, name) for gate in report.gates)]
    suite = Element(
        "testsuite",
        name=name,
        tests=str(len(cases)),
        failures=str(count_of("failure", cases)),
        errors=str(count_of("error", cases)),
        skipped=str(count_of("skipped", cases)),
        time="0",
        timestamp=f"{report.generated_at:%Y-%m-%dT%H:%M:%S}",
    )
    properties = SubElement(suite, "properties")
    for key, value in (
        ("verdict", report.verdict),
        ("pairs", str(report.pairs)),
        ("settings_sha256", report.settings_sha256),
    ):
        SubElement(properties, "property", name=key, value=value)
    suite.extend(cases)
    SubElement(suite, "system-out").text = visible("\n".join((report.verdict, *report.reasons)))
    return suite


def count_of(outcome: str, cases: list[Element]) -> int:
    return sum(case.find(outcome) is not None for case in cases)


def evidence_case(report: Report, suite: str) -> Element:
    """Whether the evidence is sound; the remedy stands in the error."""
    case = Element("testcase", classname=suite, name="evidence", time="0")
    if report.verdict == "INVALID":
        unsound = [
            f"{finding.what} {finding.remedy}"
            for finding in report.integrity.findings
            if finding.unsound
        ]
        error = SubElement(
            case, "error", type="INVALID", message=one_line(" ".join(report.reasons))
        )
        error.text = visible("\n".join(unsound))
    return case


def gate_case(gate: Gate, report: Report, suite: str) -> Element:
    case = Element("testcase", classname=f"{suite}.gates", name=gate.name, time="0")
    if report.verdict == "INVALID":
        SubElement(case, "skipped", message="The evidence is unsound, so no gate can be judged.")
    elif gate.status == "fail":
        failure = SubElement(case, "failure", type="beyond margin", message=one_line(gate.reason))
        failure.text = figures(gate)
    elif gate.status == "wait":
        SubElement(case, "skipped", message=one_line(gate.reason))
    SubElement(case, "system-out").text = figures(gate)
    return case


def figures(gate: Gate) -> str:
    """The gate's figures, one to a line."""
    bound = "at least" if gate.is_minimum else "at most"
    return "\n".join(
        (
            f"{GATE_TITLES.get(gate.name, gate.name)}: {percent(gate.estimate)}",
            f"interval: {percent_range(gate.interval)}",
            f"margin: {NOTHING if gate.margin is None else f'{bound} {percent(gate.margin)}'}",
            f"n: {count(gate.n)}, effective {count(gate.n_eff)}"
            + (f" ({one_line(gate.n_eff_reason)})" if gate.n_eff_reason else ""),
        )
    )
