"""The live verdict is that of `compare`, in whatever order the rows arrive and whatever changes."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from traffic import PRIMARY, SHADOW, START, Call, pair, pairs, record

from embedded_postgres import as_role
from shadow_report import OneLineError
from shadow_report.answers.paths import RequestField, Rule, Rules
from shadow_report.compare import observe
from shadow_report.evidence.database import open_tables
from shadow_report.live.tally import Tally
from shadow_report.maintain import maintain
from shadow_report.output.files import plain
from shadow_report.report import Report
from shadow_report.settings import TIME_UNITS, Comparison

SECONDS = 180


@dataclass
class Live:
    """A tally of a database, and what `compare` says of the same window."""

    admin: str
    settings: Comparison = field(default_factory=Comparison)

    def __post_init__(self) -> None:
        self.uri = as_role(self.admin, "report")
        self.tally = Tally(self.settings, recounting_share=1.0)

    def look(self, until: datetime) -> Report:
        with open_tables(self.uri) as tables:
            report = self.tally.look(tables, until)
        assert report is not None
        return report

    def compared(self, until: datetime) -> Report:
        """What `compare --until` says when that has just settled."""
        settings = replace(self.settings, until=until)
        with open_tables(self.uri) as tables:
            tables.now = lambda: until + settings.settle  # type: ignore[method-assign]
            observed = observe(tables, settings, lambda done, of: None)
            return replace(observed, generated_at=datetime.now(UTC)).report()

    def agrees(self, until: datetime) -> Report:
        """A look, which must say what `compare` says."""
        live = self.look(until)
        judged_until = datetime.fromisoformat(str(live.settings["until"]))
        assert figures(live) == figures(self.compared(judged_until))
        return live

    def sql(self, statement: str) -> None:
        with psycopg.connect(self.admin, autocommit=True) as connection:
            connection.execute(statement.encode())
            # Postgres adds up a session's changes at its end, or a second later.
            connection.execute("SELECT pg_stat_force_next_flush()")


def figures(report: Report) -> object:
    """All that a report says but when; floats up to the rounding of sums in another order."""
    return rounded(plain(replace(report, generated_at=START)))


def rounded(value: object) -> object:
    match value:
        case float():
            return float(f"{value:.9g}")
        case dict():
            return {key: rounded(item) for key, item in value.items()}
        case list():
            return [rounded(item) for item in value]
        case _:
            return value


@pytest.fixture
def live(postgres_uri: str) -> Live:
    return Live(postgres_uri)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_adds_what_is_new_and_says_what_compare_says(live: Live) -> None:
    """A minute of traffic in small portions: counted from the start once, then added to."""
    for i in range(12):
        portion = pairs(50, first=50 * i)
        record(live.admin, numbered(portion, 50 * i))
        live.agrees(at(5 * (i + 1)))
    assert live.tally.looks == {"added": 11, "rebuilt": 1, "failed": 0}


def test_first_tokens_of_new_streams_are_added(postgres_uri: str) -> None:
    """Fifty that come as early, then many that are late; each look says what compare says."""
    live = Live(postgres_uri, Comparison(first_token_ratio=1.5))
    portions = ((0, 50, 100.0, "WAIT"), (50, 550, 200.0, "REJECT"))
    for first, end, first_token_ms, verdict in portions:
        stream = {"protocol": "openai", "generation": {"stream_end": "done"}}
        sides = ({"ttft_ms": 100.0} | stream, {"ttft_ms": first_token_ms} | stream)
        streams = [call for i in range(first, end) for call in pair(i, *sides)]
        record(live.admin, numbered(streams, first))
        assert live.agrees(at(end / 10)).verdict == verdict
    assert live.tally.looks["added"] == 1


@pytest.mark.parametrize("seconds", [-3, 3, 40])
def test_clocks_that_differ_cost_no_pair(live: Live, seconds: int) -> None:
    """However the shadow's calls are stamped, and whichever side's rows arrive first."""
    calls = numbered(pairs(600), 0)
    later = timedelta(seconds=seconds)
    stamped = [replace(c, time=c.time + later) if c.role == "shadow" else c for c in calls]
    for i, first in enumerate(range(0, 1200, 200)):
        portion = stamped[first : first + 200]
        held, rest = portion[-21::2], portion[:-21] + portion[-20::2]
        record(live.admin, rest)
        live.agrees(at(10 * (i + 1)))
        record(live.admin, held)
        live.agrees(at(10 * (i + 1)))
    report = live.agrees(at(120))
    assert (report.pairs, report.primary.calls, report.shadow.calls) == (600, 600, 600)
    assert (report.primary.unpaired, report.shadow.unpaired) == (0, 0)


@pytest.mark.parametrize("source", ["x-shadow-pair-id", "generated"])
def test_begins_before_there_is_a_call(live: Live, source: str) -> None:
    """Started first, it takes up the calls as they come: those of an entry, and those of a primary
    that nobody follows yet.
    """
    assert live.agrees(at(0)).primary.calls == 0
    calls = numbered(pairs(50), 0)
    alone = [replace(call, source=source) for call in calls if call.role == "primary"]
    record(live.admin, alone)
    assert live.agrees(at(60)).primary.calls == 50


def numbered(calls: list[Call], first: int) -> list[Call]:
    """The calls of some pairs, with the numbers that one recorder of each side would give them."""
    return [replace(call, sequence=first + i // 2 + 1) for i, call in enumerate(calls)]


def test_what_a_follower_sends_is_judged_as_far_as_it_has_come(live: Live) -> None:
    """However few calls there are: what it has not sent yet is in flight, and nothing else."""
    calls = numbered(pairs(100), 0)
    sent = {"x-shadow-source": "follow"}
    shadow = [
        replace(call, time=call.time + timedelta(seconds=9), headers=sent)
        for call in calls
        if call.role == "shadow"
    ]
    record(live.admin, [replace(c, source="generated") for c in calls if c.role == "primary"])
    for first, last in ((0, 5), (5, 90), (90, 100)):
        record(live.admin, shadow[first:last])
        report = live.agrees(at(60))
        assert (report.pairs, report.integrity.coverage) == (last, 1.0), report.reasons
    # Sent twice, by a follower that was killed in between: both come after the window's end.
    again = [replace(call, time=call.time + timedelta(seconds=60)) for call in shadow[90:]]
    record(live.admin, [replace(call, sequence=200 + i) for i, call in enumerate(again)])
    assert live.agrees(at(61)).shadow.duplicates == 10


def test_what_came_a_little_late_is_counted_from_a_checkpoint(live: Live) -> None:
    """And what came later than that from the start."""
    for i in range(5):
        record(live.admin, numbered(pairs(300, first=300 * i), 300 * i))
        live.agrees(at(30 * (i + 1)))
    late = pairs(1, first=1300, pair_id="late")
    record(live.admin, [replace(call, sequence=9000) for call in late])
    live.agrees(at(155))
    assert live.tally.looks == {"added": 5, "rebuilt": 1, "failed": 0}
    early = pairs(1, first=1, pair_id="early")
    record(live.admin, [replace(call, sequence=9001) for call in early])
    live.agrees(at(156))
    assert live.tally.looks == {"added": 5, "rebuilt": 2, "failed": 0}


def test_what_was_missing_may_still_come(live: Live) -> None:
    """An answer, and the primary's call of one that the shadow recorded alone: both were counted
    as missing, and are not any more.
    """
    record(live.admin, numbered(pairs(100, first=100), 0))
    early, late = OUTCOMES["unanswered"](20), OUTCOMES["without its primary"](30)
    record(live.admin, [replace(call, sequence=number(call) + 200) for call in (*early, *late)])
    first = live.agrees(at(60))
    assert (first.shadow.unanswered, first.integrity.mirrored_only) == (1, 1)
    apply(live, "answer")
    assert live.agrees(at(61)).shadow.unanswered == 0
    record(live.admin, [replace(pair(30, time=at(30))[0], sequence=300)])
    last = live.agrees(at(62))
    assert (last.integrity.mirrored_only, last.pairs) == (0, first.pairs + 1)


@pytest.mark.parametrize("change", ["delete", "correct"])
def test_rows_that_are_changed_are_counted_as_they_are(live: Live, change: str) -> None:
    """Deleting or correcting a row that was counted long ago."""
    record(live.admin, numbered(pairs(100), 0))
    before = live.agrees(at(60))
    apply(live, change)
    after = live.agrees(at(61))
    assert (before.pairs, before.new_faults) != (after.pairs, after.new_faults)


def test_a_count_from_the_start_that_has_to_wait_is_told(
    live: Live, caplog: pytest.LogCaptureFixture
) -> None:
    """Once, with its cause: until then whoever reads the verdict sees it grow old."""
    caplog.set_level(logging.INFO)
    live.tally = Tally(live.settings, recounting_share=1e-6)
    record(live.admin, numbered(pairs(100), 0))
    live.agrees(at(60))
    apply(live, "delete")
    with open_tables(live.uri) as tables:
        assert [live.tally.look(tables, at(61 + i)) for i in range(2)] == [None, None]
    (told,) = (said for said in caplog.messages if said.startswith("To be counted from the start"))
    assert told.endswith("the verdict stays until then: rows were changed or deleted.")


def test_days_that_retention_drops_are_forgotten(live: Live) -> None:
    """`maintain --keep` takes a day's pairs away, and the verdict is about the others."""
    days_ago = START - timedelta(days=4)
    record(live.admin, [replace(call, recorder=uuid.UUID(int=9)) for call in pairs(30)])
    old = [replace(call, time=days_ago, pair_id=f"old-{call.pair_id}") for call in pairs(20)]
    record(live.admin, old)
    maintain(live.admin, None, 1)
    assert live.agrees(at(60)).pairs == 50
    maintain(live.admin, timedelta(days=2), 1)
    assert live.agrees(at(61)).pairs == 30


