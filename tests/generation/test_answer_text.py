"""The text of an answer, token by token, against the decoded whole."""

import threading
from functools import lru_cache
from itertools import accumulate

import pytest
from family_tokenizers import family_tokenizer
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from cbtrain.generation.answer_text import AnswerText
from cbtrain.tokens.tokenizer import train_tokenizer

WORDS = [
    "I",
    "am",
    "low",
    ".",
    ",",
    "?",
    "'",
    "n't",
    "s",
    "'s",
    "ve",
    "'ve",
    "##ing",
    "##'",
    "do",
    "ä",
    "\ufffd",
    "[X]",
]


def word_piece(clean_up):
    made = Tokenizer(models.WordPiece({word: index for index, word in enumerate(WORDS)}, unk_token="[X]"))
    made.decoder = decoders.WordPiece(cleanup=False)
    made.add_special_tokens(["[X]"])
    return PreTrainedTokenizerFast(tokenizer_object=made, clean_up_tokenization_spaces=clean_up)


def metaspace(fallback):
    words = ["▁", "▁a", "a", "b", "▁▁", "▁é", "#", "ab"] + [f"<0x{byte:02X}>" for byte in range(256)]
    made = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, [], byte_fallback=fallback))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = (
        decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace()]) if fallback else decoders.Metaspace()
    )
    made.add_special_tokens(["<s>", "</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=made)


def end_of_word():
    words = ["a</w>", "b</w>", "c", "</w>", "a"]
    made = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, [], end_of_word_suffix="</w>"))
    made.decoder = decoders.BPEDecoder(suffix="</w>")
    return PreTrainedTokenizerFast(tokenizer_object=made)


KINDS = {
    "byte level": lambda: train_tokenizer(["I feel low, ä 🙂 did"] * 4, 320, 512),
    "qwen3": lambda: family_tokenizer("qwen3", "{{ messages }}"),
    "mistral": lambda: family_tokenizer("mistral-v0.3"),
    "metaspace": lambda: metaspace(False),
    "metaspace with bytes": lambda: metaspace(True),
    "word pieces": lambda: word_piece(False),
    "cleaned word pieces": lambda: word_piece(True),
    "ends of words": end_of_word,
}


@lru_cache
def tokenizer_of(kind):
    return KINDS[kind]()


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


def first_stop(text, stop):
    """Where the text ends: where that stop string begins which is complete first, of several the longest."""
    ends = [(text.index(string) + len(string), text.index(string)) for string in stop if string in text]
    return min(ends)[1] if ends else None


def tokens_read(tokenizer, ids, stop):
    """The simple definition: decode everything after each token. "�" at the end may become another character."""
    for end in range(1, len(ids) + 1):
        if first_stop(decoded(tokenizer, ids[:end]).rstrip("\ufffd"), stop) is not None:
            return end
    return len(ids)


def streamed(tokenizer, ids, stop=()):
    """The pieces, the object, and after how many tokens a stop string had come."""
    answer, pieces = AnswerText(tokenizer, stop), []
    for token in ids:
        pieces.append(answer.add(token))
        if answer.stopped:
            break
    stopped, read = answer.stopped, len(pieces)
    pieces.append(answer.finish())
    assert answer.text == "".join(pieces)
    return pieces, stopped, read


@st.composite
def answers(draw):
    kind = draw(st.sampled_from(sorted(KINDS)))
    tokenizer = tokenizer_of(kind)

    some = st.integers(0, min(300, len(tokenizer) + 1)) | st.integers(0, len(tokenizer) + 1)
    texts = st.text("ab äé🙂\u0301\n\u4f60", max_size=8).map(
        lambda text: tokenizer.encode(text, add_special_tokens=False)
    )
    groups = st.lists(st.one_of(st.lists(some, min_size=1, max_size=6), texts), max_size=8)
    return kind, [token for group in draw(groups) for token in group]


@given(answers())
@example(("metaspace with bytes", [8 + 0x41, 8 + 0xE4, 1]))  # a later byte makes "A" a replacement character
@example(("cleaned word pieces", [0, 6, 10, 0, 14, 7]))
def test_pieces_are_the_decoded_whole(answer):
    kind, ids = answer
    tokenizer = tokenizer_of(kind)
    pieces, stopped, _ = streamed(tokenizer, ids)
    whole = decoded(tokenizer, ids)
    assert "".join(pieces) == whole
    assert not stopped
    # No text that an unfinished character may change is given before the end.
    for end, given_text in enumerate(accumulate(pieces[:-1]), 1):
        assert decoded(tokenizer, ids[:end]).startswith(given_text)


