"""The server under full load and misuse, all at once: right statuses, and nothing leaks. No times are asserted."""

import json
import subprocess
import sys

import pytest
from places import ROOT


@pytest.mark.deep
def test_every_client_gets_its_status_and_nothing_leaks(tmp_path):
    rows = tmp_path / "rows.json"
    command = [sys.executable, ROOT / "launch/benchmark.py", "serve", "--lag-seconds", "1", "--json", rows]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    measured = json.loads(rows.read_text())
    assert measured["faults"] == []
    together = [row["outcomes"] for row in measured["rows"] if row["phase"].startswith("all together")]
    assert len(together) == 2
    for outcomes in together:
        assert outcomes["clients"] == {"200": 334, "200, left": 166}
        assert outcomes["slow readers"] == {"200": 100}
        assert outcomes["wrong keys"] == {"401": 500}
        assert sum(outcomes["half-open"].values()) == 1_000
