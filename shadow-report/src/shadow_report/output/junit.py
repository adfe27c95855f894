"""The gates as JUnit XML, for CI systems that list test results: one test case per gate.

A gate that fails is a failure, one that waits is skipped with what it waits for. Unsound evidence
is an error of a test case of its own: no gate can be trusted then, so the others are skipped.
"""

from pathlib import Path
from xml.etree.ElementTree import Element, SubElement, tostring

from shadow_report.gates import Gate
from shadow_report.output.json_file import replace_file
from shadow_report.output.wording import (
    GATE_TITLES,
    count,
    number,
    one_line,
    percent,
    percent_range,
    visible,
)
from shadow_report.report import Report


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
            f"margin: {bound} {percent(gate.margin)}",
            f"n: {count(gate.n)}, effective {number(gate.n_eff)}",
        )
    )
