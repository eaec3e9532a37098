"""The documented shapes of fine-tuning data of TRL, Axolotl, LLaMA-Factory and Unsloth, each read without a script."""

import json

import pytest
import yaml

from cbtrain.errors import UserError
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.dataset_info import read_map
from cbtrain.transcripts.reading import read

ROLES = [{"role": "user", "content": "I am low."}, {"role": "assistant", "content": "Since when?"}]
SHAREGPT = [{"from": "human", "value": "I am low."}, {"from": "gpt", "value": "Since when?"}]
SYSTEM = {"role": "system", "content": "Be kind."}
PAIR = "pI am low.|tSince when?"

SHAPES = {
    "trl messages": ({"messages": [SYSTEM, *ROLES]}, None, PAIR, {"system": "Be kind."}),
    "trl messages with tools": ({"messages": ROLES, "tools": [{"type": "function"}]}, None, PAIR, {"tools": '[{"type": "function"}]'}),
    "trl prompt and completion": ({"prompt": "I am low.", "completion": " Since when?"}, None, PAIR, {}),
    "trl prompt and completion as messages": ({"prompt": ROLES[:1], "completion": ROLES[1:]}, None, PAIR, {}),
    "axolotl chat_template": ({"messages": [*ROLES, {"role": "user", "content": "May."}, {"role": "assistant", "content": "Oh.", "train": False}]},
        None, f"{PAIR}|pMay.|t0Oh.", {}),
    "axolotl chat_template, other fields": ({"talk": [{"who": "person", "says": "I am low."}, {"who": "coach", "says": "Since when?"}]},
        {"each": "session", "turns": "talk", "speaker": "who", "text": "says", "patient": "person", "therapist": "coach"}, PAIR, {}),
    "axolotl conversations": ({"conversations": [{"from": "system", "value": "Be kind."}, *SHAREGPT]}, None, PAIR, {"system": "Be kind."}),
    "axolotl alpaca": ({"instruction": "I am low.", "input": "", "output": "Since when?"}, None, PAIR, {}),
    "axolotl gpteacher": ({"instruction": "I am", "input": "low.", "response": "Since when?"}, None, "pI am\nlow.|tSince when?", {}),
    "axolotl alpaca_w_system": ({"system": "Be kind.", "instruction": "I am low.", "input": "", "output": "Since when?"}, None, PAIR,
        {"system": "Be kind."}),
    "axolotl input_output": ({"segments": [{"label": False, "text": "<s>I am low.\n"}, {"label": True, "text": "Since when?</s>"}]}, None, PAIR, {}),
    "llama-factory alpaca": ({"instruction": "I am low.", "input": "", "output": "Since when?", "system": "Be kind.",
        "history": [["Hi.", "Hello."]]}, None, f"pHi.|tHello.|{PAIR}", {"system": "Be kind."}),
    "llama-factory sharegpt": ({"conversations": SHAREGPT, "system": "Be kind.", "tools": "none"}, None, PAIR,
        {"system": "Be kind.", "tools": "none"}),
    "llama-factory sharegpt with tools": ({"conversations": [SHAREGPT[0], {"from": "function_call", "value": "{}"}, {"from": "observation",
        "value": "{}"}, SHAREGPT[1]]}, {"file_name": "a.json", "formatting": "sharegpt"}, PAIR, {}),
    "llama-factory tags": ({"talk": [{"who": "S", "says": "Be kind."}, {"who": "U", "says": "I am low."}, {"who": "A", "says": "Since when?"}]},
        {"file_name": "a.json", "formatting": "sharegpt", "columns": {"messages": "talk"}, "tags": {"role_tag": "who", "content_tag": "says",
        "user_tag": "U", "assistant_tag": "A", "system_tag": "S"}}, PAIR, {"system": "Be kind."}),
    "axolotl training": ({"messages": [ROLES[0], {**ROLES[1], "training": False}]}, None, "pI am low.|t0Since when?", {}),
    "axolotl train_detail": ({"messages": [ROLES[0], {**ROLES[1], "train_detail": [{"begin_offset": 0, "end_offset": 10, "train": False}]}]}, None,
        "pI am low.|t0Since when?", {}),
    "llama-factory openai": ({"messages": ROLES}, {"file_name": "a.json", "formatting": "openai", "columns": {"messages": "messages"}}, PAIR, {}),
    "unsloth sharegpt": ({"conversations": SHAREGPT}, None, PAIR, {}),
    "unsloth chatml": ({"conversations": ROLES}, None, PAIR, {}),
    "unsloth alpaca": ({"instruction": "I am low.", "input": "", "output": "Since when?", "text": "Below is it. ### Instruction: I am low."}, None, PAIR,
        {"text": "Below is it. ### Instruction: I am low."}),
}  # fmt: skip


