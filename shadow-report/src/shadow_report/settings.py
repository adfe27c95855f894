"""Everything that a comparison is asked to do, checked before it starts."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import orjson
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from shadow_report import SettingWrong
from shadow_report.answers.kinds import Ignored, Tolerance
from shadow_report.answers.paths import RequestField, Rules
from shadow_report.judging.questions import Margins, NoiseFloor
from shadow_report.rules import as_plain

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")


class Database(BaseSettings):
    """Where the tables are: POSTGRES_URI from the environment."""

    postgres_uri: str = Field(min_length=1)


def database_uri() -> str:
    """POSTGRES_URI; SettingWrong when it is not set."""
    try:
        return Database().postgres_uri  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingWrong(
            "POSTGRES_URI is not set; set it to the database of the deployment, like "
            "postgresql://report:password@host:5432/inference."
        ) from error


class Mirror(BaseSettings):
    """How much is mirrored: MIRROR_PERCENTAGE from the environment."""

    model_config = SettingsConfigDict(env_ignore_empty=True)

    mirror_percentage: float = Field(default=100.0, gt=0, le=100)


def configured_mirror_share() -> float:
    """MIRROR_PERCENTAGE over 100; SettingWrong when it is not one."""
    try:
        return Mirror().mirror_percentage / 100
    except ValidationError as error:
        given = error.errors()[0]["input"]
        raise SettingWrong(
            f"MIRROR_PERCENTAGE is '{given}'; set it above 0 and up to 100, the mirror's "
            "percentage while the calls were recorded, or give --mirrored-share."
        ) from error


class Candidates(BaseSettings):
    """Which shadows are judged side by side: SHADOW_CANDIDATES from the environment."""

    shadow_candidates: str = ""


def parse_candidates(given: Iterable[str]) -> tuple[str, ...]:
    """The InferenceServices of --shadow, each text with one or several (`a,b`), or else those of
    SHADOW_CANDIDATES; SettingWrong when one is named twice.
    """
    texts, option = list(given), "--shadow"
    if not texts:
        texts, option = [Candidates().shadow_candidates], "SHADOW_CANDIDATES"
    names = [name.strip() for text in texts for name in text.split(",") if name.strip()]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SettingWrong(f"{option} names {twice[0]} twice; name each candidate once.")
    return tuple(names)


@dataclass(frozen=True, slots=True)
class TimeUnit:
    """Calls of one such unit of time have one cause: what repeats need not be the request."""

    name: str
    microseconds: int


TIME_UNITS = {
    name: TimeUnit(name, seconds * 1_000_000)
    for name, seconds in (("second", 1), ("minute", 60), ("hour", 3600), ("day", 86_400))
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What `compare` looks at and how it judges; all of it stands in the report."""

    margins: Margins = field(default_factory=Margins)
    rules: Rules = field(default_factory=Rules)
    rules_by_protocol: bool = False
    """No rules were given, and those for the calls' protocol are taken."""
    primary: str | None = None
    shadow: str | None = None
    candidates: tuple[str, ...] = ()
    """Where several shadows are judged side by side: all of them, this one included."""
    since: datetime | None = None
    since_rollout: bool = False
    """From where each side's newest service, model and version stood alone, within the window."""
    until: datetime | None = None
    shadow_since: datetime | None = None
    """For a replay: the shadow's calls from here on count, whenever their primary's were."""
    warm_up: timedelta = timedelta(0)
    settle: timedelta = timedelta(seconds=30)
    mirrored_share: float = 1.0
    slo_ms: float | None = None
    first_token_ratio: float | None = None
    """A stream's first token is late after so many times the primary's."""
    judge: str | None = None
    """Whose opinion is asked: a model's name."""
    judge_sample: int = 0
    """Of how many pairs that differ."""
    slices: tuple[RequestField, ...] = ()
    cluster: RequestField | TimeUnit | None = None
    """What calls that repeat each other have in common; None is the request."""

    def __post_init__(self) -> None:
        if not 0 < self.mirrored_share <= 1:
            raise SettingWrong(
                f"--mirrored-share is {self.mirrored_share}; set it above 0 and up to 1, "
                "the mirror's percentage over 100."
            )
        if self.slo_ms is not None and not 0 < self.slo_ms < float("inf"):
            raise SettingWrong(f"--slo-ms is {self.slo_ms}; set it to milliseconds above 0.")
        ratio = self.first_token_ratio
        if ratio is not None and not 1 <= ratio < float("inf"):
            raise SettingWrong(
                f"--first-token-ratio is {ratio}; set it to 1 or more times the primary's."
            )
        if self.since and self.until and self.since >= self.until:
            raise SettingWrong(
                f"The window from {self.since} to {self.until} is empty; "
                "set --since before --until."
            )

    def each_candidate(self) -> tuple[Comparison, ...]:
        """The same comparison once for each candidate, with alpha in equal shares.

        So the chance that any candidate gets a wrong verdict is at most the alpha that was asked
        for, whatever their answers have in common (Bonferroni).
        """
        if not self.candidates:
            return (self,)
        share = replace(self.margins, alpha=self.margins.alpha / len(self.candidates))
        return tuple(replace(self, shadow=name, margins=share) for name in self.candidates)

    def as_plain(self) -> dict[str, object]:
        """The settings as JSON values, for the report and for its hash."""
        rules, margins = self.rules, self.margins
        return {
            "primary": self.primary,
            "shadow": self.shadow,
            "candidates": list(self.candidates),
            "since": self.since.isoformat() if self.since else None,
            "since_rollout": self.since_rollout,
            "until": self.until.isoformat() if self.until else None,
            "shadow_since": self.shadow_since.isoformat() if self.shadow_since else None,
            "warm_up_seconds": self.warm_up.total_seconds(),
            "settle_seconds": self.settle.total_seconds(),
            "mirrored_share": self.mirrored_share,
            "slo_ms": self.slo_ms,
            "first_token_ratio": self.first_token_ratio,
            "slices": [field.name for field in self.slices],
            "cluster": self.cluster.name if self.cluster else "request",
            "absolute_tolerance": rules.tolerance.absolute,
            "relative_tolerance": rules.tolerance.relative,
            "tolerances": {
                rule.spelling: [rule.how.absolute, rule.how.relative]
                for rule in rules.by_path
                if isinstance(rule.how, Tolerance)
            },
            "ignored": sorted(r.spelling for r in rules.by_path if isinstance(r.how, Ignored)),
            "rules": [as_plain(rule) for rule in rules.by_path],
            "min_coverage": margins.min_coverage,
            "max_new_faults": margins.max_faults,
            "max_disagreement": margins.max_disagreement,
            "max_newly_slow": margins.max_slow,
            "max_late_first_tokens": margins.max_late_first_tokens,
            "max_bad": margins.allowed_bad,
            "max_newest_block": margins.newest_factor,
            "max_worst_block": margins.worst_factor,
            "noise_floor": margins.noise_floor,
            "judge": self.judge,
            "judge_sample": self.judge_sample,
            "max_judged_worse": margins.max_judged_worse,
            "allow_worse_slices": margins.allow_worse_slices,
            "alpha": margins.alpha,
            "min_duration_seconds": margins.min_duration.total_seconds(),
        }

    def sha256(self) -> str:
        """A fingerprint of the settings: equal settings, equal judgement of equal rows."""
        text = orjson.dumps(self.as_plain(), option=orjson.OPT_SORT_KEYS)
        return hashlib.sha256(text).hexdigest()


