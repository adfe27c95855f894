"""The one path language, and what the options say by path.

A path is RFC 9535 JSONPath, in which the leading `$` may be left out: `predictions[*]`,
`meta["a.b"]`, `..score`, `values[-1]`, `rows[?@.kind == "x"].id`. A v2 answer's outputs are found
by name (`outputs.score.data`), by position and by filter.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, assert_never

import orjson
from jsonpath import JSONPath, JSONPathEnvironment, JSONPathMatch
from jsonpath.exceptions import JSONPathError
from jsonpath.segments import JSONPathRecursiveDescentSegment, JSONPathSegment
from jsonpath.selectors import (
    Filter,
    IndexSelector,
    JSONPathSelector,
    NameSelector,
    SliceSelector,
    WildcardSelector,
)

from shadow_report.answers.bodies import Tensor
from shadow_report.answers.kinds import (
    TITLES,
    UNRULED,
    How,
    Ignored,
    Json,
    Labels,
    ListKind,
    Patterns,
    TextKind,
    Tolerance,
    Variant,
    are_probabilities,
    are_scores,
)
from shadow_report.answers.outcome import Outcome
from shadow_report.answers.similarity import Cosine

# A step is an object's key, or a position in a list; None stands for every position.
Step = str | int | None

# What a rule may call a matter of content.
_FORMS = (Outcome.LENGTH, Outcome.MISSING, Outcome.TYPE)

NO_VALUE = "(none)"
MAX_VALUE_LENGTH = 80

_ENVIRONMENT = JSONPathEnvironment(strict=True)
_PLAIN_NAME = re.compile(
    "[A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff][0-9A-Za-z_\u0080-\ud7ff\ue000-\U0010ffff]*"
)


def compile_path(text: str) -> JSONPath:
    """The path that `text` spells; ValueError with a remedy when it is not one.

    A path that can never name a value is refused, and so is `$`, which names the whole body.
    """
    text = text.strip()
    # Only the `$` is left out before a dot or a bracket, `$.` before a name or a wildcard.
    start = "" if text.startswith("$") else "$" if text.startswith((".", "[")) else "$."
    try:
        path = _ENVIRONMENT.compile(start + text)
    except (JSONPathError, ValueError):
        path = None
    if not isinstance(path, JSONPath):
        raise ValueError(
            f"'{text}' is not a path; write JSONPath, like predictions[*] or meta[\"a.b\"]."
        )
    if not path.segments:
        raise ValueError(f"'{text}' names the whole body; write a path, like predictions[*].")
    if any(_is_void(selector) for segment in path.segments for selector in segment.selectors):
        raise ValueError(f"'{text}' can never name a value; correct its slice or filter.")
    return path


def _is_void(selector: JSONPathSelector) -> bool:
    if isinstance(selector, Filter):
        # Neither the value nor the body is looked at: it holds for all values or for none.
        return not {"@", "$"} & set(str(selector))
    if not isinstance(selector, SliceSelector):
        return False
    step = 1 if selector.slice.step is None else selector.slice.step
    start, stop = selector.slice.start, selector.slice.stop
    if start is None:
        start = 0 if step > 0 else -1
    if step == 0 or stop is None:
        return bool(step == 0)
    # Counted from the same end, they can be compared without knowing the length.
    return (start < 0) == (stop < 0) and bool(start >= stop if step > 0 else start <= stop)


def spell(path: JSONPath) -> str:
    """The path as the report writes places; equal for all spellings of a path of plain steps."""
    text = ""
    for segment in path.segments:
        deep = isinstance(segment, JSONPathRecursiveDescentSegment)
        match segment.selectors:
            case (NameSelector(name=name),):
                text = f"{text}..{join('', name)}" if deep else join(text, name)
            case selectors:
                text += f"{'..' if deep else ''}[{', '.join(map(str, selectors))}]"
    return text


def join(path: str, step: Step) -> str:
    """The path one step further, written so that `compile_path` reads it back."""
    if step is None:
        return f"{path}[*]"
    if isinstance(step, int):
        return f"{path}[{step}]"
    if not _PLAIN_NAME.fullmatch(step):
        return f"{path}[{json.dumps(step, ensure_ascii=False)}]"
    return f"{path}.{step}" if path else step


IGNORED = Ignored()


@dataclass(frozen=True, slots=True)
class Rule:
    """What is said of the places that its path names, and of all below them: how they are compared
    (None: as they would be), and which share of the pairs may differ there (None: no share of
    their own, so that they count with all others).
    """

    path: JSONPath
    how: How | None
    margin: float | None = None
    is_preset: bool = False
    """It stands for answers of many shapes, so that naming nothing says nothing."""
    word: str = "rule"
    """Of the option that it was given by: `tolerance`, `ignore`, or `rule`, as in a file."""

    @classmethod
    def of(cls, path: str, how: How | None = IGNORED, margin: float | None = None) -> Rule:
        """From a path's text; ValueError as from `compile_path`."""
        return cls(compile_path(path), how, margin)

    @property
    def spelling(self) -> str:
        """The path, the same for all ways of writing it."""
        return spell(self.path)

    @property
    def kind(self) -> str:
        """How it is called: `ignore`, `number`, `cosine` ...; `default` for a margin alone."""
        return "default" if self.how is None else TITLES[type(self.how)]

    @property
    def place(self) -> str:
        """What its margin is of, as the report writes places: its path, or there the classes that
        its patterns make of texts.
        """
        how = self.how
        return f"{self.spelling} ({how.title})" if isinstance(how, Patterns) else self.spelling

    @property
    def gate(self) -> str:
        """What the gate of its margin is called: `label (default)`, `text (refusal)`."""
        return self.place if isinstance(self.how, Patterns) else f"{self.spelling} ({self.kind})"

    @property
    def name(self) -> str:
        """The rule by the option that it was given by: `ignore meta.took`."""
        return f"{self.word} {self.spelling}"


