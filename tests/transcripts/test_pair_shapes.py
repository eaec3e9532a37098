"""Pairs of answers in the layouts that they come in, and what is wrong with them."""

import json

import pytest
from answer_pairs import CHOSEN, PROMPT, REJECTED, TEXT, P, T, messages, of, ours, said

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.dataset_info import read_map
from cbtrain.transcripts.reading import read


def hh(turns):
    """The text of a dialogue as Anthropic's HH-RLHF has it."""
    return "".join(f"\n\n{'Human' if role == P else 'Assistant'}: {text}" for role, text in turns)


def labelled(turns):
    return "\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


WHOLE = (PROMPT, CHOSEN, REJECTED)
SHORT = (PROMPT[:1], CHOSEN, REJECTED)
SHAPES = {
    "text": (TEXT, SHORT, {}),
    "labelled prompt": ({"prompt": labelled(PROMPT), "chosen": CHOSEN[0][1], "rejected": REJECTED[0][1]}, WHOLE, {}),
    "prompt with an open answer": (
        {"prompt": f"{hh(PROMPT)}\n\nAssistant:", "chosen": f" {CHOSEN[0][1]}", "rejected": REJECTED[0][1]},
        WHOLE,
        {},
    ),
    "messages": (
        {"prompt": messages(PROMPT, "Be kind."), "chosen": messages(CHOSEN), "rejected": messages(REJECTED)},
        WHOLE,
        {"system": "Be kind."},
    ),
    "implicit messages": (
        {"chosen": messages(PROMPT + CHOSEN, "Be kind."), "rejected": messages(PROMPT + REJECTED, "Be kind.")},
        WHOLE,
        {"system": "Be kind."},
    ),
    "a text beside whole dialogues": (
        {"prompt": "I am low.", "chosen": messages(PROMPT + CHOSEN), "rejected": messages(PROMPT + REJECTED)},
        WHOLE,
        {},
    ),
    "implicit text": ({"chosen": hh(PROMPT + CHOSEN), "rejected": hh(PROMPT + REJECTED)}, WHOLE, {}),
    "several turns": (
        {"prompt": "I am low.", "chosen": messages([*CHOSEN, (P, "I moved."), (T, "Where?")]), "rejected": "Go."},
        (PROMPT[:1], [*CHOSEN, (P, "I moved."), (T, "Where?")], [(T, "Go.")]),
        {},
    ),
    "LLaMA-Factory, alpaca": (
        {
            "instruction": "I am",
            "input": "low.",
            "chosen": CHOSEN[0][1],
            "rejected": REJECTED[0][1],
            "severity": "mild",
        },
        ([(P, "I am\nlow.")], CHOSEN, REJECTED),
        {"severity": "mild"},
    ),
    "LLaMA-Factory, sharegpt": (
        {
            "conversations": [{"from": "human" if role == P else "gpt", "value": text} for role, text in PROMPT],
            "chosen": {"from": "gpt", "value": CHOSEN[0][1]},
            "rejected": {"from": "gpt", "value": REJECTED[0][1]},
        },
        WHOLE,
        {},
    ),
    "a question with a system prompt": (
        {"system": "Be kind.", "question": "I am low.", "chosen": CHOSEN[0][1], "rejected": REJECTED[0][1]},
        (PROMPT[:1], CHOSEN, REJECTED),
        {"system": "Be kind."},
    ),
    "other roles": (
        {
            "prompt": [{"role": role, "text": text} for role, text in PROMPT],
            "chosen": [{"role": T, "text": CHOSEN[0][1]}],
            "rejected": [{"role": T, "text": REJECTED[0][1]}],
        },
        WHOLE,
        {},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_pairs_of_other_programs_are_read_by_their_names(tmp_path, name):
    record, parts, facts = SHAPES[name]
    record = {**record, "patient_id": "amara", "weight": 2}
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(record)] * 2))
    (tmp_path / "a.json").write_text(json.dumps([record, record]))
    for ending in ("jsonl", "json"):
        corpus = read(tmp_path / f"a.{ending}")
        for session in corpus.sessions():
            assert (said(session), session.facts) == (parts, facts)
            assert (session.patient, session.number, session.preference.weight) == ("amara", 1, 2)
            assert {turn.weight for turn in session.turns[: session.preference.begin] if turn.role == T} <= {0}
        assert len(corpus.courses) == 2  # each pair is a course of its own


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pairs_in_tables(tmp_path, ending):
    rows = [{"Prompt": "I am low.", "Chosen": "Since when?", "Rejected": "Cheer up.", "patient_id": "a"}]
    if ending == "parquet":
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        rows = [{"chosen": messages(PROMPT + CHOSEN), "rejected": messages(PROMPT + REJECTED), "patient_id": "a"}]
        pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    else:
        cells = [json.dumps(messages(turns)).replace('"', '""') for turns in (PROMPT + CHOSEN, PROMPT + REJECTED)]
        lines = [",".join(rows[0]), ",".join(rows[0].values()), f'Hm,"{cells[0]}","{cells[1]}",a']
        (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    corpus = read(tmp_path / f"a.{ending}")
    assert corpus.format == "table"
    last = list(corpus.sessions())[-1]
    assert (said(last), last.patient) == (WHOLE, "a")
    if ending == "csv":
        assert said(next(corpus.sessions())) == (PROMPT[:1], [(T, "Since when?")], [(T, "Cheer up.")])
        assert "unlike the turns with which both answers begin" in corpus.notes[0]


def test_a_map_names_other_keys(tmp_path):
    record = {"q": "I am low.", "best": {"says": "Since when?"}, "worst": "Cheer up.", "strength": 0.5, "who": "amara"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    keys = {"prompt": "q", "chosen": "best.says", "rejected": "worst", "weight": "strength", "patient_id": "who"}
    (session,) = read(tmp_path / "a.jsonl", corpus_map=CorpusMap(each="preference", **keys)).sessions()
    assert said(session) == (PROMPT[:1], [(T, "Since when?")], [(T, "Cheer up.")])
    assert (session.patient, session.preference.weight, session.facts) == ("amara", 0.5, {})
    one_turn = {"asked": "I am low.", "chosen": messages(CHOSEN), "rejected": messages(REJECTED)}
    (tmp_path / "c.jsonl").write_text(json.dumps(one_turn))
    corpus = read(tmp_path / "c.jsonl")
    assert corpus.notes[0].startswith("1 prompts, which are missing: both answers begin with the therapist")
    assert next(corpus.sessions()).facts == {"asked": "I am low."}
    with pytest.raises(ValueError, match="each: preference needs chosen and rejected"):
        CorpusMap(each="preference", chosen="best")
    with pytest.raises(ValueError, match="preference has no session"):
        CorpusMap(each="preference", chosen="a", rejected="b", session="c")
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"talks": {"file_name": "b.jsonl", "ranking": True, "columns": {"prompt": "q", "chosen": "worst"}}})
    )
    (tmp_path / "b.jsonl").write_text(json.dumps({"q": "I am low.", "worst": "Since when?", "rejected": "No."}))
    found = read_map(tmp_path / "dataset_info.json", tmp_path / "b.jsonl")
    assert said(next(read(tmp_path / "b.jsonl", corpus_map=found).sessions()))[1] == [(T, "Since when?")]


