"""What sessions become: whole, cut, courses, records; and which of their words the loss counts."""

import itertools
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import builder_for, documents_for, stretches, units_for
from pydantic import ValidationError

from cbtrain.errors import UserError
from cbtrain.tokens.config import LEFT_OUT, TokensConfig
from cbtrain.tokens.tokenizer import train_tokenizer
from cbtrain.transcripts.types import Session, Turn

WORDS = "sleep work mood thought walk friend list plan week evidence calm doubt".split()
TOKENIZER = train_tokenizer(
    [" ".join(WORDS)] * 5 + ["[Earlier turns are left out.] Be kind. session begins"], 420, 4000
)


def turns(count, first="patient", words=6, start=0):
    """Turns with a number of their own in each: ``p0 …``, ``t1 …``."""
    roles = ["patient", "therapist"] if first == "patient" else ["therapist", "patient"]
    made = []
    for index in range(count):
        role = roles[index % 2]
        text = " ".join(WORDS[(index + k) % len(WORDS)] for k in range(words))
        made.append(Turn(role, f"{role[0]}{index + start} {text}"))
    return made


def learnt(documents):
    """The supervised turns, as decoded, in order."""
    text = "".join(TOKENIZER.decode(run) for document in documents for run in stretches(document))
    return [part for part in text.split("<|end|>") if part]


def test_a_document_that_fits_is_left_whole():
    (document,) = documents_for(TOKENIZER, turns(6))
    assert document.name == "c/1"
    assert learnt([document]) == [t.text for t in turns(6) if t.role == "therapist"]


@given(
    count=st.integers(2, 40),
    first=st.sampled_from(["patient", "therapist"]),
    words=st.integers(1, 12),
    limit=st.integers(70, 300),
    carry=st.sampled_from([0.0, 0.25, 0.6, 0.9]),
    supervise=st.sampled_from(["therapist", "patient", "both"]),
    system=st.sampled_from([None, "Be kind."]),
    recipe=st.sampled_from(["whole", "paper"]),
)
def test_every_turn_is_learnt_exactly_once_however_small_the_documents(
    count, first, words, limit, carry, supervise, system, recipe
):
    said = turns(count, first, words)
    options = {"supervise": supervise, "pack_tokens": limit, "carry": carry, "recipe": recipe}
    documents = documents_for(TOKENIZER, said, system=system, **options)
    assert all(len(document) <= limit for document in documents)
    assert all(document.supervised[-1] for document in documents)
    wanted = [turn.text for turn in said if supervise in ("both", turn.role)]
    assert learnt(documents) == wanted


def test_pieces_carry_earlier_turns_and_say_what_is_missing():
    said = turns(40)
    documents = documents_for(TOKENIZER, said, system="Be kind.", pack_tokens=160, carry=0.4)
    assert [document.name for document in documents] == [f"c/1#{n}" for n in range(1, len(documents) + 1)]
    texts = [TOKENIZER.decode(document.ids) for document in documents]
    assert all("Be kind." in text for text in texts)
    assert [LEFT_OUT in text for text in texts] == [False] + [True] * (len(texts) - 1)
    numbers = [[int(n) for n in re.findall(r"[pt](\d+) ", text)] for text in texts]
    for before, after in itertools.pairwise(numbers):
        repeated = set(before) & set(after)
        assert 1 <= len(repeated) <= 0.4 * 160 / 6
        assert set(after) == set(range(min(after), max(after) + 1))
        assert min(after) <= max(before) + 1  # no turn is left out between two pieces


def test_a_turn_that_does_not_fit_is_named():
    said = [*turns(4), Turn("patient", "p4"), Turn("therapist", "sleep " * 90)]
    with pytest.raises(
        UserError, match=r"c/1: turn 6 of c/1 needs \d+ tokens with its system prompt, and a document holds 64"
    ):
        documents_for(TOKENIZER, said, pack_tokens=64)


def test_a_context_turn_that_does_not_fit_is_named_too():
    said = [*turns(4), Turn("patient", "sleep " * 150), Turn("therapist", "t5 I hear you."), *turns(4)]
    with pytest.raises(UserError, match=r"c/1: turn 5 of c/1 needs \d+ tokens with its system prompt, and a document"):
        documents_for(TOKENIZER, said, pack_tokens=64)


