"""`make release`: one version everywhere, the changelog dated, a commit and a tag; or one line."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from shadow_local.translate.document import repository

VERSION = "1.2.0"
AUTHOR = {
    f"GIT_{who}_{what}": text
    for who in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "A maintainer"), ("EMAIL", "maintainer@example.com"))
}
MAKE = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")


class Clone:
    """The working tree as a repository of its own, with the installed `local` next to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        files = subprocess.run(
            listed, cwd=repository(), capture_output=True, text=True, check=True
        ).stdout.splitlines()
        for file in files:
            if (repository() / file).exists():
                (folder / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(repository() / file, folder / file)
        (folder / "local/.venv").symlink_to(repository() / "local/.venv")
        # A link is not the folder that .gitignore means.
        self.git("init", "--quiet", "--initial-branch=main")
        (folder / ".git/info/exclude").write_text("local/.venv\n")
        self.git("add", ".")
        self.git("commit", "--quiet", "--message", "Before")

    def git(self, *words: str) -> str:
        done = subprocess.run(
            ["git", *words],
            cwd=self.folder,
            env=os.environ | AUTHOR,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def release(self, *words: str, check: str = "true") -> subprocess.CompletedProcess[str]:
        """`make release`, with a program in the place of `make check`; nothing is installed."""
        env = {name: value for name, value in os.environ.items() if name not in MAKE}
        return subprocess.run(
            ["make", "--assume-old=local/.venv/tests", "release", f"MAKE={check}", *words],
            cwd=self.folder,
            env=env | AUTHOR,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )

    def read(self, file: str) -> str:
        return (self.folder / file).read_text()

    def versions(self) -> dict[str, str]:
        """What each project says it is."""
        projects = self.git("ls-files", "*pyproject.toml").splitlines()
        return {path: tomllib.loads(self.read(path))["project"]["version"] for path in projects}


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    return Clone(tmp_path)


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone after `make release`, to be read only."""
    clone = Clone(tmp_path_factory.mktemp("released"))
    done = clone.release(f"VERSION={VERSION}")
    assert done.returncode == 0, done.stderr
    return clone


def test_a_release_is_a_commit_and_a_tag_with_one_version_everywhere(released: Clone) -> None:
    """Projects, images, settings, examples and pages; a checkout of the tag has nothing to do."""
    clone, before = released, released.git("show", "HEAD~:CHANGELOG.md")
    assert clone.git("describe", "--exact-match") == f"v{VERSION}"
    assert clone.git("log", "-1", "--format=%s") == f"Release {VERSION}"
    assert clone.git("status", "--porcelain") == ""
    assert set(clone.versions().values()) == {VERSION}
    settings = yaml.safe_load(clone.read("manifests/settings/settings.yaml"))["data"]
    assert settings["image-tag"] == settings["primary-version"] == VERSION
    pages = clone.git("ls-files", "*.yaml", "*.md", "*Dockerfile").split()
    images = re.findall(r"ghcr\.io/prokube/[a-z-]+:([\w.]+)", "".join(map(clone.read, pages)))
    assert len(images) > 20
    assert set(images) == {VERSION}
    after = clone.read("CHANGELOG.md")
    dated = re.search(rf"## \[Unreleased\]\n\n## \[{VERSION}\] - \d{{4}}-\d\d-\d\d\n", after)
    assert dated
    assert after.replace(dated[0], "## [Unreleased]\n").strip() == before


def test_the_schema_of_a_release_is_kept(released: Clone) -> None:
    """Every later one is tried on its tables."""
    kept = released.read(f"embedded-postgres/tests/schemas/{VERSION}.sql")
    first, _, schema = kept.partition("\n")
    assert VERSION in first
    assert schema == released.read("manifests/database/schema.sql")


def test_the_goldens_are_those_of_the_release(released: Clone) -> None:
    """What the tests compare with is rendered with the new tag."""
    golden = released.read("local/tests/manifests/golden/standard.yaml")
    assert f"ghcr.io/prokube/minimal-predictor:{VERSION}\n" in golden


def test_a_release_that_does_not_pass_leaves_no_commit(clone: Clone) -> None:
    """The checks run on the new version; what they refuse is neither committed nor tagged."""
    done = clone.release(f"VERSION={VERSION}", check="false")
    assert done.returncode == 2
    assert "Nothing was committed" in done.stderr
    assert clone.git("tag") == ""
    assert clone.git("log", "-1", "--format=%s") == "Before"
    clone.git("reset", "--hard")
    assert clone.git("status", "--porcelain") == ""


def test_a_release_that_cannot_be_says_why_and_changes_nothing(clone: Clone) -> None:
    """No version, none that is one, an earlier one, one that is out, an empty changelog."""
    assert "make release VERSION=" in clone.release().stderr
    for version, reason in (("v2", "three numbers"), ("0.0.9", "a later one")):
        assert reason in clone.release(f"VERSION={version}").stderr
    clone.git("tag", f"v{VERSION}")
    assert "is tagged already" in clone.release(f"VERSION={VERSION}").stderr
    assert clone.git("status", "--porcelain") == ""
    (clone.folder / "README.md").write_text("changed")
    assert "not committed" in clone.release("VERSION=1.3.0").stderr
    clone.git("checkout", "--quiet", "README.md")
    changes = clone.read("CHANGELOG.md")
    (clone.folder / "CHANGELOG.md").write_text(
        changes.split("## [Unreleased]\n")[0] + "## [Unreleased]\n"
    )
    clone.git("commit", "--quiet", "--all", "--message", "Nothing to say")
    assert "nothing under [Unreleased]" in clone.release("VERSION=1.3.0").stderr
    assert clone.git("status", "--porcelain") == ""


def test_a_releases_notes_are_its_part_of_the_changelog(released: Clone) -> None:
    """What the page of the release says."""
    script = ["python3", "tools/release.py", "notes", VERSION]
    done = subprocess.run(
        script, cwd=released.folder, capture_output=True, text=True, timeout=240, check=True
    )
    assert done.stdout.startswith("### Added\n")
    assert done.stdout.strip() in released.read("CHANGELOG.md")