@given(answers(), st.data())
def test_text_ends_where_the_first_stop_string_begins(answer, data):
    kind, ids = answer
    tokenizer = tokenizer_of(kind)
    whole = decoded(tokenizer, ids).replace("\ufffd", "")
    stops = st.text("ab äé🙂\u0301\n", min_size=1, max_size=3)
    if whole:
        spans = st.tuples(st.integers(0, len(whole) - 1), st.integers(1, 5))
        stops |= spans.map(lambda span: whole[span[0] : span[0] + span[1]])
    stop = data.draw(st.lists(stops, max_size=4))
    pieces, stopped, read = streamed(tokenizer, ids, stop)
    text = decoded(tokenizer, ids[:read])
    assert "".join(pieces) == text[: first_stop(text, stop)]
    assert stopped or read == len(ids)
    if kind != "cleaned word pieces":  # where a later token may take the space of a stop string
        assert read == tokens_read(tokenizer, ids, stop)


def characters(tokenizer, text):
    """The ids of ``text``, one byte or character each: as many borders as there can be."""
    return [token for character in text for token in tokenizer.encode(character, add_special_tokens=False)]


STOPS = [  # text, stop strings, what is left
    ("I am low\nPatient: no", ["\nPatient:", "Therapist:"], "I am low"),
    ("ab abc abcd", ["abcd", "abce"], "ab abc "),
    ("abcd", ["abcd", "bc"], "a"),  # complete first, though it begins later
    ("abcd", ["cd", "bcd"], "a"),  # complete at once: the longest
    ("abcd", ["ab", "abcd"], ""),  # one is the beginning of another
    ("ababac", ["abac"], "ab"),  # begins within what looked like itself
    ("aaab", ["aab"], "a"),
    ("Grüße 🙂!", ["üß"], "Gr"),
    ("Grüße 🙂!", ["🙂"], "Grüße "),
    ("Grüße 🙃!", ["🙂"], "Grüße 🙃!"),  # they share three of four bytes
    ("cafe\u0301 x", ["e\u0301"], "caf"),
    ("caf\u00e9 x", ["e\u0301"], "caf\u00e9 x"),
    ("ends with a sto", ["stop"], "ends with a sto"),
    ("stop", ["stop", "stop"], ""),
]


@pytest.mark.parametrize(("text", "stop", "left"), STOPS)
@pytest.mark.parametrize("kind", ["byte level", "qwen3"])
def test_stop_strings(kind, text, stop, left):
    tokenizer = tokenizer_of(kind)
    for ids in (tokenizer.encode(text, add_special_tokens=False), characters(tokenizer, text)):
        pieces, stopped, _ = streamed(tokenizer, ids, stop)
        assert "".join(pieces) == left
        assert stopped == (left != text)


def test_byte_tokens_stop_at_once_although_a_later_one_could_change_them():
    tokenizer = tokenizer_of("mistral")
    line, word = tokenizer.convert_tokens_to_ids(["<0x0A>", "▁Hello"])
    answer = AnswerText(tokenizer, ["\n\n"])
    assert [answer.add(token) for token in (word, line)] == ["Hello", ""]
    assert not answer.stopped
    assert answer.add(line) == ""
    assert answer.stopped
    assert answer.text == "Hello"
    assert (answer.add(word), answer.finish(), answer.text) == ("", "", "Hello")


def test_an_unfinished_character_is_held_and_given_at_the_end_as_decode_writes_it():
    tokenizer = tokenizer_of("byte level")
    *most, last = characters(tokenizer, "🙂")
    assert most
    answer = AnswerText(tokenizer)
    assert [answer.add(token) for token in most] == [""] * len(most)
    assert answer.finish() == "\ufffd" == decoded(tokenizer, most)
    answer = AnswerText(tokenizer)
    assert "".join(answer.add(token) for token in (*most, last)) == "🙂"


