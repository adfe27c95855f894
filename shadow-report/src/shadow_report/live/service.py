"""`shadow-report serve`: the verdict over HTTP, kept up by looks at the tables in a thread.

Nothing that is asked over HTTP asks the database: what the last look found is answered at once,
with its age.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from urllib.parse import urlencode

import orjson
from aiohttp import web
from markupsafe import escape

from shadow_report import OneLineError
from shadow_report.evidence.database import open_tables
from shadow_report.live.metrics import Health, Standings, exposition
from shadow_report.live.standing import Conclusion, Standing
from shadow_report.live.tally import Tally
from shadow_report.output.page import CandidateLink
from shadow_report.report import Report
from shadow_report.settings import Comparison

log = logging.getLogger("shadow_report.serve")

HTML, JSON = "text/html; charset=utf-8", "application/json"
PROMETHEUS = "text/plain; version=1.0.0; charset=utf-8"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is served: candidates by their names (one without a name is whichever there is), where,
    how often the tables are looked at, and up to which age a verdict stands.
    """

    candidates: Mapping[str, Comparison]
    last: timedelta | None = None
    address: str = "127.0.0.1"
    port: int = 8090
    every: timedelta = timedelta(seconds=5)
    max_age: timedelta = timedelta(minutes=1)


class Looks:
    """Looks at the tables again and again, in a thread of its own; keeps what the last look found.

    A look is a second or so, and counting from the start may take minutes: the thread is ended with
    the process, and the server ends its query.
    """

    def __init__(self, uri: str, plan: Plan) -> None:
        self._uri, self._every = uri, plan.every.total_seconds()
        self._tallies = {
            name: Tally(settings, plan.last, on_another=partial(self._note_another, name))
            for name, settings in plan.candidates.items()
        }
        self.standings = {name: Standing(name) for name in plan.candidates}
        self.look_seconds, self.was_looked, self.fault = 0.0, False, ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="looks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Begin no further look."""
        self._stop.set()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def health(self) -> Health:
        """How the looks went."""
        tallies = self._tallies.values()
        kinds = ("added", "rebuilt", "failed")
        looks = {kind: sum(tally.looks[kind] for tally in tallies) for kind in kinds}
        return Health(self.was_looked and not self.fault, self.look_seconds, looks)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self._look(began)
                self.look_seconds, self.was_looked = time.monotonic() - began, True
                self._stop.wait(max(0.0, self._every - self.look_seconds))
        except BaseException:
            log.exception("The looks ended; /live says so.")
            raise

    def _look(self, began: float) -> None:
        try:
            with open_tables(self._uri) as tables:
                found = {name: tally.look(tables) for name, tally in self._tallies.items()}
        except OneLineError as error:
            if str(error) != self.fault:
                log.warning("%s Trying again until it answers.", error)
            self._note_fault(str(error))
            return
        if self.fault:
            log.info("The database answers again.")
            self._note_fault("")
        for name, report in found.items():
            if report is not None:
                self._note(name, report, began, self._tallies[name].waiting)

    def _note_fault(self, fault: str) -> None:
        self.fault = fault
        for name, standing in self.standings.items():
            self.standings[name] = replace(standing, fault=fault or None)

    def _note_another(self, name: str, why: str, after: float) -> None:
        self.standings[name] = replace(self.standings[name], another=why, recounted_after=after)

    def _note(self, name: str, report: Report, began: float, waiting: int) -> None:
        before = self.standings[name]
        self.standings[name] = Standing(name, report, began, waiting)
        if before.report is None or before.report.verdict != report.verdict:
            reason = report.reasons[0] if report.reasons else ""
            log.info("%s: %s. %s", report.shadow.service or "No shadow", report.verdict, reason)


