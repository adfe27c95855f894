"""Worker processes that are given the time to start."""

import time

from kserve.protocol.rest.multiprocess.server import RESTServerProcess

# Importing KServe takes more than a second of CPU, and on a small pod the workers share it.
START_S = 120.0
HANG_S = 10.0


class PatientProcess(RESTServerProcess):
    """A worker that counts as hung only when it leaves a ping unanswered for too long.

    KServe waits 5 s for each answer, on the event loop that serves gRPC, and kills a worker that
    takes longer: on a busy machine none ever gets through its start.
    """

    _has_started = False
    _pinged_at: float | None = None

    def is_alive(self, timeout: float = HANG_S) -> bool:
        """Whether the worker runs and is not overdue; answers at once."""
        if not self._process.is_alive():
            return False
        if self._parent_conn.poll(0):
            self._parent_conn.recv()
            self._has_started, self._pinged_at = True, None
        if self._pinged_at is None:
            self._parent_conn.send(b"ping")
            self._pinged_at = time.monotonic()
        patience = timeout if self._has_started else START_S
        return time.monotonic() - self._pinged_at < patience
