"""Thinking that a model writes into its answer: taken out, and counted."""

from __future__ import annotations

import json
import re

FORMS = (
    ("<think>", "</think>"),  # DeepSeek R1, Qwen3, GLM, MiniMax
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),  # Gemini and Gemma
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),  # Mistral's Magistral
    ("<seed:think>", "</seed:think>"),  # ByteDance's Seed-OSS
    ("◁think▷", "◁/think▷"),  # Moonshot's Kimi-VL
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Cohere's Command A Reasoning
    ("<|begin_of_thought|>", "<|end_of_thought|>"),  # OpenThinker
    ("<|channel|>analysis<|message|>", "<|channel|>final<|message|>"),  # gpt-oss
    ("<|channel|>commentary<|message|>", "<|channel|>final<|message|>"),
)
"""How thinking begins and ends, in any case. Add a model's own marks here."""

AROUND = ("<|return|>", "<|end|>", "<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|begin_of_solution|>",
          "<|end_of_solution|>")  # fmt: skip
"""Marks that these models put around the answer itself."""

CLOSING = {opening.lower(): closing.lower() for opening, closing in FORMS}
TAGS = re.compile("|".join(re.escape(tag) for form in FORMS for tag in form), re.IGNORECASE)
MARKS = re.compile("|".join(map(re.escape, AROUND)), re.IGNORECASE)


def without_thinking(text: str) -> tuple[str, int]:
    """Return ``text`` without its thinking, and how many characters of thinking there were (an empty thought has none).

    A closing tag alone ends thinking that began in the prompt; thinking without an end was cut by the limit of tokens.
    A text that is one JSON object stays as it is: a tag in it is a quotation.
    """
    if not TAGS.search(text) or _is_json(text):
        return text, 0
    kept: list[str] = []
    characters, place, awaited = 0, 0, ""
    for match in TAGS.finditer(text):
        tag = match.group().lower()
        if awaited and tag != awaited:
            continue  # thinking about tags
        before = text[place : match.start()]
        if awaited:
            characters += len(before.strip())
            awaited = ""
        elif tag in CLOSING:
            kept.append(before)
            awaited = CLOSING[tag]
        else:
            characters += sum(len(part.strip()) for part in (*kept, before))
            kept.clear()
        place = match.end()
    if awaited:
        characters += len(text[place:].strip())
    else:
        kept.append(text[place:])
    return MARKS.sub("", _joined(kept)).strip(), characters


def _joined(parts: list[str]) -> str:
    """Return the text before and after the thinking as one text, on separate lines if they were on separate lines."""
    whole = ""
    for part in parts:
        apart = "\n" in whole[len(whole.rstrip()) :] or "\n" in part[: len(part) - len(part.lstrip())]
        whole = f"{whole.rstrip()}{chr(10) if apart else ' '}{part.lstrip()}" if whole.strip() else part
    return whole


def _is_json(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True
