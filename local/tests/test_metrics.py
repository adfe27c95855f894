"""The alerts and the dashboard against what real processes expose: no name is a guess."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from calls import get, post_at_once, post_chunked
from expressions import Asked, of_alerts, of_dashboard
from prometheus_client.parser import text_string_to_metric_families
from tree import Tree
from waiting import until

from shadow_local.ports import free_port
from shadow_local.stack import Stack
from shadow_local.supervisor import Command, Supervisor
from shadow_local.translate.document import repository

# What Prometheus adds to each series of a target that a PodMonitor found.
OF_TARGET = {"namespace", "pod", "container", "endpoint", "job", "instance"}
LARGE = [b'{"values": ["1.5"], "padding": "', b"x" * 2_000_000, b'"}']
PROGRAM = repository() / "shadow-report" / ".venv" / "bin" / "shadow-report"

Series = dict[str, dict[str, set[str]]]


def scraped(url: str) -> Series:
    """Of each sample's name the labels, and of each label the values."""
    found: Series = {}
    status, _, body = get(url)
    assert status == 200, url
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.fixture
def beside(stack: Stack, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """Starts a server of shadow-report beside the models; where its metrics are."""
    supervisor = Supervisor(tmp_path / "logs")
    env = {**os.environ, "POSTGRES_URI": stack.database.of_role("report")}

    def start(command: str, *words: str) -> str:
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        words = (str(PROGRAM), command, *words, f"--port={port}")
        server = Command(command, words, env, tmp_path, (f"{url}/ready",))
        supervisor.start(server)
        supervisor.wait_until_ready(server)
        return f"{url}/metrics"

    yield start
    supervisor.stop_all()


# By kube-state-metrics (its internal/store/job.go and deployment.go), which is not run here.
JOB = {"job_name": {"mirrored-inference-retention-29"}, "reason": {"BackoffLimitExceeded"}}
OF_KUBERNETES: Series = {
    "kube_job_status_failed": JOB,
    "kube_deployment_status_replicas_unavailable": {"deployment": {"mirrored-inference-follower"}},
}


@pytest.fixture
def exposed(stack: Stack, beside: Callable[..., str]) -> Series:
    """What a transformer, a follower and a live verdict expose once each has had something to do:
    pairs for the verdict, and a call that is recorded cut, so that a follower skips it.
    """
    state = stack.state
    assert state is not None
    assert state.primary is not None
    assert state.shadow is not None
    began = datetime.now(UTC).isoformat()
    post_at_once(state.predict_url, 20)
    assert post_chunked(state.predict_url, LARGE)[0] == 200
    follower = beside("follow", f"--to={state.shadow.transformer_url}", f"--since={began}")
    verdict = beside("serve", f"--since={began}", "--settle=1s", "--every=1s")
    until(lambda: "shadow_follow_skipped_total" in scraped(follower))
    until(lambda: "shadow_gate_estimate" in scraped(verdict))
    found = scraped(f"{state.primary.transformer_url}/metrics") | scraped(follower)
    return found | scraped(verdict) | OF_KUBERNETES


def test_each_name_and_label_is_exposed(tmp_path: Path, exposed: Series) -> None:
    """Metrics, labels, the values that are asked for, and the labels that texts show."""
    tree = Tree(tmp_path / "tree")
    tree.switch_on_options("standard")
    (rules,) = [item for item in tree.objects() if item["kind"] == "PrometheusRule"]
    asked = [*of_alerts(rules), *of_dashboard()]
    assert len(asked) > 40
    wrong = [problem for item in asked for problem in problems(item, exposed)]
    assert wrong == []


def problems(asked: Asked, exposed: Series) -> Iterator[str]:
    """One line for each thing that the expression asks for and nobody exposes."""
    known = set(OF_TARGET)
    for selector in asked.selectors():
        if selector.name not in exposed:
            yield f"{asked.where}: nobody exposes {selector.name}"
            return
        labels = exposed[selector.name]
        known |= labels.keys()
        for matcher in selector.matchers.matchers:
            if matcher.name not in labels.keys() | OF_TARGET:
                yield f"{asked.where}: {selector.name} has no label {matcher.name}"
            elif matcher.name in OF_TARGET or "$" in matcher.value or not matcher.value:
                continue
            elif not any(re.fullmatch(matcher.value, value) for value in labels[matcher.name]):
                yield f"{asked.where}: {matcher.name} is never {matcher.value}"
    kept = asked.kept()
    for label in (kept or set()) | asked.shown:
        if label not in known:
            yield f"{asked.where}: no metric there has the label {label}"
        if kept is not None and label not in kept:
            yield f"{asked.where}: the label {label} is aggregated away"


def test_a_guessed_name_is_found() -> None:
    """The test itself sees a wrong metric, label, value, and a label that is no longer there."""
    exposed = {"shadow_verdict": {"candidate": {"a"}, "verdict": {"WAIT"}}}
    for expression, shown in {
        "shadow_verdicts": (),
        'shadow_verdict{canditate="a"}': (),
        'shadow_verdict{verdict="wait"}': (),
        "max by (gate) (shadow_verdict)": (),
        "max by (verdict) (shadow_verdict)": ("candidate",),
        "shadow_verdict": ("role",),
    }.items():
        assert list(problems(Asked("a panel", expression, frozenset(shown)), exposed)), expression
    sound = Asked("a panel", 'max by (candidate) (shadow_verdict{verdict="WAIT"})', frozenset())
    assert list(problems(sound, exposed)) == []
