"""Settings that are numbers, read from the command line or the environment."""

from __future__ import annotations

from collections.abc import Callable


class WrongSetting(Exception):
    """A setting cannot be; the message names it, its value and the remedy."""


def whole(variable: str, highest: int, example: int) -> Callable[[str | int], int]:
    """A reader of whole numbers from 1 to the highest; it raises WrongSetting for all others."""

    def number(text: str | int) -> int:
        if str(text).isdecimal() and 1 <= int(text) <= highest:
            return int(text)
        raise WrongSetting(
            f"{variable} is '{text}'; set it to a whole number from 1 to {highest:,}, such as "
            f"{example}."
        )

    return number
