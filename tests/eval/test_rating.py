"""Sessions that exist already are rated like simulated ones."""

import csv
import json
import subprocess
import sys
from pathlib import Path

CBTRAIN = Path(sys.executable).with_name("cbtrain")


def test_transcripts_by_arm(tmp_path):
    def line(course, arm, *said):
        roles = ("patient", "therapist")
        turns = [{"role": roles[i % 2], "text": text} for i, text in enumerate(said)]
        record = {"schema": "cbtrain.session/1", "course": course, "session": 1, "turns": turns, "patient": "ann"}
        return json.dumps(record | {"facts": {"arm": arm}})

    cbt = (
        "I feel low.",
        "What shall we put on our agenda?",
        "Work is too much.",
        "What homework would help you until next week?",
    )
    cbt = cbt * 4
    flat = ("I feel low.", "I see, and that is all there is to say about it today.") * 8
    (tmp_path / "s.jsonl").write_text("\n".join([line("a/ann", "a", *cbt), line("b/ann", "b", *flat)]))
    done = subprocess.run(
        [CBTRAIN, "rate", "corpus.path=s.jsonl", "--out", "rated"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "smoke-test cue rater" in done.stdout
    with (tmp_path / "rated" / "scores.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert {row["patient"] for row in rows.values()} == {"ann"}
    assert float(rows["a"]["total"]) > float(rows["b"]["total"])