@pytest.mark.parametrize("tail", [0, 1])
def test_what_is_in_no_document_is_counted(tail):
    said = []
    for number in range(6):  # each patient's turn leaves little room for the answer to it, and none for the turn before
        said += [Turn("patient", f"p{number} " + "sleep " * 30), Turn("therapist", f"t{number} " + "work " * 30)]
    said += [Turn("patient", "bye " * 20)] * tail
    builder = builder_for(TOKENIZER, pack_tokens=92)
    (unit,) = units_for(builder, [said])
    built = builder.build(unit)
    rendered = builder_for(TOKENIZER)
    (whole,) = rendered.build(units_for(rendered, [said])[0]).documents
    missing = [n for n in range(6) if not any(f"p{n} " in TOKENIZER.decode(d.ids) for d in built.documents)]
    assert missing
    extents = {n: len(TOKENIZER(said[2 * n].text)["input_ids"]) for n in missing}
    assert sum(extents.values()) <= built.dropped <= sum(extents.values()) + 4 * len(missing)
    assert built.truncated
    assert sum(document.trimmed for document in built.documents) == whole.trimmed
    assert (whole.trimmed > 20) == bool(tail)
    roomy = builder_for(TOKENIZER, pack_tokens=200)
    assert roomy.build(units_for(roomy, [said])[0]).dropped == 0


def test_the_models_positions_are_a_limit():
    said = turns(40)
    pieces = documents_for(TOKENIZER, said, pack_tokens=5000, positions=200)
    assert max(map(len, pieces)) <= 200  # a session: cut
    with pytest.raises(
        UserError, match=r"tokens, but the model has 200 positions\. Write RoPE scaling.*=200 to cut it"
    ):
        documents_for(TOKENIZER, said, pack_tokens=5000, positions=200, document="course")
    with pytest.raises(UserError, match="but the model has 200 positions"):
        documents_for(TOKENIZER, said, positions=200, document_tokens=5000)
    assert len(documents_for(TOKENIZER, said, positions=200, document_tokens=5000, recipe="paper")) == 20
    assert len(documents_for(TOKENIZER, said, pack_tokens=16, document_tokens=5000)) == 1  # a pack of its own


def test_a_course_is_one_document_in_order_and_may_be_cut():
    sessions = [turns(5), turns(4, "therapist", start=100), turns(3, start=200)]
    (whole,) = documents_for(TOKENIZER, *sessions, system="Be kind.", document="course")
    text = TOKENIZER.decode(whole.ids)
    assert whole.name == "c"
    assert text.count("Be kind.") == 1
    marks = [text.index(f"[Session {n} begins.]") for n in (1, 2, 3)]
    assert marks == sorted(marks)
    # A session that ended with the patient and the next one's beginning are one message: roles go on alternating.
    roles = re.findall(r"<\|(user|assistant)\|>", text)
    assert all(a != b for a, b in itertools.pairwise(roles))
    wanted = [turn.text for session in sessions for turn in session if turn.role == "therapist"]
    assert learnt([whole]) == wanted
    pieces = documents_for(TOKENIZER, *sessions, system="Be kind.", document="course", pack_tokens=90)
    assert len(pieces) > 2
    assert learnt(pieces) == wanted


def test_paper_records_hold_the_whole_history_and_cost_what_is_said():
    builder = builder_for(TOKENIZER, recipe="paper")
    (unit,) = units_for(builder, [turns(8)])
    built = builder.build(unit)
    assert [d.name for d in built.documents] == ["c/1@2", "c/1@4", "c/1@6", "c/1@8"]
    last = built.documents[-1].ids.tolist()
    for document in built.documents:
        assert last[: len(document)] == document.ids.tolist()
        assert len(stretches(document)) == 1
    assert built.paper_tokens == sum(map(len, built.documents))
    whole = builder_for(TOKENIZER).build(unit)
    assert (whole.whole_tokens, whole.paper_tokens) == (built.whole_tokens, built.paper_tokens)
    assert whole.whole_tokens == len(whole.documents[0]) == len(last)


def test_an_empty_turn_is_a_record_of_the_paper_but_an_error_elsewhere():
    said = [*turns(2), Turn("patient", "hm"), Turn("therapist", "")]
    records = documents_for(TOKENIZER, said, recipe="paper")
    assert [TOKENIZER.decode(run) for run in stretches(records[1])] == ["<|end|>"]