@dataclass(frozen=True, slots=True)
class Rules:
    """How answers are compared: the tolerance, and the exceptions by path.

    Of several rules of one kind (numbers, lists, texts, margins) for one value that of the nearest
    place counts, of several for one place the last. Margins: `_margins`.
    """

    tolerance: Tolerance = UNRULED
    by_path: tuple[Rule, ...] = ()
    noise_floor: float | str | None = None
    """What their file says of the noise floor, as `--noise-floor` does."""
    is_of_file: bool = False
    """A file or a preset was named, so that none is taken unasked."""

    @property
    def has_filters(self) -> bool:
        """Whether a rule chooses by value."""
        return any(
            isinstance(selector, Filter)
            for rule in self.by_path
            for segment in rule.path.segments
            for selector in segment.selectors
        )

    @property
    def margins(self) -> tuple[int, ...]:
        """The rules whose margins are gates, by their number: of several at one path the last.

        That of a rule for lists is beside one for the values in them, and those of patterns are by
        themselves, as the classes are that they make of texts.
        """
        at: dict[str, list[tuple[int, Rule]]] = defaultdict(list)
        patterns: dict[str, int] = {}
        for number, rule in enumerate(self.by_path):
            at[rule.spelling].append((number, rule))
            if rule.margin is not None and isinstance(rule.how, Patterns):
                patterns[rule.spelling] = number
        held = (number for rules in at.values() for number in _margins(rules))
        return tuple(sorted({*patterns.values(), *(n for n in held if n is not None)}))

    def at_root(self) -> RulesHere:
        """What they say of an answer as a whole."""
        starts = frozenset((rule, 0) for rule in range(len(self.by_path)))
        return RulesHere(rules=self, numbers=self.tolerance, open=starts)


# How far a rule's path has been walked: which rule, and how many of its segments.
Progress = tuple[int, int]
NONE_CHOSEN: frozenset[Progress] = frozenset()


