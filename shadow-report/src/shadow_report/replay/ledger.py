"""What has been sent and what came of it, and from where a resumed replay must go on."""

from collections import deque
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from shadow_report.replay.state import Counts, State
from shadow_report.replay.stored_calls import StoredCall

# The last pairs that got an answer: when their records are in the tables, so are the earlier ones.
TAIL = 200


class Ledger:
    """Counts calls as they end, in any order, and knows up to where all of them are done.

    A call without an answer counts as done only once another call is answered after it: until then
    the candidate may be down, and a resumed replay sends it again.
    """

    def __init__(self, state: State) -> None:
        self._start = state
        self._open: dict[UUID, datetime] = {}
        self._done: set[UUID] = set(state.done_beyond)
        self._doubtful: set[UUID] = set()
        self._mark: tuple[datetime | None, UUID | None] = (state.after_time, state.after_record)
        self._answered = state.counts.answered
        self._failed = state.counts.failed
        self._unanswered = state.counts.unanswered
        self._skipped = dict(state.counts.skipped)
        self.answered_pairs: deque[str] = deque(maxlen=TAIL)

    def was_done(self, call: StoredCall) -> bool:
        """Whether an earlier run finished this call beyond the mark."""
        return call.record_id in self._done

    def begin(self, call: StoredCall) -> None:
        """Note a call in the original order, before it is sent or skipped."""
        self._open[call.record_id] = call.request_time

    def answered(self, call: StoredCall, status: int) -> None:
        self._answered += 1
        self._failed += status >= 400
        self.answered_pairs.append(call.pair_id)
        self._unanswered += len(self._doubtful)
        self._done |= self._doubtful | {call.record_id}
        self._doubtful.clear()
        self._advance()

    def unanswered(self, call: StoredCall) -> int:
        """Note a call without an answer; how many there were in a row."""
        self._doubtful.add(call.record_id)
        return len(self._doubtful)

    def skipped(self, call: StoredCall, reason: str) -> None:
        self._skipped[reason] = self._skipped.get(reason, 0) + 1
        self._done.add(call.record_id)
        self._advance()

    def passed(self, call: StoredCall) -> None:
        """Note a call that an earlier run did: it is counted already."""
        self._advance()

    def close(self) -> None:
        """Nothing more comes: calls still in doubt are calls without an answer."""
        self._unanswered += len(self._doubtful)
        self._done |= self._doubtful
        self._doubtful.clear()
        self._advance()

    def state(self, total: int) -> State:
        """The replay as a state to go on from."""
        return replace(
            self._start,
            total=total,
            after_time=self._mark[0],
            after_record=self._mark[1],
            done_beyond=tuple(sorted(self._done)),
            counts=self.counts,
        )

    @property
    def counts(self) -> Counts:
        return Counts(self._answered, self._failed, self._unanswered, dict(self._skipped))

    def _advance(self) -> None:
        """Move the mark over the calls that are done, in the original order."""
        while self._open:
            record_id = next(iter(self._open))
            if record_id not in self._done:
                return
            self._mark = (self._open.pop(record_id), record_id)
            self._done.discard(record_id)