@pytest.mark.fault("A11")
def test_weights_by_rule_apply_to_the_turn_and_its_stop_token():
    said = [Turn("patient", "Are you an AI?"), Turn("therapist", "As an AI I can be wrong."), *turns(4)]
    rules = [
        {"match": "ai_limits", "weight": 0.1},
        {"match": r"\bt1\b", "weight": 0},
        {"match": "^p", "weight": 5, "role": "patient"},
    ]
    (document,) = documents_for(TOKENIZER, said, weights=rules)
    runs = stretches(document)
    assert [TOKENIZER.decode(run) for run in runs] == ["As an AI I can be wrong.<|end|>", f"{said[5].text}<|end|>"]
    assert sorted(set(document.loss_weights.tolist())) == [0.0, np.float32(0.1), 1.0]
    assert document.loss_weights[document.loss_weights == np.float32(0.1)].sum() == pytest.approx(0.1 * len(runs[0]))
    later = documents_for(TOKENIZER, [*turns(4), *said], weights=[{**rules[0], "first_turns": 4}])
    assert set(later[0].loss_weights.tolist()) == {0.0, 1.0}  # late in a session it is no boilerplate
    own = [replace(turn, weight=weight) for turn, weight in zip(said, (1, 0.5, 0, 2, 1, 0), strict=True)]
    (document,) = documents_for(TOKENIZER, own, weights=rules)
    assert sorted(set(document.loss_weights.tolist())) == [0.0, np.float32(0.05)]
    (both,) = documents_for(TOKENIZER, said, weights=rules, supervise="both")
    assert both.loss_weights.max() == 5
    with pytest.raises(ValidationError, match="not a regular expression"):
        TokensConfig(weights=[{"match": "(", "weight": 1}])
    with pytest.raises(UserError, match=r"c/1: no token in it is supervised"):
        documents_for(TOKENIZER, said, weights=[{"match": ".", "weight": 0}])


SUMMARY = (
    "Session Summary:\n- Main topics discussed: sleep, work and the long walk home from the office\n"
    "- Homework agreed: write down one thought a day and the evidence for and against it"
)
PASTED = SUMMARY.partition("\n")[2]


@pytest.mark.parametrize("label", [True, False])
def test_a_pasted_summary_is_context_and_the_words_around_it_are_learnt(label):
    first = [*turns(2), Turn("patient", "bye"), Turn("therapist", SUMMARY)]
    opening = f"Here it is:\n\n{SUMMARY if label else PASTED}\n\nI slept badly."
    second = [Turn("patient", opening), Turn("therapist", "t9 Since when?")]
    settings = {"speaker": "patient", "supervise": "patient"}
    document = documents_for(TOKENIZER, first, second, **settings)[1]
    text = "".join(TOKENIZER.decode(run) for run in stretches(document))
    assert text.startswith("Here it is:")
    assert text.endswith("I slept badly.<|end|>")
    assert "Main topics" not in text
    assert "Homework agreed" not in text
    assert "Main topics" in TOKENIZER.decode(document.ids)
    unmasked = documents_for(TOKENIZER, first, second, mask_pasted_summary=False, **settings)[1]
    assert "Main topics" in "".join(TOKENIZER.decode(run) for run in stretches(unmasked))


def test_a_turn_that_is_all_summary_still_teaches_to_stop():
    second = [Turn("patient", SUMMARY), Turn("therapist", "t1 So?"), Turn("patient", "p2 Yes.")]
    first = [*turns(2), Turn("therapist", SUMMARY)]
    document = documents_for(TOKENIZER, first, second, speaker="patient", supervise="patient")[1]
    assert [TOKENIZER.decode(run) for run in stretches(document)] == ["<|end|>", "p2 Yes.<|end|>"]


def test_combinations_that_cannot_be():
    with pytest.raises(ValidationError, match="needs document 'session'"):
        TokensConfig(recipe="paper", document="course")
    with pytest.raises(ValidationError, match="needs recipe 'paper'"):
        TokensConfig(format="alpaca")
    with pytest.raises(ValidationError, match="unknown format 'lama3'"):
        TokensConfig(format="lama3")


def test_sessions_keep_their_numbers():
    (document,) = documents_for(TOKENIZER, Session("c", 7, tuple(turns(2))), document="course")
    assert "[Session 7 begins.]" in TOKENIZER.decode(document.ids)