def test_a_rollout_begins_anew(postgres_uri: str) -> None:
    """With --since-rollout a new version of the shadow is judged alone, as soon as it is there."""
    live = Live(postgres_uri, Comparison(since_rollout=True))
    record(live.admin, numbered(pairs(200), 0))
    assert live.agrees(at(20)).pairs == 200
    record(live.admin, numbered(pairs(400, first=200, shadow={"version": "2"}), 200))
    report = live.agrees(at(60))
    assert report.shadow.model_versions.keys() == {"2"}
    assert 300 < report.pairs < 400


def test_a_window_that_began_without_its_shadow_learns_of_it(postgres_uri: str) -> None:
    """What a new version of the shadow was sent first were calls from before its rollout, and then
    the follower was away: since then there are the primary's calls alone, until it sends them.
    """
    live = Live(postgres_uri, Comparison(since_rollout=True))
    calls = numbered(pairs(800), 0)
    primary = [replace(call, source="generated") for call in calls if call.role == "primary"]
    former, first, late = (
        [
            replace(call, time=call.time + timedelta(seconds=later), version=version)
            for call in calls[begin:end]
            if call.role == "shadow"
        ]
        for begin, end, later, version in (
            (0, 200, 1, "1"),
            (200, 240, 30, "2"),
            (780, 1400, 60, "2"),
        )
    )
    record(live.admin, primary + former + first)
    alone = live.agrees(at(80))
    assert (alone.primary.calls, alone.shadow.service, live.tally.waiting) == (409, "", 409)
    record(live.admin, late)
    report = live.agrees(at(80))
    assert (report.pairs, report.shadow.service, live.tally.waiting) == (309, SHADOW, 100)


