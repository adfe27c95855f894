"""Rules as a team keeps them: a YAML file, an option, or a preset; checked by pydantic.

A rule has a `path`, mostly a `compare` with its parameters, and may have a `margin`. In an option
it is written `PATH=KIND,parameter=value`, as in `--rule 'embedding=cosine,least=0.98,margin=5%'`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import fields, replace
from importlib.resources import files
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_origin

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from shadow_report import SettingWrong
from shadow_report.answers import kinds, similarity
from shadow_report.answers.paths import IGNORED, Rule, Rules, compile_path, spell

PRESETS = ("openai",)


def _share(value: object) -> object:
    """A share as `0.1` or `10%`; ValueError says how to write one."""
    text = str(value).strip()
    figure = text.removesuffix("%")
    try:
        share = float(figure) / (100 if figure != text else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise ValueError("write a share from 0 to 1, like 0.1 or 10% for 10 %")
    return share


Share = Annotated[float, BeforeValidator(_share)]
NotNegative = Annotated[float, Field(ge=0)]


class _Rule(BaseModel):
    model_config = ConfigDict(extra="forbid")

    path: str
    margin: Share | None = None

    def how(self) -> kinds.How | None:
        """As the comparer takes it; None for a margin alone."""
        return None

    def rule(self) -> Rule:
        """ValueError when the path is not one."""
        return Rule(compile_path(self.path), self.how(), self.margin)


class _Ignore(_Rule):
    margin: None = None

    def how(self) -> kinds.How:
        return IGNORED


class _Number(_Rule):
    absolute: NotNegative = 0.0
    relative: NotNegative = 0.0

    def how(self) -> kinds.How:
        return kinds.Tolerance(self.absolute, self.relative)


class _Label(_Rule):
    def how(self) -> kinds.How:
        return kinds.Labels()


class _Unordered(_Rule):
    def how(self) -> kinds.How:
        return kinds.Unordered()


class _Matched(_Rule):
    key: str

    def how(self) -> kinds.How:
        return kinds.Matched(self.key)


class _Ranking(_Rule):
    top: Annotated[int, Field(ge=1)] = 10
    overlap: Share = 0.8
    correlation: Annotated[float, Field(ge=-1, le=1)] = -1.0
    key: str | None = None

    def how(self) -> kinds.How:
        return similarity.Ranking(self.top, self.overlap, self.correlation, self.key)


class _Cosine(_Rule):
    least: Annotated[float, Field(ge=-1, le=1)] = 0.99

    def how(self) -> kinds.How:
        return similarity.Cosine(self.least)


class _TopClass(_Rule):
    def how(self) -> kinds.How:
        return kinds.TopClass()


class _Text(_Rule):
    least: Share = 1.0
    normalize: bool = True

    def how(self) -> kinds.How:
        return similarity.Text(self.least, self.normalize)


class _Json(_Rule):
    def how(self) -> kinds.How:
        return kinds.Json()


class _Variant(_Rule):
    def how(self) -> kinds.How:
        return kinds.Variant()


class _Pattern(_Rule):
    patterns: Annotated[dict[str, re.Pattern[str]], Field(min_length=1)]

    def how(self) -> kinds.How:
        return kinds.Patterns(tuple(self.patterns.items()))


_MODELS: dict[str, type[_Rule]] = {
    "default": _Rule,
    "ignore": _Ignore,
    "number": _Number,
    "label": _Label,
    "unordered": _Unordered,
    "matched": _Matched,
    "ranking": _Ranking,
    "cosine": _Cosine,
    "top_class": _TopClass,
    "text": _Text,
    "json": _Json,
    "variant": _Variant,
    "pattern": _Pattern,
}
KINDS = ", ".join(_MODELS)
# A path may have an equals sign of its own, so the kind is the last that stands after one.
_OPTION = re.compile(rf"(?P<path>.*)=(?P<kind>{'|'.join(_MODELS)})(?P<rest>(,\w+=[^,=]*)*)")

# An option says figures and words; what holds several by name or in a list is written in a file.
IN_FILES = {
    kind: name
    for kind, model in _MODELS.items()
    for name, field in model.model_fields.items()
    if get_origin(field.annotation) in {dict, list, tuple}
}
_OF_FILES = re.compile(rf".*=(?P<kind>{'|'.join(IN_FILES)})(,.*)?")


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    absolute: NotNegative | None = None
    relative: NotNegative | None = None
    # YAML reads a bare `off` as false.
    noise_floor: Annotated[
        float | str | None, BeforeValidator(lambda given: "off" if given is False else given)
    ] = None
    presets: list[str] = []
    rules: list[dict[str, Any]] = []


def read_rules(file: Path) -> Rules:
    """The rules of a YAML file, or of a preset of that name; SettingWrong says what is wrong."""
    name = str(file)
    try:
        content = yaml.safe_load(_text_of(name))
        found = _File.model_validate({} if content is None else content)
    except OSError as error:
        raise SettingWrong(
            f"--rules is '{name}' ({error.strerror}); give a readable YAML file, or a preset: "
            f"{', '.join(PRESETS)}."
        ) from error
    except ValidationError as error:
        raise SettingWrong(f"--rules {name}: {_first_error(error, _File.model_fields)}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        what = " ".join(str(error).split())
        raise SettingWrong(f"--rules {name} is not YAML: {what}.") from error
    rules: list[Rule] = []
    for preset in found.presets:
        if preset not in PRESETS:
            raise SettingWrong(
                f"--rules {name}: presets has '{preset}'; the presets are {', '.join(PRESETS)}."
            )
        rules += read_rules(Path(preset)).by_path
    of_presets = {rule.spelling: rule.how for rule in rules if isinstance(rule.how, kinds.Patterns)}
    read = (
        _rule(_with_patterns(given, of_presets), f"--rules {name}: rule {number}")
        for number, given in enumerate(found.rules, start=1)
    )
    rules += [replace(rule, is_preset=name in PRESETS) for rule in read]
    return Rules(
        tolerance=kinds.Tolerance(
            kinds.UNRULED.absolute if found.absolute is None else found.absolute,
            kinds.UNRULED.relative if found.relative is None else found.relative,
        ),
        by_path=tuple(rules),
        noise_floor=found.noise_floor,
    )


def _with_patterns(
    given: dict[str, Any], of_presets: Mapping[str, kinds.Patterns]
) -> dict[str, Any]:
    """A rule that gives a preset's patterns a margin need not repeat them."""
    if given.get("compare") != "pattern" or "patterns" in given:
        return given
    try:
        found = of_presets.get(spell(compile_path(str(given.get("path")))))
    except ValueError:  # its own error says so
        return given
    return given if found is None else given | {"patterns": dict(found.patterns)}


