"""Patterns that search foreign text (transcripts, answers of APIs, forms) cost a bounded number of steps from each place.

A search in n characters then takes at most n times that bound. Costs are counted in steps on the parse tree
(`tests/shared/pattern_cost.py`) and in executed instructions, never by the clock.
"""

from __future__ import annotations

import ast
import importlib
import math
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import Any

import pytest
from pattern_cost import steps_from_one_place
from places import ROOT

from cbtrain.eval.rating.cue_rater import LONGEST_PIECE
from cbtrain.eval.rating.cue_rater import rate as rate_by_cues
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.transcripts import labels
from cbtrain.transcripts.checking import Checker
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.label_grammar import line_pattern
from cbtrain.transcripts.labelled_text import parse_text
from cbtrain.transcripts.personal_data import personal_data
from cbtrain.transcripts.pseudonyms.lists import load_lists
from cbtrain.transcripts.pseudonyms.pseudonymise import Settings, pseudonymise
from cbtrain.transcripts.types import Corpus, Course, Session, Turn

ROOMS = {
    "cbtrain/transcripts": "cbtrain.transcripts",
    "cbtrain/text": "cbtrain.text",
    "cbtrain/patients": "cbtrain.patients",
    "cbtrain/providers": "cbtrain.providers",
    "cbtrain/synthesis": "cbtrain.synthesis",
    "cbtrain/tokens": "cbtrain.tokens",
    "cbtrain/generation": "cbtrain.generation",
    "cbtrain/serving": "cbtrain.serving",
    "eval/simulation": "cbtrain.eval.simulation",
    "eval/rating": "cbtrain.eval.rating",
    "eval/judge_audit": "cbtrain.eval.judge_audit",
    "eval/patient_audit": "cbtrain.eval.patient_audit",
    "eval/trained_rater": "cbtrain.eval.trained_rater",
    "eval/human_rating": "cbtrain.eval.human_rating",
}
SPEAKERS = ("Therapist", "Patient", "Dr. Mira Lindqvist", "Jo", "T", "C")
BUILT = {
    "cbtrain/transcripts/labels.py:strict_pattern": lambda: labels.strict_pattern(SPEAKERS),
    "cbtrain/transcripts/label_grammar.py:line_pattern": lambda: line_pattern(SPEAKERS),
    "cbtrain/transcripts/labels.py:_inner_pattern": lambda: labels._inner_pattern(SPEAKERS),
}
"""Patterns made from other text, by file and function."""
ONE_CHARACTER = {"cbtrain/text/language.py:LETTERS"}
ONLY_LITERALS = {
    "cbtrain/tokens/chat.py:__init__",
    "cbtrain/providers/redaction.py:_written",
    "cbtrain/transcripts/pseudonyms/pseudonymise.py:_phrases",
}
"""Alternatives of escaped text: one step a character."""
TESTED_ELSEWHERE = {"eval/simulation/drift_wordings.py:_any", "eval/trained_rater/wordings.py:_any_of"}
"""Patterns in tuples and lists: `tests/eval/simulation/test_drift.py` and `tests/eval/trained_rater/test_features.py`
count their steps."""
OF_A_SETTING = {
    "cbtrain/transcripts/mapping/config.py:_pattern",
    "cbtrain/transcripts/mapping/keys.py:in_path",
    "cbtrain/transcripts/mapping/turns.py:clean",
    "cbtrain/tokens/config.py:_compiles",
    "cbtrain/tokens/loss_mask.py:__init__",
    "eval/rating/cue.py:_compiles",
    "eval/rating/cue_rater.py:_compile",
}
"""Patterns that a person writes into a config or a rubric; those shipped are tested below."""
FILE_NAMES = {"cbtrain/transcripts/readers/plain_text.py:NUMBERED", "cbtrain/transcripts/readers/simulations.py:FILE"}
"""Applied to names of files, which have 255 characters at most."""
RUBRIC = load_rubric("cbt_fidelity")
ANYWHERE, AT_LINE_STARTS = 3_000, 200_000
"""Steps from one place. A pattern that begins with ``^`` starts once a line, and only long lines cost it much."""


def calls_of_re() -> Iterator[tuple[str, str, ast.Call]]:
    """File, enclosing name (a function or the variable assigned to) and call."""
    for room in ROOMS:
        for file in sorted((ROOT / room).rglob("*.py")):
            name = file.relative_to(ROOT).as_posix()
            yield from ((name, where, call) for where, call in _calls(ast.parse(file.read_text()), ""))


def _calls(node: ast.AST, where: str) -> Iterator[tuple[str, ast.Call]]:
    for child in ast.iter_child_nodes(node):
        inside = where
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = child.name
        elif not where and isinstance(child, ast.Assign | ast.AnnAssign):
            target = child.targets[0] if isinstance(child, ast.Assign) else child.target
            inside = target.id if isinstance(target, ast.Name) else ""
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute):
            owner = child.func.value
            if isinstance(owner, ast.Name) and owner.id == "re" and child.func.attr != "escape":
                yield where or inside, child
        yield from _calls(child, inside)


