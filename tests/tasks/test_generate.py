"""The generator of pairs: equal to the byte, parts that share nothing, and no answer by words in common alone."""

import re

import pytest

from cbtrain.errors import UserError
from cbtrain.tasks.entity_matching.catalogue import PREFIXES
from cbtrain.tasks.entity_matching.folder import changed_files, read_part, write_parts
from cbtrain.tasks.entity_matching.generate import OTHERS, TASK, generate_pairs


@pytest.fixture(scope="module")
def parts():
    return generate_pairs()


def test_equal_settings_give_equal_bytes(parts, tmp_path):
    manifest = write_parts(parts, tmp_path / "pairs", {"seed": 0})
    digests = {name: entry["sha256"][:16] for name, entry in manifest["files"].items()}
    assert digests == {
        "train.jsonl": "80429f01cc1e835e",
        "validation.jsonl": "b9027726401ad83f",
        "test.jsonl": "c08604a8a7dd086b",
    }
    counts = {
        name: [entry[key] for key in ("pairs", "positives", "hard_negatives")]
        for name, entry in manifest["files"].items()
    }
    assert counts == {
        "train.jsonl": [3000, 750, 1125],
        "validation.jsonl": [1000, 250, 375],
        "test.jsonl": [1000, 250, 375],
    }
    for part, pairs in parts.items():
        read = read_part(tmp_path / "pairs", part)
        assert not read.notes()
        assert [(p.left, p.right, p.label) for p in read.pairs] == [(p.left, p.right, p.label) for p in pairs]
    assert not changed_files(tmp_path / "pairs")
    with (tmp_path / "pairs" / "test.jsonl").open("a") as file:
        file.write("\n")
    assert changed_files(tmp_path / "pairs") == ["test.jsonl has changed since it was generated"]
    with pytest.raises(UserError, match="already exists"):
        write_parts(parts, tmp_path / "pairs", {})


def test_no_product_is_in_two_parts(parts):
    products = {
        part: {product for pair in pairs for product in pair.id.split("-")[2:]} for part, pairs in parts.items()
    }
    assert not products["train"] & products["validation"]
    assert not products["test"] & (products["train"] | products["validation"])
    titles = {part: {title for pair in pairs for title in (pair.left, pair.right)} for part, pairs in parts.items()}
    assert len(titles["test"] & titles["train"]) < 5
    assert not {*TASK.kinds} & {*OTHERS.kinds}
    assert not {*TASK.brands} & {*OTHERS.brands}
    assert generate_pairs(100, seed=1) != generate_pairs(100, seed=2)


def words(title):
    return set(re.findall(r"[a-z]+|\d+", title.lower()))


def models(title):
    """The numbers of models in ``title``."""
    return {found for found in re.findall(r"\b([A-Z]{2})[- ]?(\d{3,4})\b", title.upper()) if found[0] in PREFIXES}


def best_f1(pairs):
    """The best F1 that any threshold on the share of words in common reaches, chosen on the pairs themselves."""
    overlap = [(len(words(p.left) & words(p.right)) / len(words(p.left) | words(p.right)), p.label) for p in pairs]
    best = 0.0
    for threshold in {share for share, _ in overlap}:
        said = [(share >= threshold, label) for share, label in overlap]
        hits = sum(yes and label for yes, label in said)
        best = max(best, 2 * hits / (sum(yes for yes, _ in said) + sum(label for _, label in said)))
    return best


def test_words_in_common_do_not_decide_but_what_is_read_does(parts):
    assert not any(pair.left == pair.right for pair in parts["test"])
    assert 0.5 < best_f1(parts["test"]) < 0.65
    # Numbers decide much: Yes if those of one title are all in the other.
    numbers = [(*(set(re.findall(r"\d+", title)) for title in (p.left, p.right)), p.label) for p in parts["test"]]
    said = [(left <= right or right <= left, label) for left, right, label in numbers]
    hits = sum(yes and label for yes, label in said)
    assert 0.7 < 2 * hits / (sum(yes for yes, _ in said) + sum(label for _, label in said)) < 0.8
    # Who reads the numbers of models decides most hard negatives, and contradicts no positive.
    shown = [(pair, models(pair.left), models(pair.right)) for pair in parts["test"]]
    both = [(pair, left == right) for pair, left, right in shown if left and right]
    assert all(equal for pair, equal in both if pair.label)
    hard = [equal for pair, equal in both if pair.hard]
    assert len(hard) > 200
    assert sum(hard) / len(hard) < 0.6


def test_numbers_that_cannot_be_used_are_refused():
    for count, options, problem in (
        (10, {}, "10 pairs"),
        (100, {"positives": 1.0}, "1 of the pairs match"),
        (100, {"hard": 1.5}, "1.5 of the negatives"),
    ):
        with pytest.raises(UserError, match=problem):
            generate_pairs(count, **options)
