"""The public part of the 2024 corpus as tokens; skips itself where that is absent."""

from functools import lru_cache

import numpy as np
import pytest
from family_tokenizers import family_tokenizer
from lessons import builder_for
from places import TAHIR2024, needs_tahir2024

from cbtrain.tokens.document_builder import units_of
from cbtrain.tokens.stream import PackStream
from cbtrain.tokens.tokenize import tokenize
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy
from cbtrain.transcripts.reading import read

pytestmark = needs_tahir2024


@lru_cache
def corpus(cleaned=True):
    policy = CleaningPolicy()
    if not cleaned:  # as the author's scripts take it: labels as they stand
        off = {name: False for name, value in policy.model_dump().items() if value is True}
        policy = CleaningPolicy(**{**off, "drop_sessions_without_dialogue": True})
    return clean(read(str(TAHIR2024)), policy)[0]


def units(builder, cleaned=True, courses=None):
    return [
        unit
        for course in corpus(cleaned).courses[:courses]
        for unit in units_of(course, builder.config, ["Be kind."] * len(course.sessions))
    ]


@pytest.fixture(scope="module")
def selection():
    builder = builder_for(family_tokenizer("mistral-v0.3"), pack_tokens=16_384)
    return tokenize(units(builder), builder)


def test_the_whole_corpus_packs_into_at_least_98_percent(selection):
    stream = PackStream(selection.documents, 16_384, seed=0, packs_per_step=8, world=2)
    for epoch in range(2):
        facts = stream.describe(epoch)
        assert facts["fill"] >= 0.98
        assert facts["imbalance"] < 0.05
        packed = sorted(i for step in stream.plan(epoch).steps for pack in step for i in pack)
        assert packed == list(range(len(selection.documents)))


def test_every_therapist_turn_is_learnt_once(selection):
    assert len(selection.documents) == 960
    turns = sum(session.count("therapist") for session in corpus().sessions())
    stop = family_tokenizer("mistral-v0.3").eos_token_id
    learnt = sum(int((d.ids[d.supervised] == stop).sum()) for d in selection.documents)
    assert learnt == turns
    runs = selection.documents.arrays["runs"]
    assert len(runs) == turns
    assert selection.documents.supervised.sum() == (runs[:, 1] - runs[:, 0]).sum()


@pytest.mark.deep
def test_the_papers_recipe_makes_a_record_of_every_labelled_turn():
    builder = builder_for(family_tokenizer("mistral-v0.3"), recipe="paper", format="alpaca")
    own = units(builder, cleaned=False)
    assert sum(message.supervised for unit in own for message in builder.messages(unit)) == 26_125
    made = [builder.build(unit) for unit in own[:6]]
    assert [len(b.documents) for b in made] == [u.sessions[0].count("therapist") for u in own[:6]]
    # What both recipes cost, in one chat format: the factor that the reference gives for words.
    plain = builder_for(family_tokenizer("mistral-v0.3"), format="plain")
    costs = [plain.build(unit) for unit in units(plain, courses=2)]
    factor = sum(c.paper_tokens for c in costs) / sum(c.whole_tokens for c in costs)
    assert 10 < factor < 20


def test_courses_are_long_documents():
    builder = builder_for(family_tokenizer("mistral-v0.3"), document="course", pack_tokens=131_072)
    (unit,) = units(builder, courses=1)
    (document,) = builder.build(unit).documents
    assert 60_000 < len(document) < 131_072
    cut = builder_for(family_tokenizer("mistral-v0.3"), document="course", pack_tokens=16_384)
    pieces = cut.build(unit).documents
    assert max(map(len, pieces)) <= 16_384
    assert sum(int(d.supervised.sum()) for d in pieces) == int(document.supervised.sum())


def test_pasted_summaries_are_masked_for_the_patient():
    names = {"speaker": "patient", "supervise": "patient"}
    masked = builder_for(family_tokenizer("mistral-v0.3"), **names)
    whole = builder_for(family_tokenizer("mistral-v0.3"), mask_pasted_summary=False, **names)
    counts = np.asarray(
        [
            [int(b.build(unit).documents[0].supervised.sum()) for b in (masked, whole)]
            for unit in units(masked, courses=1)
        ]
    )
    assert counts[0, 0] == counts[0, 1]  # nothing is pasted into the first session
    assert (counts[1:, 0] < counts[1:, 1] - 150).all()