def module_of(file: str) -> Any:
    room = next(room for room in ROOMS if file.startswith(room + "/"))
    rest = file.removeprefix(room).removesuffix(".py").replace("/", ".")
    return importlib.import_module((ROOMS[room] + rest).removesuffix(".__init__"))


def patterns() -> Iterator[tuple[str, re.Pattern[str]]]:
    for file, where, call in calls_of_re():
        key = f"{file}:{where}"
        if key in BUILT:
            yield key, BUILT[key]()
        elif isinstance(value := getattr(module_of(file), where, None), re.Pattern):
            yield key, value
        elif isinstance(call.args[0], ast.Constant):
            yield key, re.compile(call.args[0].value)
        else:
            assert key in ONE_CHARACTER | ONLY_LITERALS | TESTED_ELSEWHERE | OF_A_SETTING, (
                f"{key}: a pattern that this test cannot see"
            )


def limit(key: str, pattern: re.Pattern[str]) -> float:
    return AT_LINE_STARTS if pattern.pattern.startswith("^") or key in FILE_NAMES else ANYWHERE


@pytest.mark.fault("F10")
def test_every_pattern_tries_few_steps_from_each_place():
    seen = dict(patterns())
    assert len(seen) > 40
    costs = {key: steps_from_one_place(pattern) for key, pattern in seen.items()}
    assert {key: cost for key, cost in costs.items() if cost > limit(key, seen[key])} == {}


def test_the_bound_knows_patterns_that_are_slow():
    slow = (r"(a+)+b", r"^\s*x", r"\w+\s*:", r"[\w.]+@", r"\**Patient:", r"(?=.*b)a", r"(?:\d+ )*", r"a.*b", r"\d+$")
    assert [steps_from_one_place(re.compile(pattern)) for pattern in slow] == [math.inf] * len(slow)
    bounded = {r"\w+": 1, "a{0,5}b": 6, "[ab]{0,5}[bc]{0,5}d": 41, "abc|bcd": 5, r"(?<=[.!?])\s+": 2}
    assert {p: steps_from_one_place(re.compile(p)) for p in bounded} == bounded


def test_patterns_of_the_shipped_rubrics_cost_little_in_one_piece():
    for file in sorted((ROOT / "configs" / "rubrics").glob("*.yaml")):
        for domain in load_rubric(file.stem).domains:
            for cue in domain.cues:
                if cue.pattern:
                    cost = steps_from_one_place(re.compile(cue.pattern, re.IGNORECASE))
                    # A repeat without an end runs to the end of a piece at most.
                    assert min(cost, LONGEST_PIECE) * LONGEST_PIECE <= 20_000_000, cue.pattern


def instructions(work: Callable[[], object]) -> int:
    """Instructions of Python executed by ``work``."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    finally:
        sys.settrace(before)
    return count


def everything_that_reads(text: str) -> None:
    """What a transcript meets: the reader, checks, cleaning, the search for personal data and names, the cue rater."""
    turns = tuple(parse_text(text, labels.COMMON_LABELS).turns)
    turns = turns or (Turn("patient", "Hello there, I am here."), Turn("therapist", text))
    session = Session("one", 1, turns, "one.txt", preamble=text[:100])
    assert list(Checker({}).add(session)) is not None
    clean(Corpus("one", "text", (Course("one", (session,)),)), CleaningPolicy())
    pseudonymise(Corpus("one", "text", (Course("one", (session,)),)), load_lists(), Settings())
    rate_by_cues(SimulatedSession("one", "a", "p", 0, list(turns)), RUBRIC)


@pytest.mark.fault("F10")
@pytest.mark.parametrize(
    "unit",
    ["a@b.cd ", "*", "(laughs) ", "<p> &amp;", "[END]\n", "<think> ", "汉 ก", "Anna Bell. ", "my son Will, ", "May 3, ", " ", "Therapist: Patient: ", "Session Summary:\n\n", "Patient: I am.\n", "1 (234) 567-8901 ",
     "here is part 1 of a session, ", "Well. Mother: No. ", "what would you like ", "\n", "Jo (x):"],
)  # fmt: skip
def test_twice_the_text_is_no_more_than_twice_the_work(unit):
    text = unit * (4_000 // len(unit))
    everything_that_reads(text[:100])  # caches, imports
    once, twice = (instructions(partial(everything_that_reads, text * times)) for times in (1, 2))
    assert twice < 2.3 * once


def test_addresses_in_a_long_text_are_all_found():
    text = "somebody@example.org, " * 3_000
    found = list(personal_data(text))
    assert len(found) == 3_000
    assert found[1] == ("e-mail", 22, "some" + "•" * 12)
