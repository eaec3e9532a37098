"""Reading pairs, asking about them and scoring the answers, against the published task's own numbers."""

import gzip
import json

import numpy as np
import pytest
from places import ROOT

from cbtrain.errors import UserError
from cbtrain.tasks.entity_matching.documents import pair_documents
from cbtrain.tasks.entity_matching.pair import Pair
from cbtrain.tasks.entity_matching.prompts import AS_IN_FILE, DEFAULT, EVALUATION, Prompt
from cbtrain.tasks.entity_matching.public_files import compared_with_public, public_files
from cbtrain.tasks.entity_matching.reading import read_pairs
from cbtrain.tasks.entity_matching.scoring import parse_answer, score
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.tokenizer import train_tokenizer

GOLDEN = ROOT / "tests" / "golden"
CASES = json.loads((GOLDEN / "em_metric_cases.json").read_text())


@pytest.fixture(scope="module")
def sample():
    return read_pairs(GOLDEN / "em_sample_pairs.jsonl").pairs


def test_prompts_are_the_published_ones(sample):
    assert [case["title"] for case in CASES["evaluation_prompts"]] == list(EVALUATION)
    assert [Prompt.named(name).render(sample[0]) for name in EVALUATION] == CASES["rendered_for_pair_0"]
    assert Prompt.named("training").render(sample[0]) == CASES["training_prompt_for_pair_0"]
    braces = Pair("x", "{right} {left}", "{}", 1)
    assert Prompt.named("domain-simple-free").render(braces).endswith("Entity 1: {right} {left}. Entity 2: {}.")


def test_answers_are_parsed_and_scored_as_published():
    assert [parse_answer(case["answer"]) for case in CASES["parse_cases"]] == [
        case["parsed"] for case in CASES["parse_cases"]
    ]
    case = CASES["metric_case"]
    scores = score(case["labels"], case["answers"]).as_dict()
    names = ("tp", "fp", "fn", "tn", "unparsed", "accuracy", "precision", "recall", "f1")
    assert {name: scores[name] for name in names} == pytest.approx({name: case[name] for name in names})


def test_the_interval_is_that_of_resampled_pairs():
    random = np.random.default_rng(5)
    labels = (random.random(300) < 0.3).astype(int)
    said = np.where(random.random(300) < 0.8, labels, 1 - labels)
    scores = score(labels.tolist(), ["Yes" if yes else "No" for yes in said])
    drawn = []
    for _ in range(2000):
        of = random.integers(0, 300, 300)
        positive, yes = labels[of] == 1, said[of] == 1
        drawn.append(2 * (positive & yes).sum() / (positive.sum() + yes.sum()))
    assert np.quantile(drawn, [0.025, 0.975]) == pytest.approx([scores.f1_low, scores.f1_high], abs=0.02)
    assert score([0, 0], ["No", "hm"]).f1 == 0


def test_every_layout_holds_the_same_pairs(sample):
    assert (len(sample), sum(pair.label for pair in sample)) == (20, 9)
    for name in ("em_sample.csv", "em_sample_chat.jsonl"):
        pairs = read_pairs(GOLDEN / name).pairs
        assert [(p.left, p.right, p.label) for p in pairs] == [(p.left, p.right, p.label) for p in sample]
        assert [Prompt.named(AS_IN_FILE).render(p) for p in pairs] == [
            Prompt.named("training").render(p) for p in sample
        ]
    structured = read_pairs(GOLDEN / "em_sample_structured.csv").pairs
    labels = {pair.content: pair.label for pair in sample}
    assert [pair.label for pair in structured] == [labels[pair.content] for pair in structured]
    assert structured[0].explanation.startswith(".\nattribute=brand|||importance=0.10|||values=Velmora###VELMORA")


def lines(*rows):
    return "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows)


