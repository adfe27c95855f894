"""The command line: exit codes of the contract, files, and failures in one line."""

from __future__ import annotations

import json
import random
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from traffic import PRIMARY, SHADOW, START, pair, pairs, record

from embedded_postgres import Postgres, as_role
from shadow_report.__main__ import main
from shadow_report.wording import percent


def run(monkeypatch: pytest.MonkeyPatch, uri: str | None, *options: str) -> int:
    """The exit code of `shadow-report compare` with these options."""
    if uri is None:
        monkeypatch.delenv("POSTGRES_URI", raising=False)
    else:
        monkeypatch.setenv("POSTGRES_URI", uri)
    monkeypatch.setattr(sys, "argv", ["shadow-report", "compare", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_exit_codes_are_the_contracts(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str
) -> None:
    """INVALID 12 without calls, WAIT 11 with few, REJECT 10 and PROMOTE 0 with enough."""
    assert run(monkeypatch, report_uri) == 12
    record(tables, pairs(100))
    assert run(monkeypatch, report_uri) == 11
    record(tables, pairs(9_000, first=100))
    assert run(monkeypatch, report_uri) == 0
    record(tables, [c for i in range(9_100, 9_600) for c in pair(i, None, {"answer": "[]"})])
    assert run(monkeypatch, report_uri) == 10


def test_json_has_the_contracts_keys(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str, tmp_path: Path
) -> None:
    """--json writes the report with the fixed top-level keys."""
    record(tables, pairs(200) + pair(200, None, {"answer": b"NaN"}))
    file = tmp_path / "report.json"
    code = run(monkeypatch, report_uri, "--json", str(file), "--slo-ms", "100")
    report = json.loads(file.read_text())
    assert {"schema_version", "verdict", "reasons", "pairs", "gates"} <= report.keys()
    assert (report["verdict"], code, report["pairs"]) == ("WAIT", 11, 201)
    assert [gate["name"] for gate in report["gates"]] == [
        "coverage", "faults", "disagreement", "bad", "slow", "newest", "worst",
    ]  # fmt: skip
    assert report["settings"]["slo_ms"] == 100
    assert len(report["settings_sha256"]) == 64


def test_an_option_that_named_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tables: str,
    report_uri: str,
    tmp_path: Path,
) -> None:
    """A typo, on the terminal, on the page and in the JSON; what took effect is noted."""
    record(tables, pairs(20, answer='{"request_id": 1, "predictions": [1.0]}'))
    files = "--json", str(tmp_path / "report.json"), "--html", str(tmp_path / "report.html")
    options = [
        *("--ignore", "$['request_id']", "--ignore", "$.reqest_id", "--slice", "$.values[0]"),
        *("--rule", "predictions[*].scores=number,absolute=0.1"),
        *("--tolerance", "predictions[3]=0.1", "--cluster", "user", "--slice", "header:x-team"),
    ]
    assert run(monkeypatch, report_uri, *options, *files) == 11
    report = json.loads((tmp_path / "report.json").read_text())
    unmatched = [
        "rule predictions[*].scores", "tolerance predictions[3] (did you mean predictions[*]?)",
        "ignore reqest_id (did you mean request_id?)", "--slice header:x-team", "--cluster user",
    ]  # fmt: skip
    assert report["unmatched_rules"] == unmatched
    assert "Not compared: request_id." in report["notes"]
    printed, page = capsys.readouterr().out, (tmp_path / "report.html").read_text()
    assert all(f"No effect {rule}: " in printed for rule in unmatched)
    assert all(f"<code>{rule}</code> had no effect." in page for rule in unmatched)


def assert_one_line(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    """Exactly one line on stderr, with these words in it."""
    error = capsys.readouterr().err
    assert error.endswith("\n")
    assert error.count("\n") == 1, error
    for word in words:
        assert word in error


def test_a_missing_uri_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, None) == 2
    assert_one_line(capsys, "POSTGRES_URI is not set")


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("127.0.0.1:9/inference", "Connection refused"),
        ("no-such-host.invalid:5432/inference", "no-such-host.invalid"),
    ],
)
def test_an_unreachable_server_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str, reason: str
) -> None:
    """The line names the server without the password, and why."""
    assert run(monkeypatch, f"postgresql://report:s3cret@{place}") == 1
    error = capsys.readouterr().err
    assert f"Postgres at {place} does not answer" in error
    assert reason in error
    assert "s3cret" not in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        # A server that asks for passwords does not tell that the role is missing.
        ({"user": "nobody"}, '"nobody"'),
        ({"dbname": "nowhere"}, 'database "nowhere" does not exist'),
    ],
)
def test_a_refusal_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report_uri: str,
    parts: dict[str, str],
    reason: str,
) -> None:
    """A user or a database that is not there."""
    assert run(monkeypatch, make_conninfo(report_uri, **parts)) == 1
    assert_one_line(capsys, "refuses the connection", reason, "POSTGRES_URI")


