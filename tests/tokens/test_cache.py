"""Tokenized corpora on disk: equal to fresh ones, rebuilt when damaged, safe with two writers, never another's."""

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import builder_for, units_for
from places import SHARED

from cbtrain.errors import UserError
from cbtrain.tokens import cache
from cbtrain.tokens.cache import ARRAYS, TokenStore, open_store
from cbtrain.tokens.document import Document
from cbtrain.tokens.tokenize import cache_root, tokenize
from cbtrain.tokens.tokenizer import train_tokenizer
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Turn

SESSIONS = list(read("sample").sessions())[:8]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer([turn.text for session in SESSIONS for turn in session.turns], 700, 8000)


def selection(tokenizer, root, **settings):
    options = {key: settings.pop(key) for key in ("budget", "seed", "progress") if key in settings}
    builder = builder_for(tokenizer, **settings)
    by_course = {}
    for session in SESSIONS:
        by_course.setdefault(session.course, []).append(session)
    units = [unit for own in by_course.values() for unit in units_for(builder, own, "Be kind.")]
    return tokenize(units, builder, root=root, **options)


def entries(root):
    return [entry for entry in root.iterdir() if entry.is_dir()]


def same(one, other):
    assert one.documents.names == other.documents.names
    for a, b in zip(one.documents, other.documents, strict=True):
        assert np.array_equal(a.ids, b.ids)
        assert np.array_equal(a.loss_weights, b.loss_weights)
        assert a.trimmed == b.trimmed
    assert one.describe() == other.describe()
    assert (one.share, [u.name for u in one.units]) == (other.share, [u.name for u in other.units])


weights = st.lists(st.sampled_from([0.0, 0.1, 1.0, 2.5]), min_size=1, max_size=12)


@given(st.lists(weights, max_size=6))
def test_flat_arrays_hold_any_documents(rows):
    made = [
        Document(f"d\u2028{i}", np.arange(len(w), dtype=np.int32), np.asarray(w, np.float32), i)
        for i, w in enumerate(rows)
    ]
    store = TokenStore.of(made)
    assert len(store) == len(made)
    for one, other in zip(store, made, strict=True):
        assert (one.name, one.trimmed) == (other.name, other.trimmed)
        assert np.array_equal(one.ids, other.ids)
        assert np.array_equal(one.loss_weights, other.loss_weights)
    assert store.supervised.tolist() == [int((d.loss_weights[1:] > 0).sum()) for d in made]
    assert store.weight_sums == pytest.approx([float(d.loss_weights[1:].sum(dtype=float)) for d in made])
    assert [d.name for d in store[1:3]] == [d.name for d in made[1:3]]
    with pytest.raises(IndexError):
        store[len(made)]


def test_what_is_kept_equals_what_is_made_and_is_opened_without_rendering(tokenizer, tmp_path):
    fresh = selection(tokenizer, None)
    first = selection(tokenizer, tmp_path / "a" / "b")
    counted = []
    again = selection(tokenizer, tmp_path / "a" / "b", progress=lambda done, of: counted.append(done))
    same(first, fresh)
    same(again, fresh)
    assert counted == []
    assert isinstance(again.documents.arrays["ids"], np.memmap)
    (entry,) = entries(tmp_path / "a" / "b")
    assert entry.stat().st_mode & 0o077 == 0  # what patients said is for its owner alone


def test_whatever_decides_the_tokens_decides_the_entry(tokenizer, tmp_path):
    other = train_tokenizer(["something else entirely"] * 9, 400, 8000)
    changes = [
        {},
        {"supervise": "both"},
        {"format": "plain"},
        {"carry": 0.5},
        {"pack_tokens": 300},
        {"document_tokens": 9000, "positions": 9000},
        {"document_tokens": 9000, "positions": 8000},
        {"weights": [{"match": "sleep", "weight": 0.5}]},
        {"budget": 2000},
        {"budget": 2000, "seed": 1},
    ]
    for number, change in enumerate(changes, 1):
        selection(tokenizer, tmp_path, **change)
        assert len(entries(tmp_path)) == number
    selection(other, tmp_path)
    assert len(entries(tmp_path)) == len(changes) + 1


def test_a_budget_ends_at_a_whole_session_in_an_order_of_the_seed(tokenizer):
    everything = selection(tokenizer, None)
    some = selection(tokenizer, None, budget=2000)
    assert 2000 <= some.documents.tokens < everything.documents.tokens
    assert some.documents.tokens - len(some.documents[len(some.documents) - 1]) < 2000
    assert 0 < some.share < 1
    assert [u.name for u in selection(tokenizer, None, budget=2000, seed=1).units] != [u.name for u in some.units]


