import os
import signal
import subprocess
import sys

import pytest

from cbtrain.errors import UserError
from cbtrain.journal import Journal, read


def test_records_are_read_back_in_order(tmp_path):
    with Journal(tmp_path / "new" / "events.jsonl") as journal:
        written = [journal.append("turn", text=f"line\n{i} é", index=i) for i in range(3)]
    assert list(read(tmp_path / "new" / "events.jsonl")) == written
    assert all(record["time"].endswith("+00:00") for record in written)


def test_a_tail_torn_anywhere_costs_only_the_last_record(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        first, _ = journal.append("a", x=1), journal.append("b", text="é" * 5)
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for cut in range(start, len(whole)):
        path.write_bytes(whole[:cut])
        assert list(read(path)) == [first], cut
        with Journal(path) as journal:
            third = journal.append("c")
        repaired = [{"kind": "repaired", "dropped_bytes": cut - start}] if cut > start else []
        got = list(read(path))
        assert (got[0], got[-1]) == (first, third)
        assert [{k: r[k] for k in ("kind", "dropped_bytes")} for r in got[1:-1]] == repaired, cut


def test_damage_before_the_end_is_named(tmp_path):
    path = tmp_path / "events.jsonl"
    path.write_text('{"kind": "a"}\noops\n{"kind": "b"}\n')
    with pytest.raises(UserError, match=r"events\.jsonl:2: damaged record"):
        list(read(path))
    with pytest.raises(UserError, match="no such journal"):
        list(read(tmp_path / "nothing"))


def test_one_writer_at_a_time(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path):
        with pytest.raises(UserError, match="another process writes here"):
            Journal(path)
    Journal(path).close()


def test_what_json_has_no_word_for_is_refused_and_leaves_no_trace(tmp_path):
    path = tmp_path / "events.jsonl"
    with Journal(path) as journal:
        with pytest.raises(ValueError, match="not JSON compliant"):
            journal.append("a", x=float("nan"))
    assert path.read_bytes() == b""


WRITER = """
import sys
from cbtrain.journal import Journal
journal, i = Journal(sys.argv[1]), 0
while True:
    journal.append("turn", index=i, text="x" * (i * 37 % 3000))
    print(i, flush=True)
    i += 1
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    path = tmp_path / "events.jsonl"
    child = subprocess.Popen([sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(child.stdout.readline()) for _ in range(50)]
    os.kill(child.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in child.stdout.read().split()]
    child.wait()
    indices = [record["index"] for record in read(path)]
    assert indices[: len(acknowledged)] == acknowledged
    with Journal(path) as journal:  # the dead writer's lock is gone
        journal.append("resumed")
