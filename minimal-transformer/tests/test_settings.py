"""A wrong setting stops the start and says which, what it is and what to set it to."""

from __future__ import annotations

import os
import pickle

import pytest

from minimal_transformer.server import Options
from minimal_transformer.settings import (
    ALWAYS_FORWARDED,
    ALWAYS_RETURNED,
    CallSettings,
    HeaderRules,
    RecordSettings,
    SettingsError,
)

GOOD = {"POSTGRES_URI": "postgresql://u:pa55word@h/d", "SHADOW_ROLE": "shadow"}


def read(monkeypatch: pytest.MonkeyPatch, **variables: str) -> RecordSettings:
    """The settings of an environment of GOOD and these."""
    for name in RecordSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in (GOOD | variables).items():
        monkeypatch.setenv(name, value)
    return RecordSettings.from_environment()


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the database and the role must be set."""
    settings = read(monkeypatch)
    assert settings.spool_max_bytes == 1024**3
    assert settings.record_max_body_bytes == settings.max_body_bytes == 1024**2
    assert settings.record_sample == 1
    assert not settings.spool_fsync
    assert settings.model_version is None
    assert settings.spool_folder.is_absolute()


def test_all_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each variable of the contract."""
    settings = read(
        monkeypatch,
        INFERENCE_SERVICE="double",
        MODEL_VERSION="7",
        SPOOL_DIR="/spool",
        SPOOL_MAX_BYTES="100000000",
        SPOOL_FSYNC="1",
        RECORD_HEADERS=" Content-Type ,user-agent,,",
        RECORD_MAX_BODY_BYTES="1000",
        RECORD_SAMPLE="0.5",
        RECORD_REDACT="$.a, b[*].c",
    )
    assert settings.record_headers == ("content-type", "user-agent")
    assert settings.record_redact == ("$.a", "b[*].c")
    assert (settings.spool_fsync, settings.record_sample) == (True, 0.5)
    assert str(settings.spool_folder) == "/spool"


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("SHADOW_ROLE", "blue", "SHADOW_ROLE is 'blue'; set it to 'primary' or 'shadow'."),
        ("SPOOL_MAX_BYTES", "1k", "SPOOL_MAX_BYTES is '1k'; set it to a number of bytes"),
        ("SPOOL_MAX_BYTES", "5", "SPOOL_MAX_BYTES is '5'; set it to a number of bytes"),
        ("RECORD_SAMPLE", "2", "RECORD_SAMPLE is '2'; set it to a number from 0 to 1."),
        ("RECORD_SAMPLE", "nan", "RECORD_SAMPLE is 'nan'; set it to a number from 0 to 1."),
        ("RECORD_MAX_BODY_BYTES", "-1", "RECORD_MAX_BODY_BYTES is '-1'; set it to a number"),
        ("RECORD_REDACT", "a b", "RECORD_REDACT is 'a b'; 'a b' is not a JSON path"),
        ("RECORD_REDACT", "$.a,,b", "RECORD_REDACT is '$.a,,b'; '' is not a JSON path"),
        ("RECORD_REDACT", "a,$", "RECORD_REDACT is 'a,$'; '$' names the whole body; write it like"),
        ("RECORD_REDACT", "a[2:1]", "'a[2:1]' can never name a value; correct its slice"),
        ("RECORD_HEADERS", "x-api-key", "RECORD_HEADERS is 'x-api-key'; take x-api-key off it"),
        ("RECORD_HEADERS", "a,Cookie", "take cookie off it"),
        ("SPOOL_FSYNC", "maybe", "SPOOL_FSYNC is 'maybe'; set it to 0 or 1."),
    ],
)
def test_wrong_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remedy: str
) -> None:
    """One line: the variable, the value, the remedy."""
    with pytest.raises(SettingsError) as error:
        read(monkeypatch, **{variable: value})
    assert remedy in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", GOOD)