def test_a_database_that_the_role_may_not_connect_to_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_postgres: Postgres
) -> None:
    """The server's DETAIL, a line of its own, does not say which database it is."""
    with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(
            sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC, report").format(
                sql.Identifier(name)
            )
        )
    assert run(monkeypatch, as_role(own_postgres.uri, "report")) == 1
    assert_one_line(
        capsys, "refuses the connection", f'permission denied for database "{name}"', "CONNECT"
    )


@pytest.mark.parametrize(
    ("password", "reason"),
    [("wrong", "password authentication failed"), (None, "no password supplied")],
)
def test_a_wrong_or_missing_password_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    own_postgres: Postgres,
    password: str | None,
    reason: str,
) -> None:
    with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
        connection.execute("ALTER ROLE report PASSWORD 'right'")
        (own_postgres.folder / "pg_hba.conf").write_text(
            "host all report all scram-sha-256\nhost all all all trust\n"
        )
        connection.execute("SELECT pg_reload_conf()")
    uri = make_conninfo(as_role(own_postgres.uri, "report"), password=password)
    assert run(monkeypatch, uri) == 1
    assert_one_line(capsys, "refuses the connection", reason, "check the user, the password")


def test_a_role_without_a_login_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], own_postgres: Postgres
) -> None:
    uri = as_role(own_postgres.uri, "report")
    with psycopg.connect(own_postgres.uri, autocommit=True) as connection:
        connection.execute("ALTER ROLE report NOLOGIN")
    assert run(monkeypatch, uri) == 1
    assert_one_line(capsys, "is not permitted to log in", "by ALTER ROLE ... LOGIN")


def test_a_full_disk_of_the_server_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    postgres_uri: str,
) -> None:
    """The server reports the fault as it does when the sort of a large comparison finds no room."""
    record(postgres_uri, pairs(10))
    with psycopg.connect(postgres_uri) as connection:
        connection.execute("""
            CREATE FUNCTION no_room() RETURNS boolean LANGUAGE plpgsql AS $$
            BEGIN
                RAISE 'could not write: No space left on device' USING ERRCODE = 'disk_full';
            END $$
        """)
        connection.execute("ALTER TABLE inference_responses ENABLE ROW LEVEL SECURITY")
        connection.execute("CREATE POLICY full_disk ON inference_responses USING (no_room())")
    assert run(monkeypatch, as_role(postgres_uri, "report")) == 1
    assert_one_line(capsys, "no room", "No space left on device", "--last")


@pytest.mark.parametrize("uri", ["nonsense", "http://example.org/", "postgresql://[::1/x"])
def test_a_wrong_uri_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], uri: str
) -> None:
    assert run(monkeypatch, uri) == 1
    assert_one_line(capsys, "POSTGRES_URI")


def test_missing_tables_are_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], empty_postgres_uri: str
) -> None:
    assert run(monkeypatch, empty_postgres_uri) == 1
    assert_one_line(capsys, "make schema")