def _text_of(name: str) -> str:
    if name in PRESETS:
        return files("shadow_report").joinpath(f"presets/{name}.yaml").read_text()
    return Path(name).read_text()


def parse_rule(text: str) -> Rule:
    """`PATH=KIND` and its parameters, as `tags=unordered` or `text=text,least=0.9,margin=5%`."""
    if of_files := _OF_FILES.fullmatch(text):
        kind = of_files["kind"]
        raise SettingWrong(
            f"--rule is '{text}'; {kind} has its {IN_FILES[kind]} in a YAML file only: write the "
            "rule there, and name the file with --rules."
        )
    match = _OPTION.fullmatch(text)
    if match is None:
        raise SettingWrong(
            f"--rule is '{text}'; write it like tags=unordered or embedding=cosine,least=0.98. "
            f"The kinds are {KINDS}."
        )
    parameters = dict(part.split("=", 1) for part in match["rest"].split(",") if part)
    return _rule({"path": match["path"], "compare": match["kind"], **parameters}, "--rule")


def parse_tolerance(text: str) -> Rule:
    """`PATH=ABS` or `PATH=ABS,REL`; SettingWrong otherwise."""
    path, _, figures = text.rpartition("=")
    absolute, comma, relative = figures.partition(",")
    try:
        tolerance = kinds.Tolerance(float(absolute), float(relative) if comma else 0.0)
    except ValueError:
        tolerance = None
    if not path or tolerance is None or not (tolerance.absolute >= 0 and tolerance.relative >= 0):
        raise SettingWrong(
            f"--tolerance is '{text}'; write it like predictions[*]=0.01 or "
            "outputs.score.data[*]=1e-9,1e-4 (absolute, relative)."
        )
    return _of(path, tolerance, "--tolerance")


def parse_ignored(text: str) -> Rule:
    """A path for --ignore; SettingWrong when it is not one."""
    return _of(text, IGNORED, "--ignore")


def _of(path: str, how: kinds.How, option: str) -> Rule:
    try:
        return replace(Rule.of(path, how), word=option.removeprefix("--"))
    except ValueError as error:
        raise SettingWrong(f"{option}: {error}") from error


def _rule(given: dict[str, Any], where: str) -> Rule:
    kind = given.get("compare", "default")
    model = _MODELS.get(kind) if isinstance(kind, str) else None
    if model is None:
        raise SettingWrong(f"{where}: compare is '{kind}'; the kinds are {KINDS}.")
    fields = {name: value for name, value in given.items() if name != "compare"}
    names = [
        "compare",
        *(name for name, field in model.model_fields.items() if field.annotation is not NoneType),
    ]
    try:
        return model.model_validate(fields).rule()
    except ValidationError as error:
        raise SettingWrong(f"{where}: {_first_error(error, names)}.") from error
    except ValueError as error:
        raise SettingWrong(f"{where}: {error}") from error


def _first_error(error: ValidationError, names: Iterable[str]) -> str:
    first = error.errors()[0]
    at = ".".join(map(str, first["loc"]))
    what = first["msg"].removeprefix("Value error, ")
    what = what[:1].lower() + what[1:]
    if first["type"] == "missing":
        return f"{at}: {what}"
    if first["type"] == "extra_forbidden":
        return f"'{at}' is unknown; the names are {', '.join(names)}"
    if first["type"] == "float_parsing":
        what = "write a number, like 0.05"
    return f"{at} is {first['input']!r}: {what}" if at else what


def as_plain(rule: Rule) -> dict[str, object]:
    """A rule as JSON values, for the report and its hash."""
    how = rule.how
    plain: dict[str, object] = {"path": rule.spelling, "compare": rule.kind}
    if isinstance(how, kinds.Patterns):
        plain["patterns"] = {name: pattern.pattern for name, pattern in how.patterns}
    elif how is not None:
        plain |= {field.name: getattr(how, field.name) for field in fields(how)}
    if rule.margin is not None:
        plain["margin"] = rule.margin
    return plain