class Site:
    """What is answered over HTTP."""

    def __init__(self, looks: Looks, plan: Plan) -> None:
        self._looks, self._plan = looks, plan
        self._mark = secrets.token_hex(16)
        self._pages: dict[str, tuple[object, bytes]] = {}
        self._metrics = Standings(
            looks.standings.values, looks.health, time.monotonic, plan.max_age
        )

    def application(self) -> web.Application:
        application = web.Application()
        application.add_routes(
            [
                web.get("/", self._page),
                web.get("/verdict.json", self._document),
                web.get("/gate", self._gate),
                web.post("/gate", self._gate),
                web.get("/metrics", self._show_metrics),
                web.get("/ready", self._ready),
                web.get("/live", self._alive),
            ]
        )
        return application

    async def _page(self, request: web.Request) -> web.Response:
        conclusion = self._conclusion(request, self._first_candidate())
        # A page takes a moment to make, in which the gate must answer.
        page = await asyncio.to_thread(self._rendered, conclusion)
        text = page.replace(self._mark.encode(), str(escape(conclusion.age_text())).encode())
        return _answer(text, HTML)

    async def _document(self, request: web.Request) -> web.Response:
        return _answer(self._conclusion(request, self._only_candidate()).document(), JSON)

    async def _gate(self, request: web.Request) -> web.Response:
        conclusion = self._conclusion(request, self._only_candidate())
        return _answer(conclusion.gate(), JSON, conclusion.status)

    async def _show_metrics(self, _: web.Request) -> web.Response:
        return _answer(exposition(self._metrics), PROMETHEUS)

    async def _ready(self, _: web.Request) -> web.Response:
        """Ready once it was looked at: a database that goes away takes no verdict with it."""
        if self._looks.was_looked:
            return web.Response(text="ready\n")
        return web.Response(status=503, text="The tables are being read for the first time.\n")

    async def _alive(self, _: web.Request) -> web.Response:
        if self._looks.is_alive():
            return web.Response(text="alive\n")
        return web.Response(status=500, text="The looks at the tables ended; see the log.\n")

    def _conclusion(self, request: web.Request, default: Standing | None) -> Conclusion:
        wanted = request.query.get("candidate")
        standing = default
        if wanted is not None:
            named = [s for s in self._looks.standings.values() if wanted in (s.name, s.candidate)]
            standing = named[0] if named else None
        if standing is None:
            names = sorted(s.candidate for s in self._looks.standings.values())
            raise _refusal(wanted, names)
        version = request.query.get("version")
        return standing.conclude(time.monotonic(), self._plan.max_age, version)

    def _first_candidate(self) -> Standing:
        return next(iter(self._looks.standings.values()))

    def _only_candidate(self) -> Standing | None:
        standings = list(self._looks.standings.values())
        return standings[0] if len(standings) == 1 else None

    def _rendered(self, conclusion: Conclusion) -> bytes:
        """The page of the conclusion, made once for each look and what it says."""
        links = self._links(conclusion)
        known, page = self._pages.get(conclusion.standing.name, (None, b""))
        what = (conclusion.standing, conclusion.reasons, links)
        if known != what:
            page = conclusion.page(self._plan.every, self._mark, links).encode()
            self._pages[conclusion.standing.name] = (what, page)
        return page

    def _links(self, conclusion: Conclusion) -> tuple[CandidateLink, ...]:
        now, max_age = time.monotonic(), self._plan.max_age
        return tuple(
            CandidateLink(
                name=standing.candidate,
                verdict=standing.conclude(now, max_age).verdict,
                link="?" + urlencode({"candidate": standing.candidate}),
                is_shown=standing.name == conclusion.standing.name,
            )
            for standing in self._looks.standings.values()
        )


def _answer(body: bytes, content_type: str, status: int = 200) -> web.Response:
    headers = {"content-type": content_type, "cache-control": "no-store"}
    return web.Response(body=body, status=status, headers=headers)


def _refusal(wanted: str | None, names: list[str]) -> web.HTTPException:
    what = "Name a candidate" if wanted is None else f"There is no candidate {wanted}"
    text = orjson.dumps({"error": f"{what}: ?candidate= one of {', '.join(names)}."}).decode()
    kind = web.HTTPBadRequest if wanted is None else web.HTTPNotFound
    return kind(text=text, content_type=JSON)


@web.middleware
async def _unframed(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    response = await handler(request)
    response.headers.setdefault("x-content-type-options", "nosniff")
    response.headers.setdefault("x-frame-options", "DENY")
    return response


async def serve(uri: str, plan: Plan) -> None:
    """Serve until SIGINT or SIGTERM; OneLineError when the port is taken."""
    looks = Looks(uri, plan)
    application = Site(looks, plan).application()
    application.middlewares.append(_unframed)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, plan.address, plan.port).start()
        except OSError as error:
            raise OneLineError(
                f"{plan.address}:{plan.port} cannot be served ({os.strerror(error.errno or 0)}); "
                "choose another --port."
            ) from error
        host, port = runner.addresses[0][:2]
        looks.start()
        print(f"serving: http://{host}:{port}/", flush=True)
        await stop.wait()
    finally:
        looks.stop()
        await runner.cleanup()
