"""Which environment variables a project reads, from its source: no project imports another."""

from __future__ import annotations

import ast
from functools import cache

from tree import REPOSITORY


@cache
def known_variables(project: str) -> frozenset[str]:
    """The fields of the project's pydantic settings, as environment variables."""
    package = REPOSITORY / project / "src" / project.replace("-", "_")
    found: set[str] = set()
    for path in package.glob("*settings.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and any(_is_settings(base) for base in node.bases):
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        found.add(item.target.id.upper())
    assert found, f"no settings in {package}"
    return frozenset(found)


def _is_settings(base: ast.expr) -> bool:
    return isinstance(base, ast.Name) and base.id.endswith("Settings")