@dataclass(frozen=True, slots=True)
class RulesHere:
    """What the rules say at one place of the answers, and how far the others have come there.

    Names and wildcards are settled once for a place (`below`). Positions and filters depend on the
    values: where `chooses`, `choices` must be asked for each pair of lists or objects.
    """

    rules: Rules
    numbers: Tolerance | Labels
    open: frozenset[Progress]
    is_ignored: bool = False
    lists: ListKind | None = None
    list_rule: int | None = None
    """The rule that `lists` is of."""
    text: TextKind | None = None
    patterns: Patterns | None = None
    is_json: bool = False
    is_variant: bool = False
    margin: int | None = None
    """The rule whose margin holds for what differs here, but for what `lists` finds."""
    list_margin: int | None = None
    """The same for what `lists` finds: its own, or one above that is not of numbers or texts."""
    json_margin: int | None = None
    """The same for the fields of JSON in a text, which is not compared as one."""
    pattern_margin: int | None = None
    """The same for the classes that `patterns` makes of texts."""
    named: frozenset[int] = frozenset()
    """The rules whose paths name this very place."""

    @property
    def reads_text(self) -> bool:
        """Whether text is more here than a label: equal or not."""
        return (
            self.is_json
            or self.text is not None
            or self.patterns is not None
            or isinstance(self.lists, Cosine)
        )

    @property
    def of_list(self) -> RulesHere:
        """What they say of what the rule for lists finds."""
        return self if self.lists is None else replace(self, margin=self.list_margin)

    @property
    def tolerance(self) -> Tolerance:
        """That of numbers; labels have none."""
        return self.numbers if isinstance(self.numbers, Tolerance) else Tolerance()

    def are_classes(self, primary: dict[str, Any], shadow: dict[str, Any]) -> bool:
        """Whether the numbers of two objects are of classes: of objects that the rule for lists
        names any, and below them probabilities alone, since a record has numbers, too.
        """
        is_named = self.list_rule in self.named
        are_both = is_named or (are_probabilities(primary) and are_probabilities(shadow))
        return are_both and are_scores(primary, shadow)

    def of_patterns(self) -> RulesHere:
        """What they say of the classes that `patterns` makes of texts."""
        return RulesHere(self.rules, self.numbers, frozenset(), margin=self.pattern_margin)

    @property
    def chooses(self) -> bool:
        """Whether some rule chooses among the items here by position or by value."""
        return any(True for _ in self._choosers())

    def below(self, step: Step, chosen: frozenset[Progress] = NONE_CHOSEN) -> RulesHere:
        """One step further; `chosen`: what `choices` gave for that key or position."""
        reached = set(chosen)
        for rule, at in self.open:
            segment = self._segment(rule, at)
            if isinstance(segment, JSONPathRecursiveDescentSegment):
                reached.add((rule, at))
            if any(_names(selector, step) for selector in segment.selectors):
                reached.add((rule, at + 1))
        by_path = self.rules.by_path
        named = sorted(rule for rule, at in reached if at == len(by_path[rule].path.segments))
        above = self._inherited()
        here = _settled(above, [(rule, by_path[rule]) for rule in named])
        return replace(
            here,
            is_json=any(isinstance(by_path[rule].how, Json) for rule in named),
            json_margin=max(
                (
                    rule
                    for rule in named
                    if by_path[rule].margin is not None
                    and not isinstance(by_path[rule].how, TextKind | Patterns)
                ),
                default=above.margin,
            ),
            named=frozenset(named),
            open=frozenset(
                (rule, at) for rule, at in reached if at < len(by_path[rule].path.segments)
            ),
        )

    def _inherited(self) -> RulesHere:
        """What holds below: of JSON in a text, neither its form nor what is said of other texts."""
        if not self.is_json:
            return self
        hows = [self.rules.by_path[rule].how for rule in self.named]
        reads = any(isinstance(how, TextKind | Patterns) for how in hows)
        here = replace(self, is_variant=False, margin=self.json_margin)
        return replace(here, text=None, patterns=None, pattern_margin=None) if reads else here

    def outcome(self, found: Outcome) -> Outcome:
        """What a difference in form is called here."""
        return Outcome.FORM if self.is_variant and found in _FORMS else found

    def choices(
        self, values: Iterable[Any], roots: Iterable[Any]
    ) -> dict[str | int, frozenset[Progress]]:
        """Which keys or positions are chosen by which rules, in one of these lists or objects."""
        found: dict[str | int, set[Progress]] = defaultdict(set)
        for value, root in zip(values, roots, strict=True):
            for selector, progress in self._choosers():
                for key in _chosen(selector, value, root):
                    found[key].add(progress)
        return {key: frozenset(progress) for key, progress in found.items()}

    def label(self, chosen: frozenset[Progress]) -> str:
        """How the positions of a list that are `chosen` are written: `[0]`, `[*]` for the rest."""
        names = {str(selector) for selector, progress in self._choosers() if progress in chosen}
        return f"[{', '.join(sorted(names)) or '*'}]"

    def _choosers(self) -> Iterator[tuple[JSONPathSelector, Progress]]:
        for rule, at in self.open:
            for selector in self._segment(rule, at).selectors:
                if not isinstance(selector, NameSelector | WildcardSelector):
                    yield selector, (rule, at + 1)

    def _segment(self, rule: int, at: int) -> JSONPathSegment:
        return self.rules.by_path[rule].path.segments[at]


def _settled(above: RulesHere, named: list[tuple[int, Rule]]) -> RulesHere:
    """What holds above, but for what the rules that name this place say."""
    here = above
    for number, rule in named:
        how = rule.how
        if isinstance(how, Patterns):
            margin = number if rule.margin is not None else None
            here = replace(here, patterns=how, pattern_margin=margin)
            continue
        if isinstance(how, Ignored):
            here = replace(here, is_ignored=True)
        elif isinstance(how, Tolerance | Labels):
            here = replace(here, numbers=how)
        elif isinstance(how, TextKind):
            here = replace(here, text=how)
        elif isinstance(how, ListKind):
            here = replace(here, lists=how, list_rule=number)
        elif isinstance(how, Variant):
            here = replace(here, is_variant=True)
        elif not isinstance(how, Json | None):
            assert_never(how)
    margin, list_margin = _margins(named)
    return replace(
        here,
        margin=here.margin if margin is None else margin,
        list_margin=here.list_margin if list_margin is None else list_margin,
    )


