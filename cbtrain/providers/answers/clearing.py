"""An answer as the rest of the program may use it: without thinking, a refusal called one."""

from __future__ import annotations

from dataclasses import replace

from cbtrain.providers.answers.refusals import is_refusal, leaves_role
from cbtrain.providers.formats.api_format import WireAnswer
from cbtrain.text.thinking import without_thinking


def cleared(answer: WireAnswer) -> WireAnswer:
    """Return ``answer`` without the thinking in its text, which is counted; a text that refuses ends as a refusal.
    Cleared again, an answer stays the same."""
    text, characters = without_thinking(answer.text)
    refused = answer.finish_reason == "stop" and is_refusal(text)
    return replace(
        answer,
        text=text,
        thinking=answer.thinking + characters,
        finish_reason="refusal" if refused else answer.finish_reason,
    )


def worth_keeping(answer: WireAnswer) -> bool:
    """Return False for refused, filtered and empty answers: the next one may be better."""
    return answer.finish_reason in ("stop", "length") and bool(answer.text.strip()) and not leaves_role(answer.text)
