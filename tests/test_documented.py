"""The tables in the docs name tests that exist."""

import ast
import re

import pytest
from places import ROOT


@pytest.mark.parametrize("page", ["model.md", "training.md", "providers.md", "analysis.md", "report.md"])
def test_every_test_that_the_docs_name_is_there(page):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) >= 7
    for file, test in named:
        functions = {
            n.name
            for n in ast.parse((ROOT / file).read_text()).body
            if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert test in functions, f"{file}::{test}"
    for file in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / file).exists(), file
