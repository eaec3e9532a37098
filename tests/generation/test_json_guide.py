"""JSON of a schema: whatever is drawn from the allowed tokens parses and validates."""

import json
import random
import sys
from functools import lru_cache

import jsonschema
import pytest
import torch
from family_tokenizers import family_tokenizer
from hypothesis import given
from hypothesis import strategies as st

from cbtrain.errors import UserError
from cbtrain.generation.json_guide import JsonGuides
from cbtrain.tokens.tokenizer import train_tokenizer

KINDS = {
    "tiny": lambda: train_tokenizer(["I feel low, ä 🙂 did"] * 4, 320, 512),
    "qwen3": lambda: family_tokenizer("qwen3", "{{ messages }}"),
    "mistral": lambda: family_tokenizer("mistral-v0.3"),
}
UNUSED = 13
"""Embeddings beyond the tokenizer's tokens."""

RATING = {
    "type": "object",
    "properties": {
        "item": {"enum": ["agenda", "Rückmeldung", 'a "quoted" one', 3, None]},
        "score": {"type": "integer", "minimum": 0, "maximum": 6},
        "sure": {"type": "boolean"},
        "quotes": {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 1, "maxItems": 3},
        "span": {
            "type": "object",
            "properties": {
                "from": {"type": "number", "minimum": -1.5, "exclusiveMaximum": 20},
                "to": {"type": "integer"},
            },
            "required": ["from"],
            "additionalProperties": False,
        },
    },
    "required": ["item", "score", "quotes", "span"],
    "additionalProperties": False,
}
SCHEMAS = {
    "rating": RATING,
    "any object": None,
    "list of enums": {"type": "array", "items": {"enum": ["ä", "äö", '"']}, "minItems": 2, "maxItems": 4},
    "number": {"type": "number"},
    "pattern": {"type": "string", "pattern": "^[a-z]{2,4}ü?$"},
    "either": {"anyOf": [{"type": "string", "maxLength": 5}, {"type": "null"}]},
    "tree": {
        "$defs": {"n": {"type": "object", "properties": {"c": {"$ref": "#/$defs/n"}}, "additionalProperties": False}},
        "$ref": "#/$defs/n",
    },
}


@lru_cache
def guides_of(kind):
    tokenizer = KINDS[kind]()
    return JsonGuides(tokenizer, len(tokenizer) + UNUSED, frozenset({tokenizer.eos_token_id, len(tokenizer) - 1}))


def text_of(guides, ids):
    return guides.tokenizer.decode(ids, skip_special_tokens=True)


def tokens_of(guides, text):
    """Token ids of ``text``, without the space that SentencePiece puts before a text."""
    tokenizer = guides.tokenizer
    ids = tokenizer.encode("<" + text, add_special_tokens=False)
    return ids[next(n for n in range(1, len(ids)) if text_of(guides, ids[:n]) == "<") :]


def draw_answer(guides, guide, seed, most=80):
    """Draw from the allowed tokens until one ends the answer; after ``most``, what closes a part is preferred."""
    chance, ids = random.Random(seed), []
    closing = {tokens_of(guides, text)[0] for text in '"}]'}
    while True:
        allowed = guide.allowed()
        assert allowed.shape == (guides.vocabulary,)
        assert allowed.dtype == torch.bool
        choices = allowed.nonzero().flatten().tolist()
        assert max(choices) < guides.vocabulary - UNUSED
        ends = guides.stop_ids.intersection(choices)
        if guide.finished:
            assert ends == set(choices)
        if len(ids) > most:
            choices = sorted(ends or closing.intersection(choices) or choices)
        token = chance.choice(choices)
        guide.accept(token)
        if token in guides.stop_ids:
            assert guide.finished
            return ids
        ids.append(token)


@given(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(SCHEMAS)), st.integers(0, 2**32))
def test_whatever_is_drawn_parses_and_validates(kind, name, seed):
    guides, schema = guides_of(kind), SCHEMAS[name]
    text = text_of(guides, draw_answer(guides, guides.guide(schema), seed))
    jsonschema.validate(json.loads(text), schema or {"type": "object"})


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_usual_layouts_are_allowed_and_the_end_only_at_the_end(kind):
    guides = guides_of(kind)
    value = {
        "item": 'a "quoted" one',
        "score": 6,
        "quotes": ['Grüße, "ja"', "🙂 \\ \n"],
        "span": {"from": -1.25e-3, "to": 12},
    }
    for text in (
        json.dumps(value, ensure_ascii=False),
        json.dumps(value, ensure_ascii=False, indent=2),
        json.dumps(value, ensure_ascii=False, separators=(",", ":")),
    ):
        guide = guides.guide(RATING)
        for token in tokens_of(guides, text):
            allowed = guide.allowed()
            assert not guide.finished
            assert allowed[token]
            assert not allowed[sorted(guides.stop_ids)].any()
            guide.accept(token)
        assert guide.finished
        assert set(guide.allowed().nonzero().flatten().tolist()) == guides.stop_ids


