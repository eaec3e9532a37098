"""``cbtrain pairs make corpus``: prompts of the training part, a model's own answers to them, pairs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from cbtrain.console import plain
from cbtrain.errors import UserError
from cbtrain.eval.report.formatting import counted
from cbtrain.study.consent import imported_part, require_consent, stays_here
from cbtrain.study.corpus import StudyCorpus, load_corpus
from cbtrain.study.pairs.answerer import Answerer
from cbtrain.study.pairs.answers import Answer, Side, answer_prompts, answers_beside
from cbtrain.study.pairs.from_corpus import pairs_of_corpus
from cbtrain.study.pairs.made import MadePairs
from cbtrain.study.pairs.prompts import Prompt, draw_prompts
from cbtrain.study.pairs.writing import require_new_file, write_pairs


@dataclass(frozen=True, slots=True)
class CorpusRequest:
    """What the user asks for: at most ``per_session`` prompts of each session of the corpus that the settings of
    ``answerer`` name; its answers are rejected. ``better``: whose answers are chosen; None: the transcripts'.
    ``keep_cut``: answers that ended at the longest length are kept."""

    answerer: Answerer
    out: Path
    per_session: int
    better: Answerer | None = None
    keep_cut: bool = False
    allow_upload: bool = False


def make_from_corpus(request: CorpusRequest, console: Console) -> MadePairs:
    """Write the pairs of the training part to ``request.out``; the answers are kept beside it. Raises UserError if no
    pair can be made or answers are missing: the same command then asks for the rest. Raises Stopped after a signal."""
    require_new_file(request.out)
    config = request.answerer.config
    for one in (request.answerer, request.better):
        if one is not None and one.provider is not None:
            allowed = request.allow_upload or stays_here(config.providers)
            require_consent(imported_part(config.corpus), "words of its sessions", one.provider.base_url, allowed)
    corpus = load_corpus(config, console)
    _tell_parts(corpus, console)
    prompts = draw_prompts(corpus.split.train, request.per_session, config.seed, config.tokens)
    if not prompts:
        raise UserError("no therapist's turn in the training part to choose", where=config.corpus.path)
    plain(console, f"{counted(len(prompts), 'prompt')}, at most {request.per_session} a session")
    answers = _answers(prompts, request.answerer, "rejected", request.out, console)
    chosen = _answers(prompts, request.better, "chosen", request.out, console) if request.better else None
    facts = {
        "corpus": Path(corpus.summary["path"]).name,
        "corpus_fingerprint": corpus.summary["fingerprint"],
        "split_seed": str(config.split.seed),
        "seed": str(config.seed),
        **request.answerer.facts("rejected"),
        **(request.better.facts("chosen") if request.better else {"chosen_by": "the transcript"}),
    }
    made = pairs_of_corpus(prompts, answers, facts, chosen=chosen, keep_cut=request.keep_cut)
    made.tell_left_out(lambda line: plain(console, line))
    if speaking := sum("rejected_speaks_for_patient" in pair.facts for pair in made.pairs):
        plain(console, f"note: in {counted(speaking, 'rejected answer')} the model also speaks for the patient")
    sides = corpus.split.ids()
    write_pairs(made.pairs, request.out, {"held_out_by_the_split": [*sides["validation"], *sides["test"]]})
    made.tell_written(request.out, lambda line: plain(console, line))
    plain(console, f"the answers as they came: {answers_beside(request.out)}")
    return made


def _answers(
    prompts: Sequence[Prompt], answerer: Answerer, side: Side, out: Path, console: Console
) -> dict[str, Answer]:
    """Return the answers of one side by the keys of ``prompts``. Raises UserError if one is missing."""
    journal = answers_beside(out)
    answers, missing = asyncio.run(answer_prompts(prompts, answerer, side, journal, console))
    if missing:
        what = f"{counted(len(missing), 'answer')} of {len(prompts):,} are missing, the first: {missing[0]}"
        raise UserError(what, where=journal, hint="Run the same command again: it asks for these only.")
    return answers


def _tell_parts(corpus: StudyCorpus, console: Console) -> None:
    sides = corpus.split.ids()
    held = [f"{counted(len(sides[side]), 'course')} of the {side} part" for side in ("validation", "test")]
    plain(console, f"{counted(len(sides['train']), 'course')} of the training part; never entered: {', '.join(held)}")
