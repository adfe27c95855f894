"""The hop to the predictor."""

from __future__ import annotations

from typing import Protocol

from minimal_transformer.exchange import Answer, Arrival


class Predictor(Protocol):
    """The model behind this transformer, over whichever protocol it speaks."""

    async def open(self) -> None:
        """Open the connections of this process; call it on the loop that will serve."""

    async def close(self) -> None:
        """Close the connections of this process."""

    async def forward(self, arrival: Arrival) -> Answer:
        """The predictor's answer to a call, or the answer that tells why there is none."""

    async def is_ready(self) -> bool:
        """Whether the predictor says that its model is ready; never raises."""
