"""Thinking that a model writes into its answer: taken out, and counted."""

from __future__ import annotations

import re

from cbtrain.text.json_objects import spans_in

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


def may_think(text: str) -> bool:
    """Return False if ``text`` holds no character that begins a tag of thinking: most texts hold none."""
    return "<" in text or "◁" in text or "[" in text


def without_thinking(text: str) -> tuple[str, int]:
    """Return ``text`` without its thinking, and how many characters of thinking there were (an empty thought has none).

    A closing tag alone ends thinking that began in the prompt; thinking without an end was cut by the limit of tokens.
    A tag inside a JSON object is a quotation: the object stays as it is, alone, in a code fence or among prose.
    """
    tags = _outside_json(TAGS, text)
    if not tags:
        return text, 0
    # An unbalanced brace in the thinking must not hide the objects of the answer.
    ended = next((number for number, tag in enumerate(tags) if tag.group().lower() not in CLOSING), len(tags) - 1)
    tags = tags[: ended + 1] + _outside_json(TAGS, text, tags[ended].end())
    kept: list[str] = []
    characters, position, awaited = 0, 0, ""
    for match in tags:
        tag = match.group().lower()
        if awaited and tag != awaited:
            continue  # thinking about tags
        before = text[position : match.start()]
        if awaited:
            characters += len(before.strip())
            awaited = ""
        elif tag in CLOSING:
            kept.append(before)
            awaited = CLOSING[tag]
        else:
            characters += sum(len(part.strip()) for part in (*kept, before))
            kept.clear()
        position = match.end()
    if awaited:
        characters += len(text[position:].strip())
    else:
        kept.append(text[position:])
    whole = _joined(kept)
    cuts = [(mark.start(), mark.end()) for mark in _outside_json(MARKS, whole)]
    starts, ends = [0, *(end for _, end in cuts)], [*(start for start, _ in cuts), len(whole)]
    return "".join(map(whole.__getitem__, map(slice, starts, ends))).strip(), characters


def _joined(parts: list[str]) -> str:
    """Return the text before and after the thinking as one text, on separate lines if they were on separate lines."""
    whole = ""
    for part in parts:
        apart = "\n" in whole[len(whole.rstrip()) :] or "\n" in part[: len(part) - len(part.lstrip())]
        whole = f"{whole.rstrip()}{chr(10) if apart else ' '}{part.lstrip()}" if whole.strip() else part
    return whole


def _outside_json(pattern: re.Pattern[str], text: str, start: int = 0) -> list[re.Match[str]]:
    """Return the matches of ``pattern`` in ``text`` from ``start`` on that are not inside a JSON object."""
    matches = list(pattern.finditer(text, start))
    if not matches:
        return []
    objects = [span for span in spans_in(text, start) if span.valid]
    outside, position = [], 0
    for match in matches:
        while position < len(objects) and objects[position].end <= match.start():
            position += 1
        if position == len(objects) or match.start() < objects[position].start:
            outside.append(match)
    return outside