@pytest.mark.parametrize(("kind", "special"), [("byte level", "<|end|>"), ("mistral", "[TOOL_CALLS]")])
def test_special_tokens_within_a_character_leave_it_whole(kind, special):
    tokenizer = tokenizer_of(kind)
    special = tokenizer.convert_tokens_to_ids(special)
    between = [special] * 40
    names = [f"<0x{byte:02X}>" for byte in "깰".encode()]
    parts = tokenizer.convert_tokens_to_ids(names) if kind == "mistral" else characters(tokenizer, "깰")
    ids = [parts[0], *between, *parts[1:], *between, *characters(tokenizer, "!")[-1:]]
    pieces, _, _ = streamed(tokenizer, ids)
    assert "".join(pieces) == decoded(tokenizer, ids)
    assert "깰" in decoded(tokenizer, ids)


def test_what_may_begin_a_stop_string_is_held_until_it_cannot():
    tokenizer = tokenizer_of("byte level")
    answer = AnswerText(tokenizer, ["xyz"])
    given_texts = [answer.add(token) for token in characters(tokenizer, "axyxyw")]
    assert given_texts == ["a", "", "", "xy", "", "xyw"]


@pytest.mark.parametrize("stop", [[""], ["a", ""]])
def test_empty_stop_strings_are_refused(stop):
    with pytest.raises(ValueError, match="stop string is empty"):
        AnswerText(tokenizer_of("byte level"), stop)


class Counted:
    """Counts the tokens that are decoded."""

    def __init__(self, tokenizer):
        self.tokenizer, self.tokens = tokenizer, 0

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def decode(self, ids, **settings):
        self.tokens += len(ids)
        return self.tokenizer.decode(ids, **settings)


@pytest.mark.fault("H12")
@pytest.mark.parametrize(
    ("kind", "spellings"),
    [
        ("byte level", ["Ġ", "f", "e", "Ã", "¤"]),
        ("byte level", ["Ł"]),  # bytes that never become a character
        ("byte level", ["<|end|>"]),
        ("mistral", ["▁Hello", "!"]),
        ("mistral", ["<0xEA>", "<0xB9>", "<0xB0>"]),  # a long run of whole characters
        ("mistral", ["<0xB9>"]),
    ],
)
def test_the_cost_of_a_token_does_not_depend_on_the_length_of_the_answer(kind, spellings):
    counted = Counted(tokenizer_of(kind))
    pattern = counted.convert_tokens_to_ids(spellings)
    assert None not in pattern
    costs = []
    for length in (300, 3000):
        counted.tokens, ids = 0, (pattern * length)[:length]
        answer = AnswerText(counted, ["stop", "\n\n"])
        pieces = [answer.add(token) for token in ids]
        assert "".join(pieces) + answer.finish() == decoded(tokenizer_of(kind), ids)
        costs.append(counted.tokens / length)
    assert costs[1] <= costs[0] * 1.05
    assert costs[1] < 20


def test_made_in_one_thread_and_used_in_another():
    tokenizer, done = tokenizer_of("mistral"), []
    ids = tokenizer.encode("Grüße 🙂, ja", add_special_tokens=False)
    answers = [AnswerText(tokenizer, ["ja"]) for _ in range(8)]

    def use(answer):
        done.append("".join(answer.add(token) for token in ids) + answer.finish())

    threads = [threading.Thread(target=use, args=(answer,)) for answer in answers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["Grüße 🙂, "] * 8


@pytest.mark.parametrize("kind", ["byte level", "qwen3", "mistral", "metaspace"])
def test_a_text_that_continues_another_is_what_the_whole_gains(kind):
    made = KINDS[kind]()
    ids = made(" I feel low, and ab aa  b é did they?", add_special_tokens=False)["input_ids"]

    def decode(tokens):
        return made.decode(tokens, skip_special_tokens=True)

    tried = 0
    for begin in range(1, len(ids)):
        before = decode(ids[:begin])
        if "\ufffd" in before or not decode(ids).startswith(before):  # it begins within a character
            continue
        text = AnswerText(made, (), after=ids[:begin])
        pieces = [text.add(token) for token in ids[begin:]]
        assert "".join(pieces) + text.finish() == text.text == decode(ids)[len(before) :]
        tried += 1
    assert tried > 5
