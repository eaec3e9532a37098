"""Choose the chat template that lays out a session: the tokenizer's own if it is stable, else a frozen one of ours.

A template is *unstable* if more turns change the rendering of earlier ones: today's date, a system text that moves, old
turns written differently. Training and serving would then show the model different prompts. For known families cbtrain
ships templates with the same token layout; they are saved with the adapter and served from there. Others are refused.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from cbtrain.errors import UserError
from cbtrain.tokens.bounded_template import TooMuchWork, render
from cbtrain.transcripts.types import Role

LABELS: dict[Role, str] = {"therapist": "Therapist", "patient": "Patient"}

FAMILY_TOKENS = {
    "llama3.1": ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "qwen3": ("<|im_start|>", "<|im_end|>", "<think>", "</think>"),
    "mistral-v0.3": ("[INST]", "[/INST]", "▁the"),
}
"""Vocabulary entries that the frozen templates need."""

FAMILY_WORDS = {"llama3.1": "Cutting Knowledge Date", "qwen3": "<think>", "mistral-v0.3": "[INST]"}
"""Text in the stock template of each family; with the entries above, it identifies the family."""

LONG_PAIRS = 20
"""Turns of each speaker in the longer dialogue that is tried: a template may count messages."""

PLACEHOLDER = re.compile("\ue000(\\d{1,9})\ue001")
"""A message's placeholder: private-use characters, which no template changes."""