def parse_span(text: str, option: str) -> timedelta:
    """A span like `90s`, `15m`, `24h`, `7d` or `1h30m`; SettingWrong otherwise."""
    parts = _SPAN.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise SettingWrong(f"{option} is '{text}'; write a span like 90s, 15m, 24h or 7d.")
    try:
        return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))
    except OverflowError as error:
        raise SettingWrong(f"{option} is '{text}', too long; write it like 7d.") from error


def parse_share(text: str, option: str) -> float:
    """A share like `0.1` or `10%`; SettingWrong when it is not a number, whatever its range."""
    figure = text.strip().removesuffix("%")
    try:
        return float(figure) / (100 if figure != text.strip() else 1)
    except ValueError as error:
        raise SettingWrong(f"{option} is '{text}'; write 0.1 or 10% for 10 %.") from error


def parse_noise_floor(text: str, option: str) -> NoiseFloor:
    """`auto`, `off` or a share; SettingWrong otherwise."""
    if text == "auto":
        return "auto"
    if text == "off":
        return "off"
    try:
        return parse_share(text, option)
    except SettingWrong as error:
        what = f"{option} is '{text}'; write auto, off, or a share like 12%."
        raise SettingWrong(what) from error


def parse_time(text: str, option: str) -> datetime:
    """An ISO 8601 time, UTC when it has no offset; SettingWrong otherwise."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise SettingWrong(
            f"{option} is '{text}'; write a time like 2026-11-23T14:00:00Z."
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def parse_cluster(text: str) -> RequestField | TimeUnit | None:
    """`request`, a time unit (`minute`), or a request field; SettingWrong otherwise.

    A field of that name is written `$.minute`.
    """
    if text == "request":
        return None
    return TIME_UNITS[text] if text in TIME_UNITS else parse_field(text, "--cluster")


def parse_field(text: str, option: str) -> RequestField:
    """A request field for --slice or --cluster; SettingWrong otherwise."""
    try:
        return RequestField.of(text)
    except ValueError as error:
        raise SettingWrong(f"{option}: {error}") from error
