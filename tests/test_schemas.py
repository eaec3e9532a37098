"""What files on disk call their layout: a name that changes would make yesterday's files unreadable."""

import re

from places import ROOT

SCHEMAS = {
    "cbtrain.analysis/1",
    "cbtrain.audit/2",
    "cbtrain.checkpoint/1",
    "cbtrain.imported-forms/1",
    "cbtrain.method/1",
    "cbtrain.objectives/1",
    "cbtrain.pair-patients/1",
    "cbtrain.pair/1",
    "cbtrain.patient/1",
    "cbtrain.patient_audit/1",
    "cbtrain.power/1",
    "cbtrain.profile/1",
    "cbtrain.rater/1",
    "cbtrain.rating-form/1",
    "cbtrain.rating-key/1",
    "cbtrain.ratings/1",
    "cbtrain.report/2",
    "cbtrain.session/1",
    "cbtrain.split/1",
    "cbtrain.method-comparison/1",
    "cbtrain.sweep/1",
    "cbtrain.tokens/1",
}
"""Add the new one and keep reading the old one."""


def test_the_layouts_of_files_keep_their_names():
    found = set()
    for top in ("cbtrain", "eval", "kernels"):
        for kind in ("*.py", "*.js", "*.html"):
            for path in (ROOT / top).rglob(kind):
                found |= set(re.findall(r"\bcbtrain\.[\w.-]+/\d+\b", path.read_text(encoding="utf-8")))
    assert found == SCHEMAS
