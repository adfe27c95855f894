"""Pin every project's whole dependency tree, without naming a package index.

`uv.lock` holds the addresses of the index that it was made with, so it stays out of the
repository. In its place each `pyproject.toml` pins the exact tree under `[tool.uv]
constraint-dependencies`, and the images install the hash-pinned `requirements.lock`. Both work
unchanged behind a private mirror.

    lock.py PROJECT ...           resolve to the newest versions and write both
    lock.py --check PROJECT ...   fail when the two disagree, or when the pins do not resolve
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

CONSTRAINTS = re.compile(r"^constraint-dependencies = \[\n(?:.*\n)*?\]\n", re.MULTILINE)


def main() -> int:
    """Exit code 0, or 1 with one line per project that does not hold together."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("projects", nargs="+", type=Path)
    options = arguments.parse_args()
    problems: list[str] = []
    for project in options.projects:
        if options.check:
            problems += check(project)
        else:
            write(project)
            print(f"{project}: pinned; install it: make install PROJECT={project}", flush=True)
    for problem in problems:
        print(f"{problem}; run `make lock`.", file=sys.stderr)
    return 1 if problems else 0


def write(project: Path) -> None:
    """Resolve the project anew, and write its pins and, for an image, its hashes."""
    pyproject = project / "pyproject.toml"
    pinned_before = pyproject.read_text()
    unpinned = CONSTRAINTS.sub("", pinned_before)
    pyproject.write_text(unpinned)
    (project / "uv.lock").unlink(missing_ok=True)
    try:
        uv("lock", project)
    except SystemExit as failure:
        pyproject.write_text(pinned_before)
        raise SystemExit(
            f"{failure}The pins are as they were. Where two packages want different versions of a "
            f"third, loosen what {pyproject} asks for and run it again."
        ) from None
    pins = "".join(f'    "{pin}",\n' for pin in tree_pins(project))
    block = f"constraint-dependencies = [\n{pins}]\n"
    if "[tool.uv]\n" in unpinned:
        pinned = unpinned.replace("[tool.uv]\n", f"[tool.uv]\n{block}", 1)
    else:
        pinned = f"{unpinned.rstrip()}\n\n[tool.uv]\n{block}"
    pyproject.write_text(pinned)
    uv("lock", project)
    if is_image(project):
        (project / "requirements.lock").write_text(image_requirements(project))


def check(project: Path) -> list[str]:
    """What is wrong with a project's pins: none, missing ones, or hashes of another tree."""
    pyproject = tomllib.loads((project / "pyproject.toml").read_text())
    pins = set(pyproject.get("tool", {}).get("uv", {}).get("constraint-dependencies", []))
    uv("lock", project)
    problems = []
    if missing := sorted(set(tree_pins(project)) - pins):
        problems.append(f"{project}/pyproject.toml does not pin {', '.join(missing)}")
    if is_image(project):
        lock = project / "requirements.lock"
        if not lock.exists() or lock.read_text() != image_requirements(project):
            problems.append(f"{lock} is not the tree that {project}/pyproject.toml pins")
    return problems


def is_image(project: Path) -> bool:
    return (project / "requirements.lock").exists()


def tree_pins(project: Path) -> list[str]:
    """Every package of the tree, dev groups too, as `name==version` and its marker."""
    text = uv("export", project, "--all-groups", "--all-extras", "--no-hashes", "--no-annotate")
    return text.splitlines()


def image_requirements(project: Path) -> str:
    """What an image installs: the tree without dev groups, with hashes."""
    return uv("export", project, "--no-dev")


def uv(command: str, project: Path, *options: str) -> str:
    """Run uv for a project; what it writes to stdout. `export` leaves local packages out."""
    if command == "export":
        options += ("--quiet", "--no-header", "--no-emit-project", "--no-emit-local")
    binary = os.environ.get("UV", "uv")
    if shutil.which(binary) is None:
        raise SystemExit("uv is not on PATH; run this through `make lock` or `make check`.")
    with tempfile.TemporaryFile("w+") as log:
        result = subprocess.run(
            [binary, command, "--project", str(project), *options],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            check=False,
        )
        log.seek(0)
        if result.returncode != 0:
            raise SystemExit(f"uv {command} failed for {project}:\n{log.read()}")
    return result.stdout


if __name__ == "__main__":
    sys.exit(main())
