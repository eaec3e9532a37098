"""Perplexity of base and tuned therapist on held-out patients' therapist turns, on identical token ids."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from rich.console import Console
from rich.progress import track

from cbtrain.model.decoder import Decoder
from cbtrain.tokens.document import Document
from cbtrain.training.validation import measure_loss


def compare_perplexity(
    decoder: Decoder,
    tuned: Callable[[], AbstractContextManager[None]],
    documents: Mapping[str, Sequence[Document]],
    names: Mapping[str, str],
    pack_tokens: int,
    console: Console,
    plain: Mapping[str, Sequence[Document]] | None = None,
) -> dict[str, Any]:
    """Rows by patient and a verdict; ``decoder`` is the base, and in the body of ``tuned()`` the tuned therapist.

    ``mean_change_percent`` is the mean over patients of the tuned perplexity's change, each patient weighing the same.
    ``plain`` are the same words in the layout that the base was made on, where that is not the chat's: the base is
    measured on them too (``base_plain``), which tells the layout's part of the change from the words'.
    """
    rows: list[dict[str, Any]] = []
    shown = track(documents.items(), "perplexity", console=console, disable=not console.is_terminal)
    for patient, patient_documents in shown:
        base = measure_loss(decoder, patient_documents, pack_tokens)
        in_plain = measure_loss(decoder, plain[patient], pack_tokens).perplexity if plain else None
        with tuned():
            adapted = measure_loss(decoder, patient_documents, pack_tokens)
        rows.append(
            {
                "patient": patient,
                "name": names.get(patient, patient),
                "tokens": base.tokens,
                "base": base.perplexity,
                "base_plain": in_plain,
                "tuned": adapted.perplexity,
                "change_percent": 100 * (adapted.perplexity / base.perplexity - 1),
            }
        )
    mean = sum(row["change_percent"] for row in rows) / len(rows) if rows else None
    return {
        "tokens_note": "the same token ids for both arms: the therapist's words and their stop tokens",
        "patients": rows,
        "mean_change_percent": mean,
        "verdict": _verdict(rows, mean) + _layout(rows),
    }


def _verdict(rows: Sequence[dict[str, Any]], mean: float | None) -> str:
    if mean is None:
        return "Not measured: there is no held-out session."
    lower = sum(row["tuned"] < row["base"] for row in rows)
    return (
        f"The tuned therapist's perplexity on therapist turns is lower than the base's for {lower} of {len(rows)} "
        f"held-out patients, by {-mean:.1f} % on average."
        if mean < 0
        else f"The tuned therapist's perplexity is lower for {lower} of {len(rows)} held-out patients, and on average "
        f"{mean:.1f} % higher: the fine-tuning has not helped."
    )


def _layout(rows: Sequence[dict[str, Any]]) -> str:
    """Return a sentence on the change that is left once the base is measured in its own layout."""
    changes = [100 * (row["tuned"] / row["base_plain"] - 1) for row in rows if row["base_plain"] is not None]
    if not changes:
        return ""
    mean = sum(changes) / len(changes)
    return (
        f" Part of this is the chat layout, which this tiny base has never seen: measured in the plain layout it was "
        f"made on, the base is {'behind' if mean < 0 else 'ahead'} by {abs(mean):.1f} % on average."
    )
