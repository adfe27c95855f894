"""The outputs of a report: terminal, page, JSON and JUnit. They read it and judge nothing."""

from shadow_report.output.files import write_json, write_junit
from shadow_report.output.page import write_page
from shadow_report.output.terminal import print_report, progress_bar

__all__ = ["print_report", "progress_bar", "write_json", "write_junit", "write_page"]