def test_a_wrong_role_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tables: str
) -> None:
    assert run(monkeypatch, as_role(tables, "transformer")) == 1
    assert_one_line(capsys, "role report")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--last", "5 minutes"), ("--last", "5 minutes", "15m")),
        (("--since", "yesterday"), ("--since", "2026-")),
        (("--last", "1h", "--since", "2026-01-01"), ("one of them",)),
        (("--since", "2026-01-02", "--until", "2026-01-01"), ("--since before --until",)),
        (("--tolerance", "predictions[*]"), ("--tolerance", "predictions[*]=0.01")),
        (("--tolerance", "a=1,2,3"), ("--tolerance",)),
        (("--tolerance", "a=nan"), ("--tolerance",)),
        (("--tolerance", "a[=0.1"), ("--tolerance", "'a['", "predictions[*]")),
        (("--ignore", "a[x]"), ("--ignore", "'a[x]'", "predictions[*]")),
        (("--ignore", "a[2:1]"), ("--ignore", "'a[2:1]'", "correct its slice")),
        (("--ignore", "$"), ("--ignore", "'$'", "the whole body")),
        (("--slice", ""), ("--slice", "''", "predictions[*]")),
        (("--cluster", "a[::0]"), ("--cluster", "'a[::0]'", "correct its slice")),
        (("--slice", "header:"), ("--slice", "header:x-country")),
        (("--mirrored-share", "0"), ("--mirrored-share", "up to 1")),
        (("--max-disagreement", "2"), ("max_disagreement", "0.1 for 10 %")),
        (("--max-disagreement", "ten"), ("--max-disagreement is 'ten'", "0.1 or 10%")),
        (("--mirrored-share", "%"), ("--mirrored-share is '%'", "0.1 or 10%")),
        (("--min-coverage", "200%"), ("min_coverage is 2.0",)),
        (("--alpha", "0"), ("alpha",)),
        (("--abs-tol", "-1"), ("tolerance",)),
        (("--slo-ms", "0"), ("--slo-ms",)),
    ],
)
def test_usage_errors_name_the_option_the_value_and_the_remedy(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    options: tuple[str, ...],
    words: tuple[str, ...],
) -> None:
    assert run(monkeypatch, "postgresql://127.0.0.1:9/x", *options) == 2
    assert_one_line(capsys, *words)


@pytest.mark.parametrize(
    ("program", "typed", "hint"),
    [
        ("/somewhere/bin/shadow-report", None, "`/somewhere/bin/shadow-report compare --help`"),
        ("python", None, "`python compare --help`"),
        ("lib/shadow_report/__main__.py", None, "`python -m shadow_report compare --help`"),
        ("shadow-report", "make report ARGS=--help", "`make report ARGS=--help`"),
    ],
)
def test_a_mistyped_option_is_one_line_with_a_command_that_is_there(  # noqa: PLR0917
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    program: str,
    typed: str | None,
    hint: str,
) -> None:
    """By its name where that is on PATH, as it was typed elsewhere, or as its wrapper says."""
    found = tmp_path / "python"
    found.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    if typed is not None:
        monkeypatch.setenv("SHADOW_REPORT_HELP", typed)
    monkeypatch.setattr(sys, "argv", [program, "compare", "--hmtl", "x"])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert_one_line(capsys, "No such option: --hmtl", "--html", f"{hint} has the options.")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("serve", "--judge", "http://j/v1"), "of serve: --judge (it is one of compare)"),
        (
            ("serve", "--until", "2026-11-20"),
            "of serve: --until (it is one of compare, replay, follow)",
        ),
        (("compare", "--port", "1"), "of compare: --port (it is one of follow, serve)"),
        (("compare", "--to", "http://s"), "of compare: --to (it is one of replay, follow)"),
    ],
)
def test_an_option_of_another_command_names_that_one(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    message: str,
) -> None:
    """And no option of nearly its name, which would be another thing."""
    monkeypatch.setattr(sys, "argv", ["shadow-report", *words])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert_one_line(capsys, f"No such option {message}; `", f"{words[0]} --help` has the options.")


def test_written_files_are_announced(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report_uri: str,
    tmp_path: Path,
) -> None:
    """One line each on stderr, so that stdout holds the report alone."""
    monkeypatch.chdir(tmp_path)
    options = ("--json", "report.json", "--html", "report.html", "--junit", "gates.xml")
    assert run(monkeypatch, report_uri, *options) == 12
    files = ["report.json", "report.html", "gates.xml"]
    assert capsys.readouterr().err.splitlines() == [f"wrote {file}" for file in files]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(files)


def test_an_unwritable_file_is_said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    report_uri: str,
    tmp_path: Path,
) -> None:
    """The report is printed all the same, and the other files are written; the exit code is 1."""
    page, gates = tmp_path / "no" / "report.html", tmp_path / "gates.xml"
    options = ("--html", str(page), "--json", "/dev/full", "--junit", str(gates))
    assert run(monkeypatch, report_uri, *options) == 1
    printed = capsys.readouterr()
    assert printed.out.startswith(" INVALID ")
    announced, said = printed.err.splitlines()
    assert announced == f"wrote {gates}"
    assert f"--html {page} (No such file or directory)" in said
    assert "--json /dev/full (No space left on device)" in said
    assert "folder" in said