@pytest.mark.slow
def test_prompts_of_messages_are_those_that_trl_extracts():
    """The oracle is TRL's own function, on the records whose answers are both lists of messages."""
    extract = pytest.importorskip("trl.data_utils").maybe_extract_prompt
    for name in ("messages", "implicit messages", "a text beside whole dialogues"):
        record, parts, facts = SHAPES[name]
        theirs = extract(record)
        assert theirs["prompt"] == messages(parts[0], facts.get("system", "")), name
        assert (theirs["chosen"], theirs["rejected"]) == (messages(parts[1]), messages(parts[2])), name


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ours(rejected=of(*CHOSEN)), "chosen and rejected are the same words"),
        (ours(chosen=[]), "chosen: no turn"),
        (ours(rejected=of((T, " \n"))), "rejected: turn 1 has no text"),
        (ours(chosen=of((P, "No."), (T, "Yes."))), "chosen: it begins with the patient"),
        (ours(chosen=of((T, "No."), (P, "Yes."))), "chosen: it ends with the patient"),
        (ours(prompt=of(*PROMPT[:2])), "turns 2 and 3 are both the therapist's: roles do not alternate"),
        (ours(prompt=of((P, "a"), (P, "b"))), "turns 1 and 2 are both the patient's: roles do not alternate"),
        (ours(weight=0), "weight: "),
        (ours(wieght=1), "wieght"),
        ({"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": []}, "a session among pairs of answers"),
        ({**ours(), "schema": "cbtrain.pair/2"}, "schema 'cbtrain.pair/2' is not 'cbtrain.pair/1'"),
        ({"chosen": "Yes.", "rejected": "No."}, "no prompt, and no turns in the text of 'chosen'"),
        ({"prompt": "Hi.", "chosen": "Yes.", "rejected": "Yes. "}, "chosen and rejected are the same words"),
        ({"prompt": "Hi.", "chosen": "Yes.", "rejected": None}, "rejected: no turn"),
        ({"prompt": "Hi.", "chosen": "Yes.", "rejected": "No.", "weight": "much"}, "weight 'much' is not a number above 0"),
        ({"chosen": messages(PROMPT + CHOSEN), "rejected": messages(PROMPT)}, "rejected: no turn"),
        ({"chosen": messages(PROMPT), "rejected": messages([*PROMPT[:2], (P, "June.")])}, "begins with the patient"),
        ({"chosen": messages(PROMPT + CHOSEN, "a"), "rejected": messages(PROMPT + REJECTED, "b")}, "different system prompts"),
        ({"prompt": "Hi.", "chosen": [{"role": "nurse", "content": "x"}], "rejected": "No."}, "chosen: speaker 'nurse'"),
        ({"prompt": "a", "chosen": str(messages(CHOSEN)), "rejected": "b"}, "as Python prints them"),
        ({"prompt": "<|im_start|>user\nHi<|im_end|>", "chosen": "a", "rejected": "b"}, r"rendered \(ChatML"),
        ({"messages": messages(PROMPT)}, "no 'chosen' among messages: no pair of answers"),
    ],
)  # fmt: skip
def test_a_bad_pair_is_refused_in_one_line_and_can_be_left_out(tmp_path, record, message):
    good = ours() if "schema" in record else SHAPES["text" if "prompt" in record else "implicit messages"][0]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n")
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.jsonl")
    assert "a.jsonl:2" in str(caught.value)
    assert "\n" not in str(caught.value)
    corpus = read(tmp_path / "a.jsonl", skip_bad=True)
    assert (len(list(corpus.sessions())), len(corpus.skipped)) == (1, 1)
    assert "a.jsonl:2" in corpus.skipped[0]
