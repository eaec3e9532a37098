"""Every fault that was reported and mended has a test that names it: `pytest.mark.fault("D1")`."""

from __future__ import annotations

import ast
from collections import Counter

from places import ROOT

MENDED = [
    *(f"A{number}" for number in range(1, 15)),  # reading, checking and cleaning transcripts
    *(f"B{number}" for number in range(1, 9)),  # models, templates, adapters
    *(f"D{number}" for number in range(1, 9)),  # patients, judges and writers behind APIs
    *("C1", "C2", "C3", "C4", "C5", "F2", "F3", "F14", "H3", "H12"),  # generation and serving
    *("E2", "E3", "E4", "F1"),  # tables, versions, statistics
    *(f"F{number}" for number in range(4, 13)),  # interruptions, load, attacks
    *("G1", "G2", "G4", "G5", "G7", "G10", "H1", "H2", "H4", "H8", "H9"),  # first use
]


def marked() -> Counter[str]:
    rows: Counter[str] = Counter()
    for file in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "fault":
                rows.update(argument.value for argument in node.args if isinstance(argument, ast.Constant))
    return rows


def test_a_test_names_each():
    assert set(MENDED) - set(marked()) == set()