def test_a_candidate_that_is_behind_costs_the_other_nothing(postgres_uri: str) -> None:
    """Its calls come when those of their time were judged long ago: nothing is counted again."""
    live = Live(postgres_uri, Comparison(shadow=SHADOW))
    behind = {"service": "behind", "recorder": uuid.UUID(int=3)}
    for turn in range(8):
        first = 300 * turn
        calls = [replace(c, source="generated") for c in numbered(pairs(300, first=first), first)]
        early = numbered(pairs(100, first=100 * turn, shadow=behind), 100 * turn)
        late = [replace(c, time=at(30 * turn + 29)) for c in early if c.role == "shadow"]
        record(live.admin, [*calls, *late])
        # Without a checkpoint, whatever is counted again is counted from the start.
        live.tally._checkpoints.clear()
        assert live.agrees(at(30 * (turn + 1))).pairs == first + 300
    assert live.tally.looks == {"added": 7, "rebuilt": 1, "failed": 0}


def test_the_first_call_is_asked_to_wait_for(postgres_uri: str) -> None:
    """A window that ends before it has no `--until` that anybody gave."""
    live = Live(postgres_uri, Comparison(since_rollout=True))
    record(live.admin, [call for call in pairs(5) if call.role == "primary"])
    with open_tables(live.uri) as tables:
        tables.now = lambda: at(1)  # type: ignore[method-assign]
        report = live.tally.look(tables, None)
    assert report is not None
    assert "not one call" in report.reasons[0]
    assert report.reasons[0].endswith("older than --settle; look again then.")


