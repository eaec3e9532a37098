"""``cbtrain pairs make evaluation | corpus | safety``: make pairs of answers of what there is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.chat import MAX_TOKENS, THERAPIST, with_longer_answers
from cbtrain.cli.local_model import add_local_model_arguments
from cbtrain.cli.model import model_of
from cbtrain.cli.parser import (
    ALIASES,
    Commands,
    Parser,
    add_command,
    add_optional_word,
    add_study_arguments,
    add_upload_argument,
    continued_by,
    leading_console,
    study_of,
)
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from cbtrain.study.pairs.answerer import Answerer
    from cbtrain.study.pairs.held_out import KeepOut

MOST_TURNS = 20


def add(commands: Commands) -> None:
    """Add ``pairs`` and its sub-commands."""
    text = "pairs of answers, one chosen over the other: make them of evaluations, transcripts, unsafe answers"
    pairs = commands.add_parser("pairs", help=text, description=f"{text[0].upper()}{text[1:]} (docs/pairs.md).")
    pairs.summary = text
    kinds = pairs.add_commands(dest="pairs_command", required=True, metavar="COMMAND")
    text = "make pairs: from a scored evaluation, a corpus, or answers that were found unsafe"
    make = kinds.add_parser(
        "make", help=text, description=f"{text[0].upper()}{text[1:]}. Held-out patients never enter."
    )
    sources = make.add_commands(dest="pairs_source", required=True, metavar="SOURCE")
    _add_evaluation(sources)
    _add_corpus(sources)
    _add_safety(sources)


def _add_evaluation(sources: Commands) -> None:
    parser = add_command(
        sources,
        "evaluation",
        _evaluation,
        "two answers to the same dialogue state, that of the better rated session chosen",
        "Two sessions of a patient share a state as long as their turns are the same, word for word.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of an evaluation with its scores")
    _add_out(parser)
    text = "compare the sessions of different arms, or those of one arm with different seeds (default: arm)"
    parser.add_argument("--by", choices=["arm", "seed"], default="arm", help=text)
    parser.add_argument("--judge", metavar="NAME", help="use the scores of this judge only (default: the primary ones)")
    parser.add_argument("--people", action="store_true", help="use the scores of people only")
    text = "least difference of two sessions, in points of the total (default: a tenth of the instrument's range)"
    parser.add_argument("--margin", type=float, metavar="POINTS", help=text)
    text = "most turns of the therapist in an answer, with what the patient says between them (default: 1)"
    parser.add_argument("--turns", type=int, default=1, metavar="N", help=text)
    _add_keep_out(parser)


def _add_corpus(sources: Commands) -> None:
    parser = add_command(
        sources,
        "corpus",
        _corpus,
        "a transcript's next turn chosen over a model's own answer to the same beginning",
        f"Prompts are beginnings of the training part's sessions (split). A killed command continues. {ALIASES}",
    )
    add_optional_word(parser, "path", "file or folder of transcripts, or 'sample'", "corpus.path")
    add_study_arguments(parser, "split.seed=3")
    _add_out(parser)
    text = "most prompts of a session, drawn by seed (default: 3)"
    parser.add_argument("--per-session", type=int, default=3, metavar="N", help=text)
    add_local_model_arguments(parser, "prompt and answer")
    parser.add_argument("--adapter", type=Path, metavar="DIR", help="adapter folder: its answers are rejected")
    text = "ask this API instead of a model here: a preset, or a YAML file with a provider's settings"
    parser.add_argument("--provider", metavar="NAME", help=text)
    parser.add_argument("--provider-model", metavar="NAME", help="with --provider: another model of it")
    text = "this API's answers are chosen instead of the transcripts': a preset, or a YAML file"
    parser.add_argument("--chosen-provider", metavar="NAME", help=text)
    parser.add_alias("--temperature", f"{THERAPIST}.temperature", type=float, help="0: always the likeliest token")
    text = f"longest answer; {MAX_TOKENS} without --config"
    parser.add_alias("--max-tokens", f"{THERAPIST}.max_tokens", type=int, help=text)
    parser.add_argument("--keep-cut", action="store_true", help="keep answers that were cut at the longest length")
    parser.add_alias("--seed", "seed", type=int, help="another seed draws other prompts and answers")
    add_upload_argument(parser, "words of sessions")


def _add_safety(sources: Commands) -> None:
    parser = add_command(
        sources,
        "safety",
        _safety,
        "a better answer chosen over each that a rule or a person found unsafe",
        "With --answers, the first call writes a form of what was found; a person fills it in. No text is made up.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folder of an evaluation")
    _add_out(parser)
    text = "form (CSV) with a person's verdicts and better answers; written if it is not there"
    parser.add_argument("--answers", type=Path, metavar="FORM", help=text)
    _add_keep_out(parser)


def _add_out(parser: Parser) -> None:
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="new .jsonl file")


def _add_keep_out(parser: Parser) -> None:
    text = "patients kept for the final test: a share (0.5; 0: nobody), or a file that names them"
    parser.add_argument("--keep-out", metavar="SHARE|FILE", help=text)
    text = "another seed keeps other patients out (default: 0)"
    parser.add_argument("--seed", type=int, default=0, help=text)


def _keep_out(parsed: argparse.Namespace) -> KeepOut | None:
    from cbtrain.study.pairs.held_out import keep_out

    return None if parsed.keep_out is None else keep_out(parsed.keep_out, parsed.seed)


def _evaluation(parsed: argparse.Namespace) -> None:
    from cbtrain.study.pairs.from_evaluation import Wanted
    from cbtrain.study.pairs.make_evaluation import EvaluationRequest, make_from_evaluation

    if parsed.judge and parsed.people:
        raise UserError("--judge and --people are both given", where="pairs make", hint="Say whose scores count.")
    if not 1 <= parsed.turns <= MOST_TURNS:
        raise UserError(f"{parsed.turns} turns", where="--turns", hint=f"Give a number from 1 to {MOST_TURNS}.")
    request = EvaluationRequest(
        parsed.runs,
        parsed.out,
        Wanted(parsed.by, turns=parsed.turns),
        _keep_out(parsed),
        margin=parsed.margin,
        judge=parsed.judge,
        people=parsed.people,
    )
    make_from_evaluation(request, _say)


def _corpus(parsed: argparse.Namespace) -> None:
    from cbtrain.study.pairs.make_corpus import CorpusRequest, make_from_corpus

    if parsed.per_session < 1:
        raise UserError(f"{parsed.per_session} is below 1", where="--per-session", hint="Give a number from 1 on.")
    answerer = _answerer(parsed)
    request = CorpusRequest(
        answerer,
        parsed.out,
        parsed.per_session,
        better=_better(parsed, answerer),
        keep_cut=parsed.keep_cut,
        allow_upload=parsed.allow_upload,
    )
    with continued_by(parsed.command_line, "--out", parsed.out):
        make_from_corpus(request, leading_console())


def _answerer(parsed: argparse.Namespace) -> Answerer:
    """Return whoever gives the rejected answers. Raises UserError if none or several are named."""
    from cbtrain.config.loading import load_provider_config
    from cbtrain.study.pairs.answerer import api_answerer, local_answerer

    config = study_of(with_longer_answers(parsed))
    if parsed.provider is None:
        if parsed.provider_model:
            raise UserError("it needs --provider", where="--provider-model", hint="Or name a model here with --model.")
        if config.threads:
            import torch

            torch.set_num_threads(config.threads)
        return local_answerer(config, model_of(config, "pairs make corpus"), parsed.adapter, force=parsed.force)
    if parsed.model or parsed.adapter:
        raise UserError("--provider and a model here are both given", where="pairs make", hint="Leave one out.")
    changes = [f"model={parsed.provider_model}"] if parsed.provider_model else []
    return api_answerer(config, load_provider_config(parsed.provider, changes))


def _better(parsed: argparse.Namespace, answerer: Answerer) -> Answerer | None:
    """Return whoever gives the chosen answers; None: the transcripts do."""
    from cbtrain.config.loading import load_provider_config
    from cbtrain.study.pairs.answerer import api_answerer

    if parsed.chosen_provider is None:
        return None
    return api_answerer(answerer.config, load_provider_config(parsed.chosen_provider))


def _safety(parsed: argparse.Namespace) -> None:
    from cbtrain.study.pairs.make_safety import SafetyRequest, make_from_safety

    make_from_safety(SafetyRequest(parsed.runs, parsed.out, _keep_out(parsed), form=parsed.answers), _say)


def _say(text: str) -> None:
    leading_console().print(text, highlight=False, markup=False, soft_wrap=True)
