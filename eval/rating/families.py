"""Families of models: a judge tends to like what its own family writes (arXiv 2410.21819), so overlaps are named."""

from __future__ import annotations

import re
from collections.abc import Mapping

FAMILIES = {
    "OpenAI's": re.compile(r"\bgpt|\bo[1345]\b|\bo[1345]-|chatgpt|davinci", re.IGNORECASE),
    "Anthropic's": re.compile(r"claude", re.IGNORECASE),
    "Google's": re.compile(r"gemini|gemma|\bpalm\b", re.IGNORECASE),
    "Meta's Llama": re.compile(r"llama|\bhermes|vicuna|alpaca", re.IGNORECASE),
    "Mistral's": re.compile(r"mistral|mixtral|ministral|codestral|magistral|zephyr", re.IGNORECASE),
    "Alibaba's Qwen": re.compile(r"qwen|\bqwq", re.IGNORECASE),
    "DeepSeek's": re.compile(r"deepseek", re.IGNORECASE),
    "Microsoft's Phi": re.compile(r"\bphi\b|\bphi-?[0-9]", re.IGNORECASE),
    "Cohere's": re.compile(r"command-?r|\bcommand\b|\baya\b", re.IGNORECASE),
    "xAI's": re.compile(r"grok", re.IGNORECASE),
    "Zhipu's": re.compile(r"\bglm|chatglm", re.IGNORECASE),
    "Moonshot's": re.compile(r"kimi|moonshot", re.IGNORECASE),
}
"""By words in the names of models. Distilled models are of the family whose weights they have, as far as the name says:
the last word that is found counts (``DeepSeek-R1-Distill-Qwen-7B`` is a Qwen)."""


def family_of(name: str) -> str:
    """Return the family of the model called ``name``; empty if it is not known."""
    found = [(match.start(), family) for family, words in FAMILIES.items() for match in words.finditer(name)]
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
