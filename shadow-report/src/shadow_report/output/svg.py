"""Axes of the plots: a value's place on the drawing, and round tick values. The templates draw."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """A linear axis from the values `low`..`high` to the drawing's coordinates `start`..`end`."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        """The coordinate of a value; values outside stand at the nearer end."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    def ticks(self, wanted: int = 4) -> list[float]:
        """About `wanted` round values within the axis."""
        step = round_step((self.high - self.low) / wanted)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [i * step for i in range(first, last + 1)]


def round_step(rough: float) -> float:
    """The nearest of 1, 2 or 5 times a power of ten that is not smaller than `rough`."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def scale(values: list[float], start: float, end: float, spare: float = 0.08) -> Scale:
    """An axis that holds all values, with a spare share at both ends; never of length zero."""
    low, high = min(values), max(values)
    room = (high - low) * spare or abs(high) * spare or 1.0
    return Scale(low - room, high + room, start, end)
