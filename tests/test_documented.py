"""What the documentation names exists: tests, links, files, modules, names in files."""

import ast
import re
from itertools import chain

import pytest
from places import ROOT

FOLDERS = (".github", "cbtrain", "configs", "docs", "eval", "kernels", "launch", "tests")
PAGES = sorted([*ROOT.glob("*.md"), *chain.from_iterable((ROOT / folder).rglob("*.md") for folder in FOLDERS)])
MAPS = [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs/decisions").glob("*.md"))]
"""Pages about the code."""

PATH = r"(?:\.ci|\.github|cbtrain|configs|docs|eval|kernels|launch|tests)/[\w./-]*"
INSTALLED_FROM = {"eval", "kernels", "configs"}


def name_of(page):
    return str(page.relative_to(ROOT))


def prose(page):
    """The page on one line, without blocks of code."""
    return " ".join(re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S).split())


def anchors(page):
    """What GitHub calls the headings of a page in links."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "page", ["model.md", "training.md", "sweep.md", "providers.md", "analysis.md", "report.md", "kernels.md"]
)
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


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


@pytest.mark.parametrize("page", MAPS, ids=name_of)
def test_what_the_pages_about_the_code_name_is_there(page):
    text = prose(page)
    for path in re.findall(rf"`({PATH})`", text):
        assert "NAME" in path or (ROOT / path).exists(), path
    for module in re.findall(r"`(cbtrain(?:\.\w+)+)`", text):
        parts = module.split(".")
        place = ROOT.joinpath(*(parts[1:] if parts[1] in INSTALLED_FROM else parts))
        assert place.is_dir() or place.with_suffix(".py").exists(), module
    for names, path in re.findall(rf"(`\w+`(?:(?:,| and| or) `\w+`)*) in `({PATH})`", text):
        for name in re.findall(r"\w+", names.replace(" and ", " ").replace(" or ", " ")):
            assert re.search(rf"\b{name}\b", (ROOT / path).read_text(encoding="utf-8")), f"{name} in {path}"