def test_what_cannot_be_used_is_named(tmp_path):
    file = tmp_path / "pairs.json.gz"
    scholarly = {f"{name}_left": value for name, value in (("title", "On X"), ("authors", "A, B"), ("venue", None))}
    scholarly |= {
        "year_left": 1999.0,
        "title_right": "X",
        "authors_right": "A",
        "venue_right": "VLDB",
        "year_right": 1999,
    }
    text = lines(
        scholarly | {"label": 1, "pair_id": "first"},
        {"name_left": "a", "name_right": "b", "label": "0"},
        {"name_left": "a", "name_right": "b", "label": 0},
        {"name_left": "a", "name_right": "b", "label": 1},
        {"name_left": "a", "name_right": "c"},
        {"name_left": "a", "name_right": "", "label": 1},
        '{"name_left": "a", ',
        {"messages": [{"role": "user", "content": "Do they match?"}, {"role": "assistant", "content": "Perhaps"}]},
        {"prompt": "Do they match?", "completion": "no"},
    )
    file.write_bytes(gzip.compress(text.encode()))
    found = read_pairs(file)
    assert [(p.left, p.right, p.label) for p in found.pairs][:2] == [
        ("On X; A, B; 1999", "X; A; VLDB; 1999", 1),
        ("a", "b", 0),
    ]
    assert (found.rows, found.counts.pairs, found.counts.positives) == (9, 5, 2)
    assert found.odd == [
        "line 5 (no label)",
        "line 6 (the right record is empty)",
        "line 7 (not JSON)",
        "line 8 (the answer begins with neither Yes nor No)",
    ]
    assert (found.repeated, found.contradictory) == (["line 3"], ["line 4"])
    assert "line 9" in found.notes()[-1]
    with pytest.raises(UserError, match="no two records can be read from its prompt"):
        Prompt.named(DEFAULT).render(found.pairs[-1])
    table = tmp_path / "pairs.csv"
    table.write_text('id,title_left,title_right,label\n1,"a, b",c,1\n2,d,e\n3,f,g,1,h\n')
    assert read_pairs(table).odd == ["row 2 (no label)", "row 3 (more cells than the header has columns)"]


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for name, content, problem in (
        ("pairs.pkl", b"\x80\x04.", "a pickle is never opened"),
        ("pairs.pkl.gz", b"\x80\x04.", "a pickle is never opened"),
        ("pairs.json.gz", gzip.compress(b"{}")[:-9], "a damaged gzip file"),
        ("pairs.csv", b'prompt,completion\n"a"b,Yes\n', "not a table"),
        ("pairs.jsonl", b"\xff", "not UTF-8"),
        ("empty.jsonl", b"\n", "no pair can be read"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=problem):
            read_pairs(tmp_path / name)


def test_public_files_are_known_by_content_and_name(tmp_path):
    assert len(public_files()) == 73
    file = tmp_path / "abt-buy-gs.json.gz"
    file.write_bytes(b"another")
    assert "1,916 rows, 206 positive, 1,710 negative), but its content is another" in compared_with_public(file, 3, 1)
    assert not compared_with_public(GOLDEN / "em_sample.csv", 20, 9)


def test_the_loss_is_on_the_answer_alone(sample):
    renderer = ChatRenderer(train_tokenizer([pair.left for pair in sample], 400, 512))
    pairs = [*sample[:2], read_pairs(GOLDEN / "em_sample_structured.csv").pairs[0]]
    documents = pair_documents(pairs, renderer, Prompt.named(DEFAULT))
    assert [renderer.decode(d.ids[d.supervised].tolist()) for d in documents] == [
        "Yes<|end|>",
        "No<|end|>",
        "Yes<|end|>",
    ]
    explained = pair_documents(pairs[2:], renderer, Prompt.named(DEFAULT), explained=True)[0]
    assert renderer.decode(explained.ids[explained.supervised].tolist()).startswith("Yes.\nattribute=brand")
    broken = [Pair("one", "a<|end|>", "b", 1), pairs[0], Pair("two", "a", "<|user|>", 0)]
    with pytest.raises(UserError, match=r"2 pairs cannot be laid out: \(1\) one: .*\(2\) two: "):
        pair_documents(broken, renderer, Prompt.named(DEFAULT))