def test_required(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """What must be set is named with what to set it to."""
    monkeypatch.setitem(GOOD, name, "")
    monkeypatch.delitem(GOOD, name)
    with pytest.raises(SettingsError, match=f"{name} is not set; set it to"):
        read(monkeypatch)


def test_no_password_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in an error nor in the settings' own text."""
    with pytest.raises(SettingsError) as error:
        read(monkeypatch, POSTGRES_URI="mysql://u:pa55word@h/d")
    assert "POSTGRES_URI" in str(error.value)
    assert "pa55word" not in str(error.value)
    assert "pa55word" not in repr(read(monkeypatch))


def test_settings_survive_environment_and_pickle(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delivery process and the workers have the same ones."""
    settings = read(
        monkeypatch, RECORD_REDACT="$.a,b['c,d']", SPOOL_FSYNC="1", RECORD_HEADERS="a,b"
    )
    assert pickle.loads(pickle.dumps(settings)) == settings
    for name in GOOD:
        monkeypatch.delenv(name)
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    assert RecordSettings.from_environment() == settings
    assert os.environ["POSTGRES_URI"] == GOOD["POSTGRES_URI"]


def test_body_limit_follows_a_small_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    """One record does not take a small spool for itself."""
    assert read(monkeypatch, SPOOL_MAX_BYTES="1600000").max_body_bytes == 100_000


def calls(monkeypatch: pytest.MonkeyPatch, **variables: str) -> CallSettings:
    """The settings of what crosses the hop, in an environment of these alone."""
    for name in CallSettings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return CallSettings.from_environment()


def test_header_lists_are_names_and_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In lower case; what describes the body is on both lists in any case."""
    found = calls(monkeypatch, FORWARD_HEADERS="Authorization, X-Tenant-*", RETURN_HEADERS="")
    rules = HeaderRules.of(found)
    assert rules.forwarded == {*ALWAYS_FORWARDED, "authorization"}
    assert rules.forwarded_prefixes == ("x-tenant-",)
    assert rules.returned == {name.encode() for name in ALWAYS_RETURNED}
    assert rules.returned_prefixes == ()
    assert "authorization" not in HeaderRules.of(calls(monkeypatch)).forwarded


@pytest.mark.parametrize(
    ("variable", "value", "remedy"),
    [
        ("FORWARD_HEADERS", "a b", "FORWARD_HEADERS is 'a b'; 'a b' is not a header's name"),
        ("FORWARD_HEADERS", "x-shadow", "take x-shadow off it"),
        ("RETURN_HEADERS", "Content-Length", "take content-length off it"),
        ("RETURN_HEADERS", "*", "'*' is not a header's name"),
        ("PREDICT_TIMEOUT_SECONDS", "0", "PREDICT_TIMEOUT_SECONDS is '0'; set it to a number of"),
        ("PREDICT_TIMEOUT_SECONDS", "soon", "PREDICT_TIMEOUT_SECONDS is 'soon'; set it to"),
        ("MAX_BODY_BYTES", "1k", "MAX_BODY_BYTES is '1k'; set it to a number of bytes"),
        ("MAX_IN_FLIGHT_BYTES", "1048576", "set it to twice MAX_BODY_BYTES (67108864) or more"),
    ],
)
def test_bad_setting_of_a_call_names_its_remedy(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, remedy: str
) -> None:
    """One line each."""
    with pytest.raises(SettingsError) as refused:
        calls(monkeypatch, **{variable: value})
    assert remedy in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("argument", "variable", "seconds"),
    [(None, None, 600), (None, "2.5", 2.5), ("7", "2.5", 7), ("7", None, 7), (None, "", 600)],
)
def test_timeout_is_the_argument_else_the_variable_else_kserves(
    monkeypatch: pytest.MonkeyPatch, argument: str | None, variable: str | None, seconds: float
) -> None:
    """The argument where it is given, so that what worked before does."""
    read(monkeypatch)
    monkeypatch.delenv("PREDICT_TIMEOUT_SECONDS", raising=False)
    if variable is not None:
        monkeypatch.setenv("PREDICT_TIMEOUT_SECONDS", variable)
    words = [] if argument is None else ["--predictor_request_timeout_seconds", argument]
    assert Options.read(words).predictor.timeout_seconds == seconds