def test_a_look_that_fails_leaves_nothing_half_counted(live: Live) -> None:
    """The server ends the connection in the middle; the next look says what `compare` says."""
    record(live.admin, numbered(pairs(100), 0))
    live.agrees(at(10))
    record(live.admin, numbered(pairs(300, first=100), 100))
    with pytest.raises(OneLineError):
        look_and_lose_the_server(live, at(40))
    assert live.agrees(at(40)).pairs == 400


def look_and_lose_the_server(live: Live, until: datetime) -> None:
    """The connection is ended when the look knows what is new."""
    with open_tables(live.uri) as tables:
        arrivals = tables.arrivals

        def ended(*asked: Any) -> Any:
            found = arrivals(*asked)
            live.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE application_name = 'shadow-report'"
            )
            return found

        tables.arrivals = ended  # type: ignore[method-assign]
        live.tally.look(tables, until)


@pytest.mark.parametrize(
    "settings_",
    [
        {"slo_ms": 4.0, "warm_up": timedelta(seconds=7)},
        {"slices": (RequestField.of("values"),), "cluster": RequestField.of("values")},
        {"cluster": TIME_UNITS["second"], "mirrored_share": 0.5},
        {"rules": Rules(by_path=(Rule.of("error"), Rule.of("took"), Rule.of("nowhere")))},
    ],
    ids=["slo and warm-up", "slices and clusters", "share and seconds", "rules"],
)
def test_every_counter_adds_up(postgres_uri: str, settings_: dict[str, Any]) -> None:
    """Whatever is asked for is the same when it is counted in parts."""
    live = Live(postgres_uri, Comparison(**settings_))
    kinds = sorted(OUTCOMES)
    for turn in range(4):
        calls = [c for i in range(20) for c in OUTCOMES[kinds[i % len(kinds)]](20 * turn + i)]
        record(live.admin, [replace(call, sequence=number(call)) for call in calls])
        live.agrees(at(20 * (turn + 1)))


OUTCOMES: dict[str, Callable[[int], list[Call]]] = {
    "agrees": lambda i: pair(i, time=at(i)),
    "differs": lambda i: pair(i, shadow={"answer": '{"predictions": [9.9]}'}, time=at(i)),
    "fails": lambda i: pair(i, shadow={"status": 500, "answer": "{}"}, time=at(i)),
    "unanswered": lambda i: pair(i, shadow={"status": None}, time=at(i)),
    "never mirrored": lambda i: pair(i, time=at(i))[:1],
    "without its primary": lambda i: pair(i, time=at(i))[1:],
    "retried": lambda i: [
        *pair(i, time=at(i)),
        replace(pair(i)[1], time=at(i + 1), status=503, answer="{}"),
    ],
    "retried late": lambda i: [
        *pair(i, time=at(i)),
        replace(pair(i)[1], time=at(i + 20), status=503, answer="{}"),
    ],
    "answered otherwise": lambda i: [
        *pair(i, time=at(i)),
        replace(pair(i)[1], time=at(i + 1), answer='{"took": 1}'),
    ],
    "refused": lambda i: pair(
        i, {"answer": '{"error": "a"}'}, {"answer": '{"error": "b"}'}, status=400, time=at(i)
    ),
    "asked again": lambda i: pair(i, time=at(i), request=f'{{"values": [{i % 3}]}}'),
    "other clock": lambda i: pair(i, time=at(i), shadow={"time": at(i - 1)}),
    "stamped late": lambda i: pair(i, time=at(i), shadow={"time": at(i + 20)}),
    "asked twice": lambda i: [*pair(i, time=at(i)), replace(pair(i)[0], time=at(i + 3))],
}

