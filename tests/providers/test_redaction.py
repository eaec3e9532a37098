"""Keys are taken out of what comes from elsewhere, however they are written, and words of patients are not."""

import json
import time
import urllib.parse

import pytest
from asked import REQUEST, provider
from loopback import completion, status

from cbtrain.providers.errors import ProviderError
from cbtrain.providers.redaction import is_secret, redacted

KEY = "sk-a/b+c=_9'd"


@pytest.mark.parametrize("key", ["s3cret", "abc-1", "a1b2c3d4", "sk-planted", "averylongsecretword", "123456789012"])
def test_short_keys_are_secrets_too(key):
    assert redacted(f"Bearer {key}, {key.upper()}", [key]) == "Bearer [key], [key]"


@pytest.mark.parametrize(
    "stand_in", ["", "EMPTY", "x", "none", "not-needed", "sk-no-key-required", "hope", "sadness", "1234", "2024"]
)
def test_what_stands_in_a_keys_place_or_is_a_word_may_be_said(stand_in):
    assert not is_secret(stand_in)
    said = f"I feel {stand_in} today"
    assert redacted(said, [stand_in]) == said


@pytest.mark.parametrize(
    "written",
    [
        KEY,
        json.dumps(KEY),
        KEY.replace("/", "\\/"),
        json.dumps(json.dumps({"key": KEY.replace("/", "\\/")})),
        "".join(f"\\u{ord(letter):04X}" for letter in KEY),
        KEY.replace("+", "\\u002b").replace("=", "\\u003D").replace("'", "\\u0027"),
        urllib.parse.quote(KEY, safe=""),
    ],
)
async def test_a_key_is_found_in_every_way_of_writing_it(written):
    assert "[key]" in redacted(f'{{"x": "{written}"}}', [KEY])
    assert "9" not in redacted(written, [KEY]).replace("[key]", "")
    for answer in (completion(f"your key: {written}"), status(400, "x" * 290 + written), status(400, written)):
        async with provider(lambda number, body, answer=answer: answer, key=KEY) as (made, _):
            try:
                said = (await made.chat(REQUEST)).text
            except ProviderError as error:
                said = str(error)
        assert "sk-a" not in said
        assert "u0073" not in said.lower()


async def test_a_key_of_digits_leaves_numbers_alone():
    """They are what is paid for."""
    key = "123456789012"
    answer = completion(f"{key} it is") | {"created": int(key), "usage": {"prompt_tokens": 7, "completion_tokens": 3}}
    async with provider(lambda number, body: answer, key=key) as (made, _):
        response = await made.chat(REQUEST)
    assert (response.text, response.attempts, response.usage.prompt_tokens) == ("[key] it is", 1, 7)


def test_long_runs_of_backslashes_take_no_time():
    """A model that is stuck says nothing else; nothing may hold up the other conversations."""
    text = json.dumps({"said": "\\" * 100_000 + " 100 % \u00fc"})
    began = time.process_time()
    assert redacted(text, ["sk-" + "a1" * 25]) == text
    assert time.process_time() - began < 5  # with runs of any length it would be half an hour
