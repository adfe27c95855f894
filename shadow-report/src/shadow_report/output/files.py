"""The report for programs: JSON (`schema_version` says which shape it has), and JUnit XML.

In JUnit's XML there is one test case per gate. A gate that fails is a failure, one that waits is
skipped with what it waits for. Unsound evidence is an error of a test case of its own: no gate can
be trusted then, so the others are skipped.
"""

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime, timedelta
from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

import orjson

from shadow_report.report import Gate, Report
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


def as_json(report: Report) -> bytes:
    """The report as indented UTF-8 JSON; figures that are not finite are null, never NaN."""
    return orjson.dumps(plain(report), option=OPTIONS) + b"\n"


def write_json(report: Report, file: Path) -> None:
    """Write the report to `file`, in one step: a reader sees the old file or the new one."""
    replace_file(file, as_json(report))


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


def write_junit(report: Report, file: Path) -> None:
    """Write the gates to `file`, in one step."""
    replace_file(file, as_junit(report))


def as_junit(report: Report) -> bytes:
    """The gates as JUnit XML; hostile text is written out, so that any XML parser takes it."""
    cases = [evidence_case(report), *(gate_case(gate, report) for gate in report.gates)]
    suite = Element(
        "testsuite",
        name="shadow-report",
        tests=str(len(cases)),
        failures=str(count_of("failure", cases)),
        errors=str(count_of("error", cases)),
        skipped=str(count_of("skipped", cases)),
        time="0",
        timestamp=f"{report.generated_at:%Y-%m-%dT%H:%M:%S}",
    )
    properties = SubElement(suite, "properties")
    for name, value in (
        ("verdict", report.verdict),
        ("pairs", str(report.pairs)),
        ("settings_sha256", report.settings_sha256),
    ):
        SubElement(properties, "property", name=name, value=value)
    suite.extend(cases)
    SubElement(suite, "system-out").text = visible("\n".join((report.verdict, *report.reasons)))
    suites = Element("testsuites")
    suites.append(suite)
    text: bytes = tostring(suites, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def count_of(outcome: str, cases: list[Element]) -> int:
    return sum(case.find(outcome) is not None for case in cases)


def evidence_case(report: Report) -> Element:
    """Whether the evidence is sound; the remedy stands in the error."""
    case = Element("testcase", classname="shadow-report", name="evidence", time="0")
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


def gate_case(gate: Gate, report: Report) -> Element:
    case = Element("testcase", classname="shadow-report.gates", name=gate.name, time="0")
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