EVENTS = st.lists(
    st.builds(
        lambda outcome, primary, shadow: (outcome, primary, shadow),
        st.sampled_from(sorted(OUTCOMES)),
        st.sampled_from([0] * 12 + [1, 3]),
        st.sampled_from([0] * 8 + [1, 2, 3, 5]),
    ),
    min_size=8,
    max_size=60,
)
CHANGES = st.lists(
    st.sampled_from(["none"] * 8 + ["delete", "correct", "answer"]), min_size=6, max_size=6
)
TURNS, STEP = 6, SECONDS / 6


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Who records the calls: by the turn in which they come, each side's version, after the name
    of a service that is not the usual one.

    followed: the shadow's calls are sent from the tables, and stamped as they arrive. behind: all
    of them arrive so many turns late. second: a second candidate gets the calls too, so many turns
    late. ahead: the tables are so many seconds ahead of what a look judges.
    """

    followed: bool = False
    keeps_order: bool = False
    primary: tuple[str, ...] = ("1",) * TURNS
    shadow: tuple[str, ...] = ("1",) * TURNS
    protocol: tuple[str, ...] = ("v1",) * TURNS
    behind: int = 0
    second: int | None = None
    ahead: float = 0

    def arriving(self, events: list[tuple[str, int, int]], turn: int) -> list[Call]:
        """What arrives in this turn: in its time, or some turns later."""
        arriving = []
        for i, (outcome, *late) in enumerate(events):
            primary, shadow = late
            # A follower sends what it has read from the tables.
            sent = primary if self.followed else 0
            delay = {"primary": primary, "shadow": max(shadow, self.behind, sent)}
            for call in OUTCOMES[outcome](SECONDS * i // len(events)):
                sides = [(self._named(call), delay[call.role])]
                if call.role == "shadow" and self.second is not None:
                    late_too = max(shadow, self.second, sent)
                    sides.append((as_service(call, "second 1"), late_too))
                arriving += [
                    self._stamped(side, turn)
                    for side, late in sides
                    if self._turn(call, late) == turn
                ]
        return arriving

    def _turn(self, call: Call, delay: int) -> int:
        return min(TURNS - 1, came(call) + (0 if self.keeps_order else delay))

    def _named(self, call: Call) -> Call:
        call = as_service(call, getattr(self, call.role)[came(call)])
        return replace(call, protocol=self.protocol[came(call)])

    def _stamped(self, call: Call, turn: int) -> Call:
        if not self.followed:
            return call
        if call.role == "primary":
            return replace(call, source="generated")
        late = timedelta(seconds=STEP * (turn - came(call)) + 1)
        return replace(call, time=call.time + late, headers={"x-shadow-source": "follow"})


def came(call: Call) -> int:
    """The turn in which a call came."""
    return min(TURNS - 1, max(0, int((call.time - START).total_seconds() // STEP)))


def as_service(call: Call, name: str) -> Call:
    """The call as this version of this service numbers it."""
    service, _, version = name.rpartition(" ")
    return replace(
        call,
        version=version,
        service=f"{service}-{call.role}" if service else None,
        recorder=uuid.uuid5(uuid.NAMESPACE_DNS, f"{call.role} {name}"),
        sequence=number(call),
    )


KINDS = st.lists(st.sampled_from(["1", "1", "2", "next 1"]), min_size=TURNS, max_size=TURNS)
PROTOCOLS = st.lists(st.sampled_from(["v1", "v1", "openai"]), min_size=TURNS, max_size=TURNS)
TRAFFIC = st.builds(
    Traffic,
    followed=st.booleans(),
    keeps_order=st.sampled_from([False, False, True]),
    primary=st.one_of(st.just(Traffic.primary), KINDS.map(tuple)),
    shadow=st.one_of(st.just(Traffic.shadow), KINDS.map(tuple)),
    protocol=st.one_of(st.just(Traffic.protocol), PROTOCOLS.map(tuple)),
    behind=st.sampled_from([0, 0, 0, 1, 2]),
    second=st.sampled_from([None, None, 0, 1, 3]),
    ahead=st.sampled_from([0, 0, 0.5, 9.5, 20]),
)
ASKED = st.builds(
    Comparison,
    since_rollout=st.booleans(),
    shadow=st.sampled_from([None, None, SHADOW, "next-shadow"]),
    primary=st.sampled_from([None, None, None, PRIMARY, "next-primary"]),
    since=st.sampled_from([None, None, at(50)]),
    mirrored_share=st.sampled_from([1.0, 1.0, 0.5]),
)


@settings(
    max_examples=12,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(events=EVENTS, changes=CHANGES, traffic=TRAFFIC, asked=ASKED)
@example([("agrees", 0, 1)] * 8, ["none"] * TURNS, Traffic(), Comparison())
@example(
    # The first pair arrives after others, its shadow's call stamped later than all that was judged.
    [("agrees", 0, 2)] * 3 + [("stamped late", 0, 1)] + [("agrees", 0, 0)] * 4,
    ["none"] * TURNS,
    Traffic(),
    Comparison(),
)
@example(
    # Since the rollout there are primary calls alone; their shadow's come when they were judged.
    [("agrees", 0, 0)] * 10 + [("agrees", 0, 1)] * 20 + [("agrees", 0, 3)] * 30,
    ["none"] * TURNS,
    Traffic(followed=True, shadow=("1", *["2"] * 5)),
    Comparison(since_rollout=True),
)
@example(
    # A second service has more calls than the first by what was late.
    [("agrees", 0, 0)] * 20 + [("agrees", 0, 2)] * 30,
    ["none"] * TURNS,
    Traffic(followed=True, shadow=("1", "1", *["next 1"] * 4)),
    Comparison(),
)
@example(
    # The primary was asked twice, and what the follower sent is of its first call.
    [("agrees", 0, 0), ("asked twice", 0, 0)] * 20,
    ["none"] * TURNS,
    Traffic(followed=True),
    Comparison(),
)
@example(
    # Of a share only what is settled counts, whoever brings it to the shadow.
    [("agrees", 0, 0), ("never mirrored", 0, 0)] * 20,
    ["none"] * TURNS,
    Traffic(followed=True, behind=1),
    Comparison(mirrored_share=0.5),
)
@example(
    # Two primaries take turns, and what was sent once more is of the one that is not compared.
    [("agrees", 0, 0)] * 15
    + [("answered otherwise", 0, 0), ("never mirrored", 0, 0)]
    + [("agrees", 0, 0)] * 24,
    ["delete"] + ["none"] * (TURNS - 1),
    Traffic(followed=True, second=1, primary=("next 1", "1", *["next 1"] * 3, "1")),
    Comparison(since=at(50)),
)
@example(
    # Two primaries take turns, and one's calls that were sent twice came to the other's window.
    [("agrees", 0, 0)] * 6
    + [("retried", 0, 0)]
    + [("agrees", 0, 0)] * 7
    + [("answered otherwise", 0, 3)]
    + [("agrees", 0, 0)] * 26,
    ["delete"] + ["none"] * (TURNS - 1),
    Traffic(followed=True, second=1, primary=("next 1", "1", *["next 1"] * 3, "1")),
    Comparison(since=at(50)),
)
@example(
    # Each call was tried twice, and the window ends between the two.
    [("answered otherwise", 0, 0)] * 60,
    ["none"] * TURNS,
    Traffic(ahead=2.5),
    Comparison(),
)
@example(
    # A call was tried again after the window's end, and is counted for good by then.
    [("agrees", 0, 0)] * 2 + [("retried late", 0, 0)] + [("agrees", 0, 0)] * 57,
    ["none"] * TURNS,
    Traffic(ahead=9.5),
    Comparison(),
)
def test_any_order_of_arrival_gives_what_compare_gives(
    postgres_uri: str,
    events: list[tuple[str, int, int]],
    changes: list[str],
    traffic: Traffic,
    asked: Comparison,
) -> None:
    """Calls of either side that come in time, late or in parts, mirrored or followed, of several
    versions, services, candidates and protocols; rows that are answered late, corrected, deleted:
    each of six looks, while the window grows, says what `compare` says of the same rows.
    """
    live = Live(postgres_uri, asked)
    live.sql("TRUNCATE inference_requests, inference_responses, inference_retention")
    for turn, change in enumerate(changes):
        record(live.admin, traffic.arriving(events, turn))
        apply(live, change)
        live.agrees(at(STEP * (turn + 1) - traffic.ahead))


def number(call: Call) -> int:
    return int((call.time - START).total_seconds()) + 30


def apply(live: Live, change: str) -> None:
    """Delete, correct or answer one of the calls that are there."""
    some = "(SELECT record_id FROM inference_requests ORDER BY pair_id, request_time LIMIT 1)"
    match change:
        case "delete":
            live.sql(f"DELETE FROM inference_requests WHERE record_id = {some}")
        case "correct":
            live.sql(
                "UPDATE inference_responses SET response_data = '{\"predictions\": [1]}'"
                f" WHERE record_id = {some}"
            )
        case "answer":
            live.sql(
                "INSERT INTO inference_responses (record_id, request_time, pair_id, response_time,"
                " status_code, duration_ms, response_data)"
                " SELECT record_id, request_time, pair_id, request_time, 200, 5, '{}'"
                " FROM inference_requests r WHERE NOT EXISTS (SELECT FROM inference_responses a"
                " WHERE a.record_id = r.record_id)"
            )