def test_the_mirror_percentage_is_the_measure_of_coverage(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str, tmp_path: Path
) -> None:
    """MIRROR_PERCENTAGE says what is mirrored; --mirrored-share knows better."""
    record(tables, [c for i in range(400) for c in pair(i)[: 2 - i % 2]])
    file = tmp_path / "report.json"

    def coverage(*options: str) -> float:
        run(monkeypatch, report_uri, "--json", str(file), *options)
        return float(json.loads(file.read_text())["integrity"]["coverage"])

    assert coverage() == 0.5
    monkeypatch.setenv("MIRROR_PERCENTAGE", "50")
    assert coverage() == 1
    assert coverage("--mirrored-share", "1") == 0.5
    monkeypatch.setenv("MIRROR_PERCENTAGE", "")
    assert coverage() == 0.5


def test_shares_may_be_given_in_per_cent(
    monkeypatch: pytest.MonkeyPatch, report_uri: str, tmp_path: Path
) -> None:
    file = tmp_path / "report.json"
    options = ("--max-disagreement", "10%", "--mirrored-share", "50 %", "--alpha", "0.1")
    run(monkeypatch, report_uri, "--json", str(file), *options)
    settings = json.loads(file.read_text())["settings"]
    shares = [settings[name] for name in ("max_disagreement", "mirrored_share", "alpha")]
    assert shares == [0.1, 0.5, 0.1]


@pytest.mark.parametrize("percentage", ["0", "101", "half", "nan"])
def test_a_wrong_mirror_percentage_is_a_usage_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], percentage: str
) -> None:
    monkeypatch.setenv("MIRROR_PERCENTAGE", percentage)
    assert run(monkeypatch, "postgresql://127.0.0.1:9/x") == 2
    assert_one_line(capsys, f"MIRROR_PERCENTAGE is '{percentage}'", "--mirrored-share")


def test_the_model_version_stands_beside_the_service(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tables: str,
    report_uri: str,
) -> None:
    """Of the side that recorded one; the other recorded NULL."""
    calls = (c for i in range(10) for c in pair(i, {"version": "first"}, {"version": None}))
    record(tables, calls)
    assert run(monkeypatch, report_uri) == 11
    lines = capsys.readouterr().out.splitlines()
    assert f"primary  {PRIMARY}, version first" in lines
    assert f"shadow   {SHADOW}" in lines


def test_the_service_can_be_chosen(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str
) -> None:
    record(tables, pairs(10))
    assert run(monkeypatch, report_uri, "--primary", PRIMARY) == 11
    assert run(monkeypatch, report_uri, "--primary", "other") == 12


def test_only_the_newest_version_is_compared_when_asked_to(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str
) -> None:
    old = [replace(call, version="old") for call in pairs(10)]
    record(tables, old + pairs(10, first=100))
    assert run(monkeypatch, report_uri) == 12
    assert run(monkeypatch, report_uri, "--since-rollout") == 11


def test_times_are_in_utc_whatever_the_sessions_zone(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str, tmp_path: Path
) -> None:
    """The page's "When (UTC)", and the times in the JSON."""
    record(tables, pairs(20) + pair(20, None, {"answer": "[]"}))
    file, page = tmp_path / "report.json", tmp_path / "report.html"
    tokyo = make_conninfo(report_uri, options="-c timezone=Asia/Tokyo")
    assert run(monkeypatch, tokyo, "--json", str(file), "--html", str(page)) == 11
    report = json.loads(file.read_text())
    (example,) = report["signatures"][0]["largest"]
    assert example["request_time"].endswith("Z")
    assert f"{START + timedelta(seconds=2):%Y-%m-%d %H:%M:%S}</td>" in page.read_text()


def test_many_ways_of_differing_are_named_by_what_they_have_in_common(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str, tmp_path: Path
) -> None:
    """With 200 fields that differ now and then, no two pairs differ in the same places."""
    chooser = random.Random(1)
    calls = []
    for i in range(400):
        primary = {f"f{k}": 1.0 for k in range(200)}
        differing = chooser.sample(range(200), 2 if i % 2 else 20)
        shadow = primary | {f"f{k}": 2.0 for k in differing}
        calls += pair(i, {"answer": json.dumps(primary)}, {"answer": json.dumps(shadow)})
    record(tables, calls)
    file = tmp_path / "report.json"
    assert run(monkeypatch, report_uri, "--json", str(file)) == 10
    report = json.loads(file.read_text())
    assert report["signatures"][0]["signature"] == "various places: number"
    alike = report["signatures"][0]["pairs"]
    assert alike > 200
    most = report["paths"][0]
    often = (
        f"Most often {most['path']} is another number: {most['differing_pairs']} of 400 such pairs."
    )
    assert often in report["reasons"][0]
    assert (
        "; and 197 more differences. Some pairs differ in several places." in report["reasons"][0]
    )


