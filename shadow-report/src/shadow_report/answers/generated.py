"""What a generated answer says, of whichever of OpenAI's APIs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shadow_report.answers.kinds import Patterns
from shadow_report.answers.paths import Rules
from shadow_report.answers.similarity import normalized

# The class of a `pattern` rule whose texts are refusals.
REFUSAL = "refusal"
NO_REASON = "(none)"


@dataclass(frozen=True, slots=True)
class Said:
    """One answer, all of its choices together."""

    words: str
    """The text without what does not count in it: width, case and white space."""
    refuses: bool
    calls_tools: bool
    finish_reason: str


def refusals_of(rules: Rules) -> Patterns | None:
    """How the rules tell a refusal from other texts; None when none of them does."""
    for rule in reversed(rules.by_path):
        if isinstance(rule.how, Patterns) and REFUSAL in dict(rule.how.patterns):
            return rule.how
    return None


def said(answer: object, refusals: Patterns | None) -> Said | None:
    """What a chat, a completion or a response says; None of any other answer."""
    if not isinstance(answer, dict):
        return None
    if isinstance(choices := answer.get("choices"), list):
        found = [choice for choice in choices if isinstance(choice, dict)]
        messages = [c["message"] if isinstance(c.get("message"), dict) else c for c in found]
        reasons = [str(choice.get("finish_reason") or NO_REASON) for choice in found]
    elif isinstance(output := answer.get("output"), list):
        items = [item for item in output if isinstance(item, dict)]
        parts = [part for item in items for part in item.get("content") or ()]
        messages = [part for part in [*items, *parts] if isinstance(part, dict)]
        reasons = [str(answer.get("status") or NO_REASON)]
    else:
        return None
    texts = [text for message in messages if (text := _text(message))]
    return Said(
        words=normalized("\n".join(texts)),
        refuses=any(message.get("refusal") for message in messages)
        or (refusals is not None and any(refusals.label(text) == REFUSAL for text in texts)),
        calls_tools=any(map(_calls_tools, messages)),
        finish_reason=", ".join(dict.fromkeys(reasons)) or NO_REASON,
    )


def _text(message: dict[str, Any]) -> str:
    for name in ("content", "text"):
        if isinstance(text := message.get(name), str):
            return text
    return ""


def _calls_tools(message: dict[str, Any]) -> bool:
    is_call = message.get("type") == "function_call"
    return is_call or bool(message.get("tool_calls") or message.get("function_call"))
