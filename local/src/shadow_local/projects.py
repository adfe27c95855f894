"""Which project of this repository an image is built from, and what it runs."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Project:
    """A folder with a pyproject.toml, and the module that its console script starts."""

    folder: Path
    module: str

    @property
    def python(self) -> Path:
        """The interpreter of the project's own environment, which may not be installed yet."""
        return self.folder / ".venv" / "bin" / "python"

    @property
    def environment_of(self) -> Path:
        """The folder that the environment was made in: a copied one runs the code that is there."""
        activate = self.python.with_name("activate")
        said = re.search(r"""^VIRTUAL_ENV=['"]?(.+?)['"]?$""", activate.read_text(), re.MULTILINE)
        return Path(said[1]).parent if said else self.folder


def project_of(image: str, repository: Path) -> Project | None:
    """The project with a console script named like the image; None when there is none.

    Projects stand in the repository's root and in examples/.
    """
    name = image_name(image)
    for path in sorted(
        [*repository.glob("*/pyproject.toml"), *repository.glob("examples/*/pyproject.toml")]
    ):
        scripts = tomllib.loads(path.read_text()).get("project", {}).get("scripts", {})
        if name in scripts:
            module = str(scripts[name]).split(":")[0].removesuffix(".__main__")
            return Project(path.parent, module)
    return None


def image_name(image: str) -> str:
    """An image's name without registry, tag and digest."""
    return image.rsplit("/", 1)[-1].split("@", 1)[0].split(":", 1)[0]