FAULT = {"status": 500, "answer": "{}"}
EXTRA = {"answer": '{"predictions": [6.6, 124.6, 648.0], "by": "me"}'}


@pytest.mark.parametrize(
    ("shadow", "other", "words"),
    [
        ({"answer": '{"predictions": [6.6, 7, 648.0]}'}, EXTRA, "predictions[*] is another number"),
        ({"status": 202}, EXTRA, "the status 200 became 202"),
        ({"answer": '{"predictions": [6.6, 124.6]}'}, FAULT, "predictions has another length"),
        ({"answer": "{}"}, FAULT, "predictions is missing"),
        ({"answer": b"<html>"}, FAULT, "the answer is not JSON"),
        ({"status": 503, "answer": "{}"}, FAULT, "the shadow failed with 503"),
        ({"status": None}, FAULT, "the shadow did not answer"),
    ],
    ids=str,
)  # fmt: skip
def test_what_differs_most_often_is_a_clause(  # noqa: PLR0917 - one per fixture
    monkeypatch: pytest.MonkeyPatch,
    tables: str,
    report_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    shadow: dict[str, object],
    other: dict[str, object],
    words: str,
) -> None:
    """The same on the terminal, on the page and in the JSON, with how many of how many."""
    calls = [c for i in range(60) for c in pair(i, None, shadow if i % 3 else other)]
    record(tables, calls)
    page = tmp_path / "report.html"
    run(monkeypatch, report_uri, "--html", str(page), "--json", str(tmp_path / "r.json"))
    often = f"Most often {words}: 40 of 60 such pairs."
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["signatures"][0]["in_words"] == words
    assert any(often in reason for reason in report["reasons"])
    assert often in page.read_text()
    assert often in " ".join(capsys.readouterr().out.split())


def test_one_kind_of_difference_is_shown_once_and_the_rest_of_it_counted(
    monkeypatch: pytest.MonkeyPatch,
    tables: str,
    report_uri: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The graver kind comes first, and a rarer one before a second pair of the frequent one."""
    answer = '{"predictions": [6.6, 124.6, 648.0], "label": "a", "n": 1}'
    number = answer.replace("648", "649")
    kinds = (
        (number, 30),
        (number.replace('"n": 1', '"n": 2'), 20),
        (answer.replace('"a"', '"b"'), 10),
    )
    shadows = [{"answer": shadow} for shadow, count in kinds for _ in range(count)]
    record(tables, [c for i, s in enumerate(shadows) for c in pair(i, {"answer": answer}, s)])
    page = tmp_path / "report.html"
    run(monkeypatch, report_uri, "--html", str(page), "--verbose")
    shown = " ".join(capsys.readouterr().out.split("Worst pairs")[1].split())
    order = (
        "10 of 60 pairs",
        "30 of 60 pairs",
        "20 of 60 pairs",
        "another of these: 28 more",
        "these: 27 more",
    )
    found = [shown.index(words) for words in order]
    assert found == sorted(found)
    assert ">another of these: 28 more</td>" in page.read_text()


def test_one_share_is_rounded_once(
    monkeypatch: pytest.MonkeyPatch, tables: str, report_uri: str, tmp_path: Path
) -> None:
    """The tile and the gate of a share have the same number of pairs below the line."""
    calls = pairs(100) + [c for i in range(100, 150) for c in pair(i, None, {"status": 500})]
    calls += [
        c for i in range(150, 157) for c in pair(i, None, {"answer": '{"predictions": [1, 2, 3]}'})
    ]
    record(tables, calls)
    page = tmp_path / "report.html"
    run(monkeypatch, report_uri, "--html", str(page), "--json", str(tmp_path / "r.json"))
    gate = json.loads((tmp_path / "r.json").read_text())["gates"][2]
    assert f"{percent(gate['estimate'])} of 107 pairs that agree or differ" in page.read_text()