def said(session):
    return "|".join(f"{turn.role[0]}{'' if turn.weight else 0}{turn.text}" for turn in session.turns)


@pytest.mark.fault("A9")
@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("name", SHAPES)
def test_documented_shapes_are_read(tmp_path, name, ending):
    record, given_map, turns, facts = SHAPES[name]
    file = tmp_path / f"a.{ending}"
    corpus_map = CorpusMap()
    if ending == "parquet":
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        pyarrow.parquet.write_table(arrow.Table.from_pylist([record, record]), file)
    else:
        file.write_text(json.dumps([record] * 2) if ending == "json" else "\n".join([json.dumps(record)] * 2))
    if given_map and "file_name" in given_map:
        (tmp_path / "dataset_info.json").write_text(json.dumps({"talks": given_map}))
        corpus_map = read_map(tmp_path / "dataset_info.json", file)
    elif given_map:
        (tmp_path / "map.yaml").write_text(yaml.safe_dump(given_map))
        corpus_map = read_map(tmp_path / "map.yaml", file)
    corpus = read(file, corpus_map=corpus_map)
    assert [said(session) for session in corpus.sessions()] == [turns, turns]
    assert [session.facts for session in corpus.sessions()] == [facts, facts]
    assert corpus.skipped == ()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"text": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>"}, r"chat template has rendered \(ChatML: <\|im_start\|>\)"),
        ({"prompt": "<start_of_turn>user\nHi<end_of_turn>", "completion": "Hello"}, r"rendered \(Gemma: <start_of_turn>\)"),
        ({"segments": [{"label": False, "text": "[INST] Hi [/INST]"}, {"label": True, "text": "Hello"}]}, r"rendered \(Llama 2 or Mistral"),
        ({"prompt": "Hi", "chosen": 1, "rejected": 2}, "preferences whose chosen and rejected are neither texts nor lists"),
        ({"prompt": "Hi", "completion": "Go", "label": False}, r"preferences \(KTO\)"),
        ({"messages": ROLES, "label": False}, r"preferences \(KTO\)"),
        ({"messages": [ROLES[0], {**ROLES[1], "train_detail": [{"train": True}, {"train": False}]}]}, "message 2: train_detail has a part"),
        ({"input_ids": [1, 2], "attention_mask": [1, 1], "labels": [-100, 2]}, "token ids, not words"),
        ({"text": "The sky is blue."}, "no known layout: a JSON object with the keys text"),
        ({"prompt": "The sky is"}, "no known layout: a JSON object with the keys prompt"),
    ],
)  # fmt: skip
def test_what_is_no_dialogue_is_refused_by_its_name(tmp_path, record, message):
    for name in ("a.jsonl", "b/a.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(record))
        with pytest.raises(UserError, match=message) as caught:
            read((tmp_path / name) if name == "a.jsonl" else tmp_path / "b")
        assert "\n" not in str(caught.value)


@pytest.mark.fault("A9")
def test_pairs_in_a_table_are_read_by_their_names(tmp_path):
    (tmp_path / "a.csv").write_text("Instruction,Input,Output,severity\nI am low.,,Since when?,mild\n")
    (session,) = read(tmp_path / "a.csv").sessions()
    assert (said(session), session.facts) == (PAIR, {"severity": "mild"})
