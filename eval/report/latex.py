"""``contrasts.tex``: the table of contrasts for a paper, a ``tabular`` that needs the package booktabs and no other."""

from __future__ import annotations

import unicodedata

from cbtrain.eval.report.formatting import GAP, fixed, p_value, span
from cbtrain.eval.report.notable import Finding, families_of, findings_of
from cbtrain.eval.report.schema.estimates import EffectRow
from cbtrain.eval.report.schema.report import Report

SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"$<$",
    ">": r"$>$",
    "|": r"$|$",
    '"': "''",
    "−": "$-$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "×": r"$\times$",
    "±": r"$\pm$",
    "–": "--",
    "—": "---",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "…": r"\ldots{}",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "ı": r"\i{}",
}
ACCENTS = {
    "\u0300": "`",
    "\u0301": "'",
    "\u0302": "^",
    "\u0303": "~",
    "\u0304": "=",
    "\u0306": "u",
    "\u0307": ".",
    "\u0308": '"',
    "\u030a": "r",
    "\u030b": "H",
    "\u030c": "v",
    "\u0327": "c",
}
HEAD = r"Contrast & Difference & 95 \% interval & $p$ & $p$ (Holm) & $d_z$ of patients [95 \% interval] & Patients \\"


def render_latex(report: Report) -> str:
    """Return ASCII, so that it compiles with any encoding of the document; a letter without a LaTeX command becomes
    ``?``."""
    families = families_of(findings_of(report.analysis))
    lines = [
        "% Differences between therapists in points of the total score, the patient as the unit; t intervals.",
        f"% Holm inside each family. Rated by: {_comment(report.rater.credit)}",
        "% Needs \\usepackage{booktabs}. Written by cbtrain; not for clinical use.",
        r"\begin{tabular}{lrrrrrr}",
        r"\toprule",
        HEAD,
        r"\midrule",
    ]
    for index, (family, findings) in enumerate(families):
        if len(families) > 1:
            lines += [r"\addlinespace"] if index else []
            lines.append(rf"\multicolumn{{7}}{{l}}{{\emph{{{escape(family)}}}}} \\")
        lines += [_row(finding) for finding in findings]
    if not families:
        lines.append(r"\multicolumn{7}{l}{No comparison between therapists was computed.} \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"]) + "\n"


def escape(text: str) -> str:
    """Return ``text`` with every letter as LaTeX needs it."""
    letters: list[str] = []
    for letter in unicodedata.normalize("NFD", " ".join(text.split())):
        if letter in ACCENTS and letters and letters[-1].isalpha() and letters[-1].isascii():
            letters[-1] = f"\\{ACCENTS[letter]}{{{letters[-1]}}}"
        elif letter in SPECIAL:
            letters.append(SPECIAL[letter])
        elif letter.isascii() and letter.isprintable():
            letters.append(letter)
        else:
            letters.append("" if unicodedata.combining(letter) else "?")
    text = "".join(letters)
    # After the end of a row these would be read as its argument.
    return f"{{{text[0]}}}{text[1:]}" if text.startswith(("[", "*")) else text


def _row(finding: Finding) -> str:
    row, effect = finding.row, finding.row.effect or EffectRow()
    size = GAP
    if effect.d_z is not None:
        size = f"{fixed(effect.d_z, 2)} [{span(effect.d_z_low, effect.d_z_high, 2)}]"
    cells = [
        finding.id,
        fixed(finding.estimate, 2, signed=True),
        span(finding.low, finding.high, 2),
        p_value(row.p),
        p_value(row.p_adjusted),
        size,
        GAP if finding.count is None else f"{finding.count}",
    ]
    return " & ".join(escape(cell) for cell in cells) + r" \\"


def _comment(text: str) -> str:
    return "".join(letter if letter.isascii() and letter.isprintable() else "?" for letter in text)