def test_no_run_of_spaces_is_endless():
    guides = guides_of("tiny")
    guide, (space,) = guides.guide(None), tokens_of(guides, " ")
    for token in tokens_of(guides, "{ "):
        guide.accept(token)
    assert not guide.allowed()[space]


def test_a_number_may_end_or_continue():
    guides = guides_of("tiny")
    guide = guides.guide({"type": "integer"})
    for token in tokens_of(guides, "12"):
        guide.accept(token)
    assert not guide.finished
    assert guide.allowed()[tokens_of(guides, "3") + sorted(guides.stop_ids)].all()
    guide.accept(guides.tokenizer.eos_token_id)
    assert guide.finished
    with pytest.raises(ValueError, match="after the end"):
        guide.accept(tokens_of(guides, "3")[0])


def test_a_token_that_is_not_allowed_is_refused():
    guides = guides_of("tiny")
    with pytest.raises(ValueError, match="no JSON of the schema") as caught:
        guides.guide(None).accept(tokens_of(guides, "x")[0])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="may not end here"):
        guides.guide(None).accept(guides.tokenizer.eos_token_id)


def test_guides_do_not_disturb_each_other_and_share_the_compiled_schema(monkeypatch):
    tokenizer, compiled = KINDS["tiny"](), []
    guides = JsonGuides(tokenizer, len(tokenizer) + UNUSED, frozenset({tokenizer.eos_token_id}))
    compile_schema = JsonGuides._compile
    monkeypatch.setattr(JsonGuides, "_compile", lambda self, text: compiled.append(text) or compile_schema(self, text))
    alone = draw_answer(guides, guides.guide(RATING), 5)
    mine, other = guides.guide(json.dumps(RATING)), guides.guide(RATING)
    for token in alone:  # the other one is elsewhere all the time
        mine.allowed()
        mine.accept(token)
        other.accept(int(other.allowed().nonzero()[-1]))
    assert mine.finished
    assert draw_answer(guides, guides.guide(RATING), 5) == alone
    assert len(compiled) == 1
    guides.guide(None)
    guides.guide({"type": "object"})
    assert len(compiled) == 2


def test_few_compiled_schemas_are_kept():
    guides = guides_of("tiny")
    for number in range(100):
        guides.guide({"const": number})
    assert len(guides._compiled) == 64


BAD = {
    "spelling": ({"type": "strin"}, "Invalid type: strin"),
    "unsupported": ({"type": "array", "uniqueItems": True}, "uniqueItems"),
    "within": ({"type": "object", "properties": {"a": {"not": {}}}}, "not"),
    "not lenient": ({"type": "string", "not": {}, "x-guidance": {"lenient": True}}, "not"),
    "impossible": ({"type": "array", "minItems": 3, "maxItems": 2}, "minItems"),
    "empty": ({"enum": []}, "Unsatisfiable"),
    "pattern": ({"type": "string", "pattern": "("}, "unclosed group"),
    "missing": ({"$ref": "#/$defs/x"}, "does not exist"),
    "elsewhere": ({"$ref": "http://localhost/x"}, "retriev"),
    "not JSON": ("{", "no JSON"),
    "NaN": ({"const": float("nan")}, "no JSON"),
    "object": ({"const": object()}, "no JSON"),
    "half a surrogate": ({"const": "\ud800"}, "hex escape"),
    "list": ("[1]", "must be a JSON object"),
    "deep": ('{"items":' * 5000 + "{}" + "}" * 5000, "recursion"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_schemas_are_refused_in_one_line(name):
    schema, reason = BAD[name]
    with pytest.raises(UserError, match=f"the schema cannot be used.*{reason}") as caught:
        guides_of("tiny").guide(schema)
    assert len(str(caught.value)) < 500


def test_a_missing_library_is_named(monkeypatch):
    tokenizer = KINDS["tiny"]()
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(UserError, match=r"llguidance.*pip install 'cbtrain\[schema\]'"):
        JsonGuides(tokenizer, 400, frozenset({tokenizer.eos_token_id})).guide(None)
