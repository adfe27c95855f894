"""Fail when a Markdown file links to a file or a heading of this repository that is not there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)


def anchors(text: str) -> set[str]:
    """The names that GitHub gives to a page's headings."""
    names = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(text))
    return {name.strip().replace(" ", "-") for name in names}


def broken_links(page: Path) -> list[str]:
    """One line for each link that leads nowhere; addresses of other sites are let be."""
    text = FENCE.sub("", page.read_text())
    problems = []
    for target in (a or b for a, b in LINK.findall(text)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = page.parent / path if path else page
        if not linked.exists():
            problems.append(f"{page}: {target}: no such file")
        elif anchor and anchor not in anchors(FENCE.sub("", linked.read_text())):
            problems.append(f"{page}: {target}: no such heading")
    return problems


def main() -> int:
    """Exit code 1 and one line per broken link, or 0."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        capture_output=True,
        text=True,
        check=True,
    )
    problems = [
        line for page in listed.stdout.split("\n") if page for line in broken_links(Path(page))
    ]
    print("\n".join(problems), file=sys.stderr, end="\n" if problems else "")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
