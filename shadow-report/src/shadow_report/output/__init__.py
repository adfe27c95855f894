"""The outputs of a report: terminal, page, JSON and JUnit. They read it and judge nothing."""

from shadow_report.output.json_file import write_json
from shadow_report.output.junit import write_junit
from shadow_report.output.page import write_page
from shadow_report.output.terminal import print_report

__all__ = ["print_report", "write_json", "write_junit", "write_page"]
