"""Families of models: a judge tends to like what its own family writes (arXiv 2410.21819), so overlaps are named."""

from __future__ import annotations

import re
from collections.abc import Mapping

FAMILIES = {
    "OpenAI's": r"\bgpt|\bo[1345]\b|\bo[1345]-|chatgpt|davinci",
    "Anthropic's": r"claude",
    "Google's": r"gemini|gemma|\bpalm\b",
    "Meta's Llama": r"llama|\bhermes|vicuna|alpaca",
    "Mistral's": r"mistral|mixtral|ministral|codestral|magistral|zephyr",
    "Alibaba's Qwen": r"qwen|\bqwq",
    "DeepSeek's": r"deepseek",
    "Microsoft's Phi": r"\bphi\b|\bphi-?[0-9]",
    "Cohere's": r"command-?r|\bcommand\b|\baya\b",
    "xAI's": r"grok",
    "Zhipu's": r"\bglm|chatglm",
    "Moonshot's": r"kimi|moonshot",
}
"""By words in the names of models. Distilled models are of the family whose weights they have, as far as the name says:
the last word that is found counts (``DeepSeek-R1-Distill-Qwen-7B`` is a Qwen)."""


def family_of(name: str) -> str:
    """Return the family of the model called ``name``; empty if it is not known."""
    found = [(match.start(), family) for family, words in FAMILIES.items() for match in re.finditer(words, name, re.I)]
    return max(found)[1] if found else ""


def overlaps(judges: Mapping[str, str], speakers: Mapping[str, str]) -> list[str]:
    """Return a note on each judge that is of the family of some of ``speakers`` (both by name, with their families)."""
    notes = []
    for judge, family in judges.items():
        same = [name for name, other in speakers.items() if family and other == family]
        if same:
            models = f"{family} models" if family.endswith("'s") else family
            notes.append(
                f"judge {judge} is of the same family ({models}) as {', '.join(same)}: judges tend to favour what "
                "their own family writes; add a judge of another family"
            )
    return notes
