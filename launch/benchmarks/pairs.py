"""Pairs of answers with their beginning computed once, beside two documents a pair.

``python launch/benchmark.py pairs`` prints a row for each length of the beginning. Tokens of the plain way are those of
TRL's own batches. Seconds are those of a forward and backward pass of the DPO loss over one pair by a Llama of random
weights: packed, and as two documents in one row, in turn, the quickest of several. What the base says is known in both.
Memory is not measured.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.methods import LLAMA

BEGINNINGS = (100, 500, 1000, 2000, 4000)


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmark.py pairs", description=__doc__)
    parser.add_argument("--answer", type=int, default=100, help="tokens of each answer (default: %(default)s)")
    parser.add_argument("--beginnings", type=int, nargs="+", default=BEGINNINGS, help="tokens before both answers")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parsed = parser.parse_args(arguments)
    rows = [_row(beginning, parsed) for beginning in parsed.beginnings]
    print(f"{'beginning':>9}{'answers':>10}{'tokens':>8}{'of TRL':>8}{'share':>7}{'s':>8}{'two s':>8}{'time':>7}")
    for row in rows:
        share, ratio = row["tokens"] / row["trl_tokens"], row["seconds"] / row["two_seconds"]
        counts = f"{row['beginning']:>9,}{'2 x ' + str(parsed.answer):>10}{row['tokens']:>8,}{row['trl_tokens']:>8,}"
        print(f"{counts}{share:>7.2f}{row['seconds']:>8.2f}{row['two_seconds']:>8.2f}{ratio:>7.2f}")
    if parsed.json:
        Path(parsed.json).write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _row(beginning: int, parsed: argparse.Namespace) -> dict[str, Any]:
    import torch

    from cbtrain.model.architecture import parse_architecture
    from cbtrain.model.config import LoraConfig
    from cbtrain.model.linears.formats import WeightFormat
    from cbtrain.tokens.document import Document
    from cbtrain.tokens.pack import build_pack
    from cbtrain.tokens.pair_builder import joined
    from cbtrain.training.loss import token_losses
    from cbtrain.training.objectives.answers import Answers, answers_of
    from cbtrain.training.objectives.losses import dpo
    from cbtrain.training.planning.random_model import random_decoder
    from cbtrain.training.planning.scenario import Scenario

    torch.set_num_threads(parsed.threads)
    architecture = parse_architecture(LLAMA, "benchmark")
    random = np.random.default_rng(0)
    prompt, *answers = (random.integers(0, architecture.vocabulary, n) for n in (beginning, *[parsed.answer] * 2))
    mask = np.concatenate([np.zeros(beginning), np.ones(parsed.answer)]).astype(np.float32)
    whole = [Document("answer", np.concatenate([prompt, answer]).astype(np.int32), mask) for answer in answers]
    chosen, rejected = whole
    packed, two = build_pack([joined(chosen, rejected, "pair")]), build_pack(whole)
    scenario = Scenario(architecture, WeightFormat("fp32", torch.float32), LoraConfig(rank=16))
    decoder = random_decoder(scenario, torch.device("cpu")).train()
    reference = torch.zeros(1, 2)

    def step(*, shared: bool) -> float:
        began = time.perf_counter()
        if shared:
            found = answers_of(*token_losses(decoder, packed), packed)
        else:
            losses, _ = token_losses(decoder, two)
            first, second = (-part.sum()[None] for part in losses.split(parsed.answer))
            length, none = torch.tensor([float(parsed.answer)]), torch.zeros(1)
            found = Answers(first, second, none, length, length, none, torch.ones(1))
        values, _ = dpo(found, reference, 0.1)
        values.sum().backward()
        return time.perf_counter() - began

    seconds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(parsed.rounds):
        for shared in (True, False):
            seconds[shared].append(step(shared=shared))
    return {
        "beginning": beginning,
        "tokens": packed.tokens,
        "trl_tokens": _trl_tokens(prompt, answers),
        "seconds": min(seconds[True][1:]),
        "two_seconds": min(seconds[False][1:]),
    }


def _trl_tokens(prompt: Any, answers: Any) -> int:
    """Return the tokens, padding included, of TRL's batch of the pair."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    chosen, rejected = answers
    pair = {"prompt_ids": prompt.tolist(), "chosen_ids": chosen.tolist(), "rejected_ids": rejected.tolist()}
    return int(DataCollatorForPreference(pad_token_id=0)([pair])["input_ids"].numel())
