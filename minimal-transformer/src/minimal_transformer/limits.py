"""Room for the bodies of the calls in flight: one body's limit, and one for all of them together.

A body is in memory from its first byte until its call is answered, so what callers and predictor
send is let in only as far as there is room. Large requests and large answers have a pool each: a
call that waits for room for its answer never holds back the request of the one that has it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque

# Smaller bodies wait for nobody: they share an eighth of the room and are refused when it is full.
SMALL_BYTES = 64 * 1024
# Those of all connections together are not worth counting.
TINY_BYTES = 4 * 1024
# As long as a large body waits for its room.
WAIT_SECONDS = 30.0
# A body that is slower than this loses its room as soon as another waits for it.
SLOWEST_BYTES_PER_SECOND = 1024 * 1024
SLOW_START_SECONDS = 2.0
# Without a single byte for so long, its caller is taken for dead.
SILENT_SECONDS = 60.0


class TooLarge(Exception):
    """A request's body is over MAX_BODY_BYTES."""


class AnswerTooLarge(Exception):
    """The predictor's answer is over MAX_BODY_BYTES."""


class NoRoom(Exception):
    """The bodies in flight take all the room."""

    def __init__(self) -> None:
        super().__init__("the bodies in flight take all of MAX_IN_FLIGHT_BYTES; try again")


class TooSlow(Exception):
    """A body came too slowly while others waited for its room, or stopped coming."""

    def __init__(self) -> None:
        super().__init__("the body came too slowly; send it again")


class Pool:
    """Bytes that are lent first come, first served."""

    def __init__(self, size: int) -> None:
        self.size = self.free = size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @property
    def is_wanted(self) -> bool:
        """Whether somebody waits."""
        return bool(self._waiting)

    async def take(self, size: int) -> bool:
        """Take so many bytes as soon as there are; False when there were not within WAIT_SECONDS.

        More than the pool has count as all of it.
        """
        size = min(size, self.size)
        if not self._waiting and size <= self.free:
            self.free -= size
            return True
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await turn
        except TimeoutError:
            self._leave(size, turn)
            return False
        except BaseException:
            self._leave(size, turn)
            raise
        return True

    def give_back(self, size: int) -> None:
        """Let the next ones in."""
        self.free += min(size, self.size)
        while self._waiting and self._waiting[0][0] <= self.free:
            wanted, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= wanted
                turn.set_result(None)

    def _leave(self, size: int, turn: asyncio.Future[None]) -> None:
        # Its turn may have come just before it gave up.
        if turn.done() and not turn.cancelled():
            self.give_back(size)
            return
        turn.cancel()
        self._waiting = deque(item for item in self._waiting if item[1] is not turn)
        self.give_back(0)


class Limits:
    """What a body may be long, and what all bodies of this process' calls may take together."""

    def __init__(self, max_body_bytes: int, max_in_flight_bytes: int) -> None:
        self.max_body_bytes = max_body_bytes
        self.small = Pool(max_in_flight_bytes // 8)
        large = (max_in_flight_bytes - self.small.size) // 2
        self.requests = Pool(max(large, max_body_bytes))
        self.answers = Pool(max(large, max_body_bytes))

    def check_request(self, size: int) -> None:
        """TooLarge for a request's body over the limit."""
        if size > self.max_body_bytes:
            raise TooLarge(f"the body is over MAX_BODY_BYTES={self.max_body_bytes}")

    def check_answer(self, size: int) -> None:
        """AnswerTooLarge for an answer's body over the limit."""
        if size > self.max_body_bytes:
            raise AnswerTooLarge(
                f"the predictor's answer is over MAX_BODY_BYTES={self.max_body_bytes}"
            )


class Room:
    """What one call's bodies take; `release` it when the call is over, however it ended."""

    __slots__ = ("_answer", "_request", "_small", "limits")

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._small = self._request = self._answer = 0

    @property
    def holds_large_answer(self) -> bool:
        return self._answer > 0

    def take_small(self, size: int) -> None:
        """Room for a body of at most SMALL_BYTES; NoRoom at once when there is none."""
        if size <= TINY_BYTES:
            return
        pool = self.limits.small
        if size > pool.free:
            raise NoRoom
        pool.free -= size
        self._small += size

    async def take_request(self, size: int, copies: int = 1) -> None:
        """Room for a request's body that is still to come; TooLarge, or NoRoom after a while."""
        self.limits.check_request(size)
        size = min(size * copies, self.limits.requests.size)
        if not await self.limits.requests.take(size):
            raise NoRoom
        self._request = size

    async def take_answer(self, size: int) -> None:
        """Room for an answer's body that is still to come; AnswerTooLarge, or NoRoom."""
        self.limits.check_answer(size)
        if not await self.limits.answers.take(size):
            raise NoRoom
        self._answer = size

    def is_too_slow(self, received: int, started: float) -> bool:
        """Whether a request's body holds room that others wait for, and is slow."""
        if not self._request or not self.limits.requests.is_wanted:
            return False
        seconds = time.monotonic() - started - SLOW_START_SECONDS
        return received < seconds * SLOWEST_BYTES_PER_SECOND

    def shrink_request(self, size: int) -> None:
        """The body turned out to be no longer than this."""
        self.limits.requests.give_back(self._request - size)
        self._request = size

    def shrink_answer(self, size: int) -> None:
        """The answer turned out to be no longer than this."""
        self.limits.answers.give_back(self._answer - size)
        self._answer = size

    def release(self) -> None:
        """Give all of it back."""
        limits = self.limits
        if self._small:
            limits.small.free += self._small
        if self._request:
            limits.requests.give_back(self._request)
        if self._answer:
            limits.answers.give_back(self._answer)
        self._small = self._request = self._answer = 0
