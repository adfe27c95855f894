"""A release's version in every file that names it, and its part of the changelog.

`make release` prepares, checks, commits and tags; the release workflow asks for the rest.

    release.py prepare VERSION   write the version, date what the changelog has under Unreleased,
                                 and keep the schema for the tests of upgrades
    release.py notes VERSION     print that version's part of the changelog
    release.py current           print the version that the files name
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

SCHEMA = Path("manifests/database/schema.sql")
# Every later schema is tried on the tables of this one.
RELEASED_SCHEMAS = Path("embedded-postgres/tests/schemas")
SETTINGS = Path("manifests/settings/settings.yaml")
CHANGELOG = Path("CHANGELOG.md")
UNRELEASED = "## [Unreleased]\n"
# What a version stands behind; in other places the same figures are somebody else's version.
BEFORE = (
    r'^version = "',  # pyproject.toml
    r'^__version__ = "',
    r'^  (?:image-tag|primary-version|shadow-version): "',  # the settings
    r"^ARG VERSION=",  # the images
    r"ghcr\.io/prokube/[a-z-]+:",  # the examples' images, and the pages that build them
)
FILES = ("*.toml", "*/__init__.py", "*.yaml", "*Dockerfile", "*.md")


class Refused(Exception):
    """Why there can be no release; one line with the remedy."""


def main(words: list[str]) -> int:
    """Exit code 0, 1 with one line for a release that cannot be, 2 for wrong arguments."""
    try:
        match words:
            case ["prepare", version]:
                prepare(version)
            case ["notes", version]:
                print(notes(version))
            case ["current"]:
                print(current())
            case _:
                print("Say which version: make release VERSION=1.2.0", file=sys.stderr)
                return 2
    except Refused as refusal:
        print(refusal, file=sys.stderr)
        return 1
    return 0


def prepare(version: str) -> None:
    """Write a version everywhere; Refused, before anything is written, when it cannot be next."""
    before = current()
    if not re.fullmatch(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}", version):
        raise Refused(f"VERSION is '{version}'; set it to three numbers, such as 1.2.0.")
    if _numbers(version) < _numbers(before):
        raise Refused(f"VERSION is '{version}', and the files say {before}; set it to a later one.")
    if git("tag", "--list", f"v{version}"):
        raise Refused(f"v{version} is tagged already; set VERSION to a later one.")
    if git("status", "--porcelain"):
        raise Refused("There are changes that are not committed; commit them, or stash them.")
    changes = CHANGELOG.read_text()
    if not notes("Unreleased"):
        raise Refused("CHANGELOG.md has nothing under [Unreleased]; write what the release brings.")
    today = datetime.now(UTC).date()
    dated = f"{UNRELEASED}\n## [{version}] - {today}\n"
    CHANGELOG.write_text(changes.replace(UNRELEASED, dated, 1))
    pattern = re.compile(f"({'|'.join(BEFORE)}){re.escape(before)}(?![.\\w])", re.MULTILINE)
    for name in git("ls-files", "--", *FILES).splitlines():
        path = Path(name)
        text = path.read_text()
        written = pattern.sub(rf"\g<1>{version}", text)
        if written != text and path != CHANGELOG:
            path.write_text(written)
    released = RELEASED_SCHEMAS / f"{version}.sql"
    released.write_text(f"-- {SCHEMA} as of {version}.\n{SCHEMA.read_text()}")
    git("add", "--", str(released))


def notes(version: str) -> str:
    """A version's part of the changelog, without its heading; Refused when it has none."""
    heading = re.escape(f"## [{version}]")
    found = re.search(rf"^{heading}.*\n((?:(?!## \[).*\n?)*)", CHANGELOG.read_text(), re.MULTILINE)
    if found is None:
        raise Refused(f"CHANGELOG.md has no part for {version}.")
    return found[1].strip()


def current() -> str:
    """The version that the manifests deploy, which is everything's."""
    found = re.search(r'^  image-tag: "(.*)"$', SETTINGS.read_text(), re.MULTILINE)
    if found is None:
        raise Refused(f"{SETTINGS} has no image-tag in quotes.")
    return found[1]


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