@pytest.mark.fault("A14")
def test_units_that_cannot_be_used_are_left_out_on_request_and_named(tokenizer, tmp_path):
    builder = builder_for(tokenizer)
    units = units_for(builder, SESSIONS, "Be kind.")
    alone = replace(units[1].sessions[0], turns=units[1].sessions[0].turns[:1])  # the patient's
    marked = replace(units[3].sessions[0], turns=(*units[3].sessions[0].turns, Turn("therapist", "So <|end|> it is.")))
    units[1], units[3] = replace(units[1], sessions=(alone,)), replace(units[3], sessions=(marked,))
    with pytest.raises(UserError, match="no token in it is supervised.*corpus.skip_bad=true"):
        tokenize(units, builder)
    made, read_again = (tokenize(units, builder, root=tmp_path, skip_bad=True) for _ in range(2))
    same(made, read_again)
    assert made.skipped == read_again.skipped
    assert [unit.name for unit in made.units] == [unit.name for n, unit in enumerate(units) if n not in (1, 3)]
    assert len(made.skipped) == made.describe()["units_skipped"] == 2
    assert "no token in it is supervised" in made.skipped[0]
    assert "special token" in made.skipped[1]
    with pytest.raises(UserError, match="no token in it is supervised"):  # the cache of the others does not hide it
        tokenize(units, builder, root=tmp_path)
    with pytest.raises(UserError, match="no token in it is supervised"):
        tokenize([units[1]], builder, skip_bad=True)


@pytest.mark.parametrize("name", [*(f"{name}.npy" for name in ARRAYS), "index.json"])
@pytest.mark.parametrize("how", ["cut", "flipped", "gone", "empty"])
def test_damage_is_found_and_mended(tokenizer, tmp_path, name, how):
    before = selection(tokenizer, None)
    selection(tokenizer, tmp_path)
    (entry,) = entries(tmp_path)
    file = entry / name
    data = bytearray(file.read_bytes())
    if how == "gone":
        file.unlink()
    elif how == "flipped":
        data[len(data) * 2 // 3] ^= 0xFF
        file.write_bytes(data)
    else:
        file.write_bytes(data[: len(data) // 2 if how == "cut" else 0])
    same(selection(tokenizer, tmp_path), before)
    assert len(entries(tmp_path)) == 1
    counted = []
    same(selection(tokenizer, tmp_path, progress=lambda done, of: counted.append(done)), before)
    assert counted == []


def test_anothers_tokens_are_refused_by_name(tokenizer, tmp_path):
    selection(tokenizer, tmp_path)
    selection(train_tokenizer(["other words"] * 9, 400, 8000), tmp_path)
    one, other = entries(tmp_path)
    shutil.rmtree(one)
    shutil.copytree(other, one)  # as somebody does who copies caches about
    identity = json.loads((other / "index.json").read_text())["identity"]
    open_store(one, identity)
    with pytest.raises(UserError, match=r"tokens of another tokenizer\. Remove that folder"):
        open_store(one, {**identity, "tokenizer": "x"})


WORKER = """
import sys
sys.path.insert(0, sys.argv[1])
from test_cache import selection, SESSIONS
from pathlib import Path
from cbtrain.tokens.tokenizer import load_tokenizer
made = selection(load_tokenizer(sys.argv[2]), Path(sys.argv[3]), progress=lambda done, of: print("made", done))
print("tokens", made.documents.tokens)
"""


def test_two_processes_start_at_once_and_one_does_the_work(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    here, shared = os.path.dirname(__file__), str(SHARED)
    command = [sys.executable, "-c", WORKER, here, str(tmp_path / "tokenizer"), str(tmp_path / "cache")]
    environment = {**os.environ, "PYTHONPATH": shared}
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) for _ in range(2)]
    outputs = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted("made" in output for output in outputs) == [False, True]
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert len(entries(tmp_path / "cache")) == 1


def test_a_place_that_cannot_be_written_costs_nothing_but_time(tokenizer, tmp_path):
    (tmp_path / "file").write_text("in the way")
    made = selection(tokenizer, tmp_path / "file" / "cache")
    same(made, selection(tokenizer, None))
    assert "tokens are not saved in" in made.note


def test_what_nobody_opens_for_long_goes(tokenizer, tmp_path):
    selection(tokenizer, tmp_path)
    (old,) = entries(tmp_path)
    foreign = [tmp_path / name for name in ("notes", "yarn.lock", "thesis.old", "index.json")]
    for path in foreign:
        path.mkdir()
        (path / "index.json").write_text("{}")
    long_ago = time.time() - (cache.UNUSED_DAYS + 1) * 86_400
    for path in (old, *foreign):
        os.utime(path, (long_ago, long_ago))
    selection(tokenizer, tmp_path)  # opening makes it young again
    selection(tokenizer, tmp_path, supervise="both")
    assert old.exists()
    os.utime(old, (long_ago, long_ago))
    selection(tokenizer, tmp_path, carry=0.5)
    assert not old.exists()
    assert all(path.exists() for path in foreign)
    assert len(entries(tmp_path)) == 2 + len(foreign)


def test_where_tokens_are_kept(monkeypatch, tmp_path):
    assert cache_root("none") is None
    assert cache_root(str(tmp_path)) == tmp_path / "tokens"
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "own"))
    assert cache_root("auto") == tmp_path / "own" / "tokens"
    monkeypatch.delenv("CBTRAIN_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root("auto") == tmp_path / "xdg" / "cbtrain" / "tokens"