CLOCK = re.compile(r"strftime_now\(\s{0,20}(?:(['\"])(.{0,40}?)\1)?")
"""The only clock that templates have, and its format if that is a literal."""


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A layout of chats. ``template`` is Jinja; ``stop_strings`` end an answer if the stop token did not come.

    ``single_answer`` layouts hold one answer, at the end. ``note`` says why this one was chosen.
    """

    name: str
    template: str
    stop_strings: tuple[str, ...] = ()
    single_answer: bool = False
    note: str = ""


class Layout(Protocol):
    """Lays out ``(role, content)`` pairs as text; ``generate`` adds the text before an answer."""

    def __call__(self, messages: list[tuple[str, str]], generate: bool = False) -> str: ...


def choose_format(
    tokenizer: Any, wanted: str = "auto", speaker: Role = "therapist", *, where: object = None
) -> ChatFormat:
    """Return the layout for ``tokenizer``; ``wanted`` is in ``tokens.config.FORMATS``, ``speaker`` is the model's role,
    ``where`` the folder that errors name.

    Raises UserError if there is no template and none is named, if the tokenizer's own is unstable and of no known
    family, and if a named one needs tokens that the tokenizer lacks.
    """
    where = where or tokenizer.name_or_path or "tokenizer"
    if wanted in ("plain", "alpaca"):
        return _labelled(wanted, tokenizer, speaker)
    if wanted not in ("auto", "template"):
        missing = _missing(tokenizer, wanted)
        if missing:
            hint = "Choose tokens.format auto, or plain for a base model."
            raise UserError(
                f"format {wanted!r} needs the token {missing!r}, which the tokenizer does not have",
                where=where,
                hint=hint,
            )
        return ChatFormat(wanted, _shipped(wanted), note="named in the settings")
    template = tokenizer.chat_template
    if isinstance(template, dict):  # several templates by name
        template = template.get("default")
    if not template:
        hint = "Set tokens.format=plain (in serving: --chat-format plain) for a base model, or use an instruct model."
        raise UserError("this tokenizer has no chat template", where=where, hint=hint)
    try:
        reason = why_unstable(layout_of(tokenizer, template), template)
    except TooMuchWork as error:
        raise UserError(error.what, where=where, hint=error.hint) from None
    except Exception as error:  # Jinja's own kinds, or the template's: it fails on a plain dialogue
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        reason = f"fails on a plain dialogue ({first_line})"
    if reason is None:
        return ChatFormat("template", template, note=_without_beginning(tokenizer, template))
    families = (name for name, text in FAMILY_WORDS.items() if text in template and not _missing(tokenizer, name))
    family = next(families, None)
    if family is None or wanted == "template":
        hint = f"Use a template that never changes earlier turns, or set tokens.format={family or 'plain'}."
        raise UserError(f"its chat template {reason}", where=where, hint=hint)
    return ChatFormat(family, _shipped(family), note=f"the tokenizer's own chat template {reason}")


def layout_of(tokenizer: Any, template: str) -> Layout:
    """Return the function that lays out ``(role, content)`` pairs with ``template``."""

    def layout(messages: Sequence[tuple[str, str]], generate: bool = False) -> str:
        chat = [{"role": role, "content": content} for role, content in messages]
        return render(template, chat, generate=generate, tokens=tokenizer.special_tokens_map)

    return layout


def probe(*roles: str) -> list[tuple[str, str]]:
    """Return messages of these roles with a placeholder in each."""
    return [(role, f"\ue000{index}\ue001") for index, role in enumerate(roles)]


def writes_date(template: str, rendered: str) -> bool:
    """Return whether ``rendered`` has the date or time that ``template`` asks the clock for.

    If the format is not a literal, any use of the clock counts.
    """
    formats = [match.group(2) for match in CLOCK.finditer(template)]
    return any(text is None or datetime.now().strftime(text) in rendered for text in formats)


def has_system_role(layout: Layout) -> bool:
    """Return whether the template takes a system message; templates refuse one by an exception of their own."""
    try:
        layout(probe("system", "user", "assistant"))
    except TooMuchWork:
        raise
    except Exception:
        return False
    return True


def why_unstable(layout: Layout, template: str) -> str | None:
    """Return the first reason why prompts in training and serving would differ, None if there is none; ``layout`` lays
    out by ``template``.

    Dialogues with and without a system message are tried: a template may have a system text of its own, with a date in
    it. Raises the template's own exception if it fails on a dialogue of user and assistant: it is no chat template.
    """
    starts = [["system"], []] if has_system_role(layout) else [[]]
    return next((reason for system in starts if (reason := _why_unstable(layout, template, system))), None)


def _why_unstable(layout: Layout, template: str, system: list[str]) -> str | None:
    roles = [*system, "user", "assistant", "user", "assistant", "user"]
    for end in range(len(system) + 2, len(roles) + 1):
        messages = probe(*roles[:end])
        text = layout(messages, generate=messages[-1][0] == "user")
        rendered = [int(index) for index in PLACEHOLDER.findall(text)]
        if rendered != list(range(end)):
            if system and rendered != [0, *(index for index in rendered if index)]:
                return "moves or drops the system text"
            return "drops, repeats or reorders messages"
    messages = probe(*roles)
    if writes_date(template, layout(messages)):
        return "writes today's date"
    longer = probe(*system, *["user", "assistant"] * LONG_PAIRS)
    return _why_prompts_differ(layout, messages, range(len(messages))) or _why_prompts_differ(
        layout, longer, (len(system) + 1, len(longer) - 1)
    )


def _why_prompts_differ(layout: Layout, messages: list[tuple[str, str]], answers: Iterable[int]) -> str | None:
    """Return why the answers at these places of ``messages`` are shown otherwise in training than in serving."""
    whole = layout(messages)
    if [int(index) for index in PLACEHOLDER.findall(whole)] != list(range(len(messages))):
        return f"drops, repeats or reorders messages of a dialogue of {len(messages)}"
    for index in answers:
        role, content = messages[index]
        if role != "assistant":
            continue
        prompt = layout(messages[:index], generate=True)
        # Some layouts put a space before the answer; the model itself has to write it.
        if not whole.startswith(prompt.rstrip(" ")):
            return "shows the model another prompt in training than in serving"
        if whole[len(prompt.rstrip(" ")) : whole.index(content)].strip(" "):
            return "does not say where an answer begins (add_generation_prompt has no effect)"
        shorter = layout(messages[: index + 1])
        if shorter[: shorter.index(content)] != whole[: whole.index(content)]:
            return "renders earlier turns differently once later ones follow"
    return None


def _labelled(name: str, tokenizer: Any, speaker: Role) -> ChatFormat:
    if not tokenizer.eos_token:
        hint = "Use a tokenizer that has one, or an instruct model."
        raise UserError(f"format {name!r} needs an end-of-text token", where=tokenizer.name_or_path, hint=hint)
    other: Role = "patient" if speaker == "therapist" else "therapist"
    labels = f"{{%- set assistant_label, user_label = '{LABELS[speaker]}', '{LABELS[other]}' %}}\n"
    stops = tuple(f"\n{label}:" for label in LABELS.values())
    if name == "alpaca":
        stops += ("\n### Instruction:", "\n### Input:", "\n### Response:")
    return ChatFormat(name, labels + _shipped(name), stops, name == "alpaca", "named in the settings")


def _without_beginning(tokenizer: Any, template: str) -> str:
    """Return a note if the tokenizer begins texts with a token that the template omits; serving omits it too."""
    bos = tokenizer.bos_token
    if not bos or layout_of(tokenizer, template)([("user", "x")]).startswith(bos):
        return ""
    begins = tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id]
    return f"the tokenizer begins texts with {bos}, its chat template does not" if begins else ""


def _shipped(name: str) -> str:
    return (importlib.resources.files("cbtrain.tokens") / "templates" / f"{name}.jinja").read_text(encoding="utf-8")


def _missing(tokenizer: Any, family: str) -> str | None:
    vocabulary: Callable[[str], int | None] = tokenizer.backend_tokenizer.token_to_id
    return next((token for token in FAMILY_TOKENS[family] if vocabulary(token) is None), None)
