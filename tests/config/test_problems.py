"""What is wrong with a value is said in our words, and every pydantic type of error that a setting can raise has them."""

import datetime
import math
from collections.abc import Iterator

import pytest
from pydantic import BaseModel, ValidationError

from cbtrain.config.loading import KINDS, load_config
from cbtrain.config.problems import all_keys, first_problem
from cbtrain.errors import UserError
from cbtrain.eval.rating.rubric import Rubric
from cbtrain.providers.costs.prices import Prices
from cbtrain.settings import section_of
from cbtrain.text.faults import FAULTS

BAD = (
    *(None, True, -1, 0, 1.5, 10**9, -(10**9), 10**400, math.nan, math.inf),
    *("", "some words", "\ud800", "1" * 5000, b"\xff", datetime.date(2026, 1, 1)),
    *([], [None], [[]], {}, {"a": None}, {1: 2}),
)
"""What may stand in a YAML file, or come from the command line, and is wrong for some setting."""


def sections(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    if issubclass(model, BaseModel):  # what holds sections by name is none itself
        yield model
    for field in model.model_fields.values():
        if section := section_of(field.annotation):
            yield from sections(section)
        for part in getattr(field.annotation, "__args__", ()):
            if isinstance(part, type) and issubclass(part, BaseModel):
                yield from sections(part)


def errors_of(model: type[BaseModel]) -> Iterator[ValidationError]:
    """Every error that a bad value of one field of ``model`` or its sections raises."""
    for section in dict.fromkeys(sections(model)):
        for given in (*BAD, *({key: value} for key in (*section.model_fields, "unknown") for value in BAD)):
            try:
                section.model_validate(given)
            except ValidationError as error:
                yield error


def test_every_type_of_error_has_our_words():
    models = [*KINDS.values(), Prices, Rubric]
    types = {one["type"] for model in models for error in errors_of(model) for one in error.errors()}
    assert types - {"value_error"} == set(FAULTS)


@pytest.mark.parametrize("kind", KINDS)
def test_no_setting_is_refused_in_the_words_of_pydantic(kind):
    for section in dict.fromkeys(sections(KINDS[kind])):
        for error in errors_of(section):
            if error.title == section.__name__:
                problem = first_problem(error, section)
                assert not any(words in problem.text for words in ("Input should", "Value error", "{", "valid "))
                assert "\n" not in problem.text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("therapist.learning_rate=fast", "therapist.learning_rate: must be a number. Got 'fast'."),
        ("therapist.pack_tokens=1.5", "therapist.pack_tokens: must be a whole number. Got 1.5."),
        ("therapist.carry=1", "unknown key 'therapist.carry'. Did you mean 'tokens.carry'?"),
        ("tokens.carry=2", "tokens.carry: must be at most 0.9. Got 2."),
        ("split.near_duplicate=0", "split.near_duplicate: must be above 0. Got 0."),
        ("split.test=x", "split.test: must be a number or a list. Got 'x'."),
        ("split.test=[a, [b]]", "split.test.1: must be a text. Got ['b']."),
        ("corpus.skip_bad=maybe", "corpus.skip_bad: must be true or false. Got 'maybe'."),
        ("training.speakers=[]", "training.speakers: must have a length of at least 1. Got []."),
        (
            "extends=quick",
            "unknown key 'extends'. It belongs at the top of a config file; on the command line, use --con",
        ),
        ("evaluation.judging.provider.api_key_env=sk-1", "Give the NAME of an environment variable, and never the key"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(setting, message):
    with pytest.raises(UserError) as caught:
        load_config(None, [setting])
    assert f"command line: {message}" in str(caught.value) or message in str(caught.value)


def test_every_mistyped_key_gets_the_whole_key():
    for key in all_keys(KINDS["study"]):
        section, _, name = key.rpartition(".")
        if len(name) > 6 and section and f"{section}.{name[:-1]}" not in all_keys(KINDS["study"]):
            with pytest.raises(UserError) as caught:
                load_config(None, [f"{section}.{name[:-1]}=1"])
            assert f"Did you mean '{section}." in str(caught.value)
