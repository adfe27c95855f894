"""The functions that PREPROCESS and POSTPROCESS name, and what is said of a hook's mistake."""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import kserve

from minimal_transformer.payloads import Headers, Payload, Result
from minimal_transformer.settings import HookSettings, SettingsError

# Lines of these files say nothing to whoever wrote a hook.
_OURS = (
    *(str(Path(str(module.__file__)).parent) for module in (kserve, importlib)),
    str(Path(__file__).parent),
    "<frozen",
)
_SHOWN_FRAMES = 3


class Preprocess(Protocol):
    """A function for PREPROCESS: what it returns is what the predictor gets."""

    def __call__(self, payload: Any, headers: Headers) -> Payload | Awaitable[Payload]:
        """The payload for the predictor; `headers` has the caller's, by lower-case names."""


class Postprocess(Protocol):
    """A function for POSTPROCESS: what it returns is what the caller gets."""

    def __call__(self, result: Any, headers: Headers) -> Result | Awaitable[Result]:
        """The caller's answer; `headers` is the object that preprocess got."""


@dataclass(frozen=True, slots=True)
class Hooks:
    """The functions that PREPROCESS and POSTPROCESS name; None where a variable is not set."""

    preprocess: Preprocess | None = None
    postprocess: Postprocess | None = None

    @classmethod
    def of(cls, settings: HookSettings) -> Hooks:
        """Import what the settings name; SettingsError when that is not a hook."""
        return cls(
            _function("PREPROCESS", settings.preprocess),
            _function("POSTPROCESS", settings.postprocess),
        )


async def returned_by(hook: Callable[..., Any], payload: Any, headers: Headers) -> Any:
    """What a hook returns, whether it is async or not."""
    result = hook(payload, headers)
    return await result if inspect.isawaitable(result) else result


def _function(variable: str, name: str) -> Any:
    """A function, or an instance of a class, by `package.module:name`; None for an empty name."""
    if not name:
        return None
    module, _, path = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
        hook = found() if inspect.isclass(found) else found
    except Exception as failure:
        reason = f"{type(failure).__name__}: {failure}"
        raise SettingsError(
            f"{variable} is {name!r}, which cannot be loaded ({reason}{_place(failure)}); have "
            "it where Python finds it (/app in the image), and write package.module:function."
        ) from failure
    if not callable(hook):
        raise SettingsError(f"{variable} is {name!r}, a {type(hook).__name__}; name a function.")
    try:
        inspect.signature(hook).bind(None, {})
    except TypeError:
        raise SettingsError(
            f"{variable} is {name!r}; have it take two arguments, the payload and the headers."
        ) from None
    return hook


def mistake_of(failure: BaseException, *, quotes: bool) -> str:
    """What a hook's failure was and where, in one line; its words only where it `quotes`."""
    text = ": " + " ".join(str(failure).split()) if quotes else ""
    return f"{type(failure).__name__}{text}{_place(failure)}"


def _place(failure: BaseException) -> str:
    """Where in somebody's code a failure was raised: the call into it first."""
    frames = [
        frame
        for frame in traceback.extract_tb(failure.__traceback__)
        if not frame.filename.startswith(_OURS)
    ]
    # The first is the hook itself; the last are where it went wrong.
    shown = frames if len(frames) <= _SHOWN_FRAMES else [frames[0], *frames[1 - _SHOWN_FRAMES :]]
    places = [f"{Path(f.filename).name}, line {f.lineno}, in {f.name}" for f in shown]
    return f" ({'; '.join(places)})" if places else ""