def _margins(named: Iterable[tuple[int, Rule]]) -> tuple[int | None, int | None]:
    """Whose margins hold at one place: for its values, and for what a rule for lists finds there.

    The last one's each, but that a rule for numbers or texts has none for lists, and one for lists
    none for values that another rule has one for.
    """
    having = {
        number: rule.how
        for number, rule in named
        if rule.margin is not None and not isinstance(rule.how, Patterns)
    }
    of_lists = [number for number, how in having.items() if isinstance(how, ListKind)]
    of_values = [n for n, how in having.items() if isinstance(how, Tolerance | Labels | TextKind)]
    margin = max((n for n in having if not of_values or n not in of_lists), default=None)
    return margin, max(of_lists, default=None if margin in of_values else margin)


def _names(selector: JSONPathSelector, step: Step) -> bool:
    return isinstance(selector, WildcardSelector) or (
        isinstance(selector, NameSelector) and selector.name == step
    )


def _chosen(selector: JSONPathSelector, value: Any, root: Any) -> Iterable[str | int]:
    """The keys or positions in a list or object that a selector other than a name chooses."""
    # A v2 answer's outputs are a list, whatever they are kept as.
    outputs = type(value) is dict and value and all(type(v) is Tensor for v in value.values())
    keys = list(value) if outputs else range(len(value)) if type(value) is list else ()
    match selector:
        case IndexSelector(index=index):
            return [keys[index]] if -len(keys) <= index < len(keys) else ()
        case SliceSelector(slice=chosen):
            return keys[chosen]
    if outputs:
        value = {
            name: {"name": name, "datatype": t.datatype, "shape": t.shape, "data": t.data, **t.rest}
            for name, t in value.items()
        }
    node = JSONPathMatch(filter_context={}, obj=value, parent=None, path="$", parts=(), root=root)
    try:
        return [match.parts[-1] for match in selector.resolve(node)]
    except (JSONPathError, RecursionError):
        return ()


@dataclass(frozen=True, slots=True)
class RequestField:
    """Something that a request says about itself: a path into its body, or `header:NAME`."""

    name: str
    header: str | None
    path: JSONPath | None
    steps: tuple[Step, ...] | None
    """The path, when it is of names, positions and wildcards alone."""

    @classmethod
    def of(cls, text: str) -> RequestField:
        """From the command line; ValueError when it is neither a header nor a path."""
        if text.startswith("header:"):
            if not (header := text.removeprefix("header:").strip().lower()):
                raise ValueError(f"'{text}' names no header; write it like header:x-country.")
            return cls(f"header:{header}", header, None, None)
        path = compile_path(text)
        return cls(spell(path), None, path, _plain_steps(path))

    def read(self, body: object, headers: object) -> str:
        """The field's value as text, cut when it is long; of several the first."""
        if self.header is not None:
            named = headers.items() if isinstance(headers, dict) else ()
            value = next((v for k, v in named if k.lower() == self.header), None)
        elif self.steps is not None:
            value = _first(body, self.steps)
        else:
            value = self._search(body)
        if value is None:
            return NO_VALUE
        text = value if isinstance(value, str) else orjson.dumps(value).decode()
        return text[:MAX_VALUE_LENGTH]

    def _search(self, body: Any) -> object:
        assert self.path is not None  # noqa: S101 - a field is a header or a path
        try:
            return next((match.obj for match in self.path.finditer(body)), None)
        except (JSONPathError, RecursionError):
            return None


def _plain_steps(path: JSONPath) -> tuple[Step, ...] | None:
    steps: list[Step] = []
    for segment in path.segments:
        match isinstance(segment, JSONPathRecursiveDescentSegment), segment.selectors:
            case False, (NameSelector(name=step) | IndexSelector(index=step),):
                steps.append(step)
            case False, (WildcardSelector(),):
                steps.append(None)
            case _:
                return None
    return tuple(steps)


def _first(value: Any, steps: tuple[Step, ...]) -> object:
    """The first value at plain steps, in a tenth of the library's time: its matches keep their
    path and parents, and this runs for every pair.
    """
    for at, step in enumerate(steps):
        kind = type(value)
        if step is None:
            rest = steps[at + 1 :]
            for item in value.values() if kind is dict else value if kind is list else ():
                if (found := _first(item, rest)) is not None:
                    return found
            return None
        if kind is dict and type(step) is str:
            value = value.get(step)
        elif kind is list and type(step) is int and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def request_parts(body: bytes | None, headers: bytes | None) -> tuple[object, object]:
    """The request's body and headers as values; None where they are not JSON."""
    parts: list[object] = []
    for text in (body, headers):
        try:
            parts.append(orjson.loads(text) if text else None)
        except orjson.JSONDecodeError:
            parts.append(None)
    return parts[0], parts[1]
