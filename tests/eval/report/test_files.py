"""The report's files: which there are, Markdown and LaTeX that names cannot break."""

import json
import re
import shutil
import subprocess

import pytest
from analyzed import analyzed_report, random_ratings
from fake_report import HOSTILE, report_of
from markdown_it import MarkdownIt

from cbtrain import NOTICE
from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.report import write
from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.formatting import fixed
from cbtrain.eval.report.latex import escape as latex
from cbtrain.eval.report.latex import render_latex
from cbtrain.eval.report.markdown import escape as markdown
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.write import write_report

BASES = [Arm(f"{base}-{kind}", base, kind) for base in ("A", "B") for kind in ("instruct", "tuned")]
FIGURES = ("forest", "scores", "heatmap", "length")
ODD = [
    HOSTILE,
    "a|b",
    "*x* _y_ `z` [l](http://e.org) ![i](x)",
    "# head",
    "- item",
    "1. one",
    "@someone www.e.org",
    "~~s~~",
]


@pytest.fixture(scope="module")
def report():
    return analyzed_report(random_ratings(BASES, 6, 2), {"cutoff": 40}, draws=100)


def cells(text):
    """Tables of a Markdown text as a real parser has them: lists of rows of plain text, and the HTML of everything."""
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text)
    tables = []
    for table in re.findall(r"<table>(.*?)</table>", html, re.DOTALL):
        lines = re.findall(r"<tr>(.*?)</tr>", table, re.DOTALL)
        tables.append([re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", line, re.DOTALL) for line in lines])
    return tables, html


def test_every_file_is_there_and_the_page_comes_last(report, tmp_path, monkeypatch):
    page = write_report(report_of(report), tmp_path)
    names = {f"{name}.{kind}" for name in ("flow", *FIGURES) for kind in ("svg", "png")}
    assert {file.name for file in (tmp_path / "figures").iterdir()} == names
    assert {file.name for file in tmp_path.iterdir()} == {
        *("figures", "report.json", "report.html", "report.md", "contrasts.tex")
    }
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == report
    first = {file: file.read_bytes() for file in tmp_path.rglob("*.*")}
    write_report(report_of(report), tmp_path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*.*")} == first

    # A report that has no contrast leaves no picture of one, and nothing of the user's is touched.
    (tmp_path / "figures" / "own.png").write_bytes(b"mine")
    write_report(report_of({**report, "analysis": {}}), tmp_path)
    assert not list((tmp_path / "figures").glob("forest.*"))
    assert (tmp_path / "figures" / "own.png").read_bytes() == b"mine"

    # Where something fails there is no page.
    page.unlink()
    monkeypatch.setattr(write, "render_markdown", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_report(report_of({}), tmp_path)
    assert not page.exists()


def test_markdown_has_the_numbers_and_the_figures(report):
    text = render_markdown(report_of(report), figures_of(report_of(report)))
    tables, html = cells(text)
    flow, contrasts = tables[:2]
    assert flow[0] == ["Therapist", "Planned", "Held", "Failed", "Rated", "Paired", "In the contrast"]
    assert [line[0] for line in flow[1:]] == [arm["label"] for arm in report["arms"]]
    assert contrasts[0][:5] == ["Contrast", "Estimate", "95 % interval", "p", "p, Holm"]
    for line, contrast in zip(contrasts[1:], report["analysis"]["contrasts"], strict=True):
        assert line[0] == contrast["id"]
        assert line[1] == fixed(contrast["estimate"], 2, signed=True)
        assert line[-1] == "6"
    domains = next(table for table in tables if table[0][0] == "Domain")
    assert len(domains) == 1 + 11
    for name in ("flow", *FIGURES):
        assert f'<img src="figures/{name}.png" alt="' in html
    assert NOTICE in html
    assert "Tuning changed" in text or "No difference between bases" in text
    level = report["analysis"]["levels"][0]
    levels = next(table for table in tables if "Cut-off" in table[0])
    assert levels[1][1:4] == [str(level["n"]), "40", str(level["at_or_above"])]


@pytest.mark.parametrize("name", ODD)
def test_names_are_text_in_markdown(report, name):
    changed = json.loads(json.dumps(report))
    changed["title"] = changed["arms"][0]["label"] = changed["scale"]["domains"][0]["name"] = name
    changed["analysis"]["contrasts"][0]["id"] = name
    changed["analysis"]["contrasts"][1]["notes"] = [name]
    tables, html = cells(render_markdown(report_of(changed), {}))
    # Gaps are set in italics; nothing else is.
    assert not re.search(r"<(script|img|a|code|s|del)\b|<em>(?!No |Shares|Sensitivity|Completion)", html)
    assert {len(line) for line in tables[1]} == {11}
    shown = tables[1][1][0].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", '"')
    flat = " ".join("".join(c if c.isprintable() else " " for c in name).split())
    assert shown.replace("\u200b", "") == flat
    assert html.count("<h1>") == 1
    assert markdown("plain name 3.5") == "plain name 3.5"


def test_an_empty_report_is_markdown_with_gaps():
    text = render_markdown(report_of({}), {})
    for gap in (
        "No comparison between therapists was computed.",
        "No therapist was evaluated.",
        "No domain has a mean",
    ):
        assert gap in text
    assert "None" not in text


def tex_rows(text):
    """Rows of the tabular as lists of cells, split as TeX splits them: at & and at \\\\ that no backslash stands before."""
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    body = re.sub(r"\\(toprule|midrule|addlinespace)\n", "", body)
    rows = re.split(r"(?<!\\)\\\\\n", body)
    return [re.split(r"(?<!\\)&", row) for row in rows if row.strip()]


def test_latex_is_a_table_of_seven_columns(report):
    text = render_latex(report_of(report))
    assert text.isascii()
    assert "\\usepackage{booktabs}" in text
    assert text.count(r"\begin{tabular}{lrrrrrr}") == text.count(r"\end{tabular}") == 1
    rows = tex_rows(text)
    headings = [row for row in rows if row[0].startswith(r"\multicolumn{7}{l}")]
    assert len(headings) == 3
    figures = [row for row in rows if row not in headings]
    assert {len(row) for row in figures} == {7}
    first = report["analysis"]["contrasts"][0]
    assert figures[1][0].strip() == first["id"].replace("−", "$-$")
    assert figures[1][1].strip() == fixed(first["estimate"], 2, signed=True)
    assert r"No comparison between therapists was computed." in render_latex(report_of({}))


@pytest.mark.parametrize(
    ("name", "tex"),
    [
        (r"50% & #1 $x_y^z ~{}", r"50\% \& \#1 \$x\_y\textasciicircum{}z \textasciitilde{}\{\}"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("Zoë Šimůnek, Łódź, Straße", r"Zo\"{e} \v{S}im\r{u}nek, \L{}\'{o}d\'{z}, Stra\ss{}e"),
        ("眠れない a −1 ≥ 2", r"???? a $-$1 $\geq$ 2"),
        ("[5mm] *", "{[}5mm] *"),
        ("two\nlines\x00", "two lines?"),
    ],
)
def test_latex_escapes(report, name, tex):
    assert latex(name) == tex
    changed = json.loads(json.dumps(report))
    changed["rater"]["label"] = changed["analysis"]["contrasts"][0]["id"] = name
    text = render_latex(report_of(changed))
    assert text.isascii()
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    set_ = re.sub(r"(?m)^%.*$", "", text)
    assert len(re.findall(r"(?<!\\)\$", set_)) % 2 == 0
    assert {len(row) for row in tex_rows(text) if not row[0].startswith(r"\multicolumn")} == {7}
    # What stands in a comment stays there.
    assert all(
        line.startswith(("%", "\\", "A", "B", "all", "tuned", "Contrast", tex[:1])) for line in text.splitlines()
    )


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex on the PATH")
def test_latex_compiles_whatever_the_names(report, tmp_path):
    changed = json.loads(json.dumps(report))
    for contrast, name in zip(changed["analysis"]["contrasts"], [*ODD[:3], "50% & $x_1 #~^\\{}"], strict=False):
        contrast["id"] = name
    changed["rater"]["label"] = "50% \n\\input{nowhere} é"
    (tmp_path / "contrasts.tex").write_text(render_latex(report_of(changed)))
    body = r"\documentclass{article}\usepackage{booktabs}\begin{document}\input{contrasts}\end{document}"
    (tmp_path / "paper.tex").write_text(body)
    command = ["pdflatex", "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:]
