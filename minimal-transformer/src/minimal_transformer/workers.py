"""Several REST processes on one port: KServe's workers, started, watched and stopped."""

from __future__ import annotations

import asyncio
import socket
import time

from kserve.logging import logger
from kserve.protocol.rest.multiprocess.server import RESTServerMultiProcess, RESTServerProcess

from minimal_transformer.rest_server import RestServer

# A worker that reached the end of its grace period still writes its last records.
KILL_AFTER_GRACE_SECONDS = 8
# Without an answer for so long a worker hangs; until its first one it may still be starting.
HANG_SECONDS = 5.0
START_SECONDS = 120.0


class RestWorkers(RESTServerMultiProcess):  # type: ignore[misc]
    """KServe's worker processes; one that dies or hangs is replaced and stalls nobody."""

    def __init__(self, server: RestServer) -> None:
        # KServe's own constructor would make a RESTServer of its own.
        self.log_config_file = server.log_config_file
        self._rest_server = server
        self._processes: list[RESTServerProcess] = []
        self._started: set[int] = set()
        self.should_exit = asyncio.Event()

    async def run(self, sockets: list[socket.socket]) -> None:
        """Keep the workers running until stop()."""
        self.init_processes(sockets)
        while not self.should_exit.is_set():
            await self.keep_subprocess_alive(sockets)
            try:
                await asyncio.wait_for(self.should_exit.wait(), timeout=0.5)
            except TimeoutError:
                continue
        for listener in sockets:
            listener.close()
        # Each worker has its own copy of the config: this is only how long we wait for them.
        self._rest_server.config.timeout_graceful_shutdown += KILL_AFTER_GRACE_SECONDS
        await self.terminate_all()

    async def keep_subprocess_alive(self, sockets: list[socket.socket]) -> None:
        """Replace the workers that are dead, or hang."""
        await asyncio.gather(*(self._check(i, sockets) for i in range(len(self._processes))))

    async def _check(self, index: int, sockets: list[socket.socket]) -> None:
        process = self._processes[index]
        if await self._answers(process) or self.should_exit.is_set():
            return
        process.kill()
        await process.wait_for_termination()
        replacement = RESTServerProcess(
            sockets, self._rest_server.run, log_config_file=self.log_config_file
        )
        replacement.start()
        self._processes[index] = replacement
        logger.warning("worker %s died; %s replaces it", process.pid, replacement.pid)

    async def _answers(self, process: RESTServerProcess) -> bool:
        """Whether a worker answers a ping; KServe's own wait for it would block the gRPC server.

        KServe also kills a worker that does not answer 5 s after its start, over and over where
        importing takes longer than that: a pod with little CPU never gets up.
        """
        seconds = HANG_SECONDS if process.pid in self._started else START_SECONDS
        deadline = time.monotonic() + seconds
        pipe = process._parent_conn
        pipe.send(b"ping")
        while process._process.is_alive() and time.monotonic() < deadline:
            if pipe.poll():
                pipe.recv()
                self._started.add(process.pid)
                return True
            if self.should_exit.is_set():
                return False
            await asyncio.sleep(0.05)
        return False
