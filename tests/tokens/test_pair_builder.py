"""Pairs of answers as documents: both sessions as they are rendered alone, with what they share once."""

import numpy as np
import pytest
from family_tokenizers import FAMILIES, family_tokenizer

from cbtrain.errors import UserError
from cbtrain.tokens.cache import TokenStore, open_store, save
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.config import TokensConfig, WeightRule
from cbtrain.tokens.document_builder import DocumentBuilder, Unit
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.pack import build_pack, concatenated
from cbtrain.tokens.pair_builder import PairBuilder
from cbtrain.tokens.stream import PackStream
from cbtrain.tokens.tokenize import tokenize
from cbtrain.transcripts.preference import pair_session, rejected_session
from cbtrain.transcripts.types import Session, Turn

PROMPT = (
    Turn("patient", "I failed again."),
    Turn("therapist", "What happened?"),
    Turn("patient", "My boss asked, and I had no answer."),
)
GOOD, POOR = "What went through your mind then?", "What a pity. Prepare better."


def pair(chosen=GOOD, rejected=POOR, *, prompt=PROMPT, weight=1.0, more=()):
    session = Session("p1", 1, tuple(prompt))
    return pair_session(session, [Turn("therapist", chosen), *more], [Turn("therapist", rejected)], weight)


def unit(session, system="Be kind."):
    return Unit(session.id, (session,), system, ("",))


def builder(family="qwen2.5", kind=PairBuilder, *, pack=512, **settings):
    tokenizer = family_tokenizer(family)
    renderer = ChatRenderer(tokenizer, choose_format(tokenizer, "auto", "therapist"), len(tokenizer))
    options = {key: settings.pop(key) for key in ("prompt_counts",) if key in settings}
    more = ("therapist",) if kind is DocumentBuilder else ()
    return kind(renderer, "therapist", *more, TokensConfig(**settings), pack, 4096, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pair_holds_both_sessions_as_they_are_rendered_alone(family):
    session = pair(weight=2.5, more=(Turn("patient", "That I am stupid."), Turn("therapist", "How true is that?")))
    made = builder(family)
    (document,) = made.build(unit(session)).documents
    alone = builder(family, DocumentBuilder)
    chosen, rejected = (alone.build(unit(one)).documents[0] for one in (session, rejected_session(session)))
    b = document.branches
    assert b.weight == 2.5
    first, second = document.ids[: b.rejected], np.append(document.ids[: b.chosen], document.ids[b.rejected :])
    assert first.tolist() == chosen.ids.tolist()
    assert second.tolist() == rejected.ids.tolist()
    assert document.ids[b.chosen] == document.ids[b.rejected]  # the token that predicts both answers
    weights = document.loss_weights
    assert weights[: b.rejected].tolist() == chosen.loss_weights.tolist()
    assert np.append(weights[: b.chosen], weights[b.rejected :]).tolist() == rejected.loss_weights.tolist()
    assert not weights[: b.chosen + 1].any()
    assert not weights[b.rejected]
    words = made.renderer.decode(document.ids[weights > 0].tolist())
    assert all(text in words for text in (GOOD, "How true is that?", POOR))
    assert "What happened?" not in words


def test_answers_with_the_same_beginning_keep_it_in_both_branches():
    (document,) = builder().build(unit(pair("What happened then?", "What happened to you?"))).documents
    b = document.branches
    chosen, rejected = document.ids[b.chosen : b.rejected], document.ids[b.rejected :]
    assert chosen[1] == rejected[1]
    pack = build_pack([document, document])
    first, second = pack.pairs
    assert first.labels == (0, len(chosen) - 1, len(rejected) - 1)
    assert second.borders == tuple(border + len(document) for border in first.borders)
    positions = pack.position_ids[: len(document)].tolist()
    assert positions == [*range(b.rejected), *range(b.chosen, b.chosen + len(rejected))]
    assert concatenated([build_pack([document])] * 2).pairs == pack.pairs
    (counted,) = builder(prompt_counts=True).build(unit(pair("What happened then?", "What happened to you?"))).documents
    assert build_pack([counted]).pairs[0].labels == (b.chosen, *first.labels[1:])


def test_pairs_come_back_from_the_cache_and_divide_the_loss_by_their_weights(tmp_path):
    sessions = [pair(weight=0.5), pair("Since when?", weight=2)]
    tokenized = tokenize([unit(one) for one in sessions], builder(), root=tmp_path)
    again = tokenize([unit(one) for one in sessions], builder(), root=tmp_path)
    store = again.documents
    assert again.describe()["pairs"] == 2
    assert again.whole_tokens > store.tokens
    assert [document.branches for document in store] == [document.branches for document in tokenized.documents]
    assert store.weight_sums.tolist() == [0.5, 2]
    other = tokenize([unit(pair(weight=3)), unit(sessions[1])], builder(), root=tmp_path)
    assert other.documents.weight_sums.tolist() == [3, 2]
    with_text = tokenize([unit(one) for one in sessions], builder(prompt_counts=True), root=tmp_path)
    assert with_text.documents.supervised.sum() > store.supervised.sum()
    known = store.with_reference(np.asarray([[-1.5, -2.0], [-3.0, -4.0]]))
    save(known, tmp_path / "known", {}, {})
    (batch,) = [next(iter(PackStream(open_store(tmp_path / "known", {})[0], 512, seed=0)))]
    assert sorted(pair.reference for pair in batch.pack.pairs) == [(-3.0, -4.0), (-1.5, -2.0)]
    assert batch.step.weight_sum == 2.5
    assert TokenStore.of([*known])[1].branches == known[1].branches


@pytest.mark.parametrize(
    ("session", "settings", "says"),
    [
        (Session("p1", 1, PROMPT), {}, "no pair of answers"),
        (pair(), {"pack": 30}, "the pair has"),
        (pair(), {"weights": [WeightRule(match="pity", weight=0)]}, "no token of one of its answers"),
        (pair(), {"document": "course"}, "a document of its own"),
        (pair(), {"recipe": "paper"}, "not pairs"),
    ],
)
def test_what_is_no_pair_or_does_not_fit_is_refused(session, settings, says):
    with pytest.raises(UserError, match=says) as error:
        builder(**settings).build(unit(session))
    assert error.value.where
    assert error.value.hint


@pytest.mark.parametrize(
    ("prompt", "chosen", "rejected", "weight", "says"),
    [
        (PROMPT, [("therapist", GOOD)], [("therapist", f" {GOOD} ")], 1, "the same words"),
        (PROMPT, [("patient", GOOD)], [("therapist", POOR)], 1, "begins with the patient"),
        (PROMPT, [("therapist", GOOD)], [("therapist", " ")], 1, "rejected: turn 1 has no text"),
        (PROMPT, [("therapist", GOOD), ("patient", "So?")], [("therapist", POOR)], 1, "ends with the patient"),
        (PROMPT[:2], [("therapist", GOOD)], [("therapist", POOR)], 1, "turns 2 and 3 are both the therapist's"),
        (PROMPT, [("therapist", GOOD)], [], 1, "rejected: no turn"),
        (PROMPT, [("therapist", GOOD)], [("therapist", POOR)], 0, "not above 0"),
    ],
)
def test_what_makes_no_pair_of_answers_is_refused(prompt, chosen, rejected, weight, says):
    answers = ([Turn(*turn) for turn in answer] for answer in (chosen, rejected))
    with pytest.raises(UserError, match=says) as error:
        pair_session(Session("p1", 1, tuple(prompt), where="pairs.jsonl line 3"), *answers, weight)
    assert error.value.where == "pairs.jsonl line 3"
