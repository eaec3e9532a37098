"""Reading and writing ``report.json``: older files, missing parts, unknown keys, and what is refused."""

import json
import tarfile

import pytest
from fake_report import fake_report, report_of
from places import ROOT

from cbtrain.errors import UserError
from cbtrain.eval.report.flow import flow_of
from cbtrain.eval.report.schema.report import SCHEMA, VERSION, Report

OLD_RUNS = ROOT / "tests/study/data/runs-eba986d.tar.xz"


def read(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return Report.read(path)


def test_a_report_of_an_older_program_is_read_and_written_unchanged(tmp_path):
    with tarfile.open(OLD_RUNS) as runs:
        old = json.loads(runs.extractfile("run-0/report.json").read())
    report = read(tmp_path / "report.json", old)
    assert json.loads(report.to_json()) == old
    assert report.analysis.contrasts[0].estimate == old["analysis"]["contrasts"][0]["estimate"]
    # It has no flow; what its analysis counts is shown.
    flows = [flow_of(report, arm) for arm in report.arms]
    counts = [(row["planned"], row["failed"], row["rated"]) for row in old["analysis"]["completion"]["arms"]]
    assert [(flow.planned, flow.failed, flow.rated) for flow in flows] == counts
    assert {(flow.paired, flow.contrast) for flow in flows} == {(None, old["analysis"]["contrasts"][0]["id"])}
    assert report.sessions[0].ratings[0].judge == old["sessions"][0]["ratings"][0]["judge"]


def test_what_is_missing_is_empty_and_what_is_not_known_is_kept(tmp_path):
    content = {"schema": "cbtrain.report/1", "sessions": [{"id": "a", "mood": "low"}], "weather": {"rain": True}}
    report = read(tmp_path / "report.json", content)
    assert (report.title, report.arms, report.costs, report.deviations) == ("", [], None, None)
    assert (report.analysis.contrasts, report.analysis.length) == ([], None)
    assert (report.scale.total_low, report.rater.credit) == (None, "rater not recorded")
    assert json.loads(report.to_json()) == content
    # Null is not the same as nothing: of deviations it says that there was no protocol to deviate from.
    content |= {"deviations": None, "costs": None}
    assert json.loads(read(tmp_path / "report.json", content).to_json()) == content


def test_odd_values_become_empty_parts(tmp_path):
    odd = (
        '"seconds": NaN, "title": "half \\ud83d", "arms": ["x", {"name": 3, "rated": "many"}], "rater": [], "corpus": 7'
    )
    report = read(tmp_path / "report.json", f'{{"schema": "{SCHEMA}", {odd}, "unknown": -Infinity}}')
    assert (report.seconds, report.title, report.corpus, report.rater.label) == (None, "half ?", None, "")
    ((arm,), text) = report.arms, json.loads(report.to_json())
    assert (arm.name, arm.label, arm.rated) == ("3", "3", None)
    assert (text["seconds"], text["title"], text["unknown"]) == (None, "half ?", None)


def test_arms_and_domains_that_only_sessions_name_are_added():
    sessions = [{"arm": "tuned", "domains": {"agenda": 3, "mood": 2}}, {"arm": "base", "domains": {}}]
    scale = {"min": 1, "domains": [{"id": "agenda", "name": "Agenda"}, {"name": "no id"}]}
    report = report_of({"arms": [{"name": "base", "label": "Base model"}], "sessions": sessions, "scale": scale})
    assert [(arm.name, arm.label) for arm in report.arms] == [("base", "Base model"), ("tuned", "tuned")]
    assert [(domain.id, domain.name) for domain in report.scale.domains] == [("agenda", "Agenda"), ("mood", "mood")]
    assert report.scale.total_low == 2


def test_parts_of_a_newer_report_take_the_place_of_older_ones():
    old, newer = report_of(fake_report()), report_of({"title": "New", "audit": None})
    both = old.updated(newer)
    assert (both.title, both.audit, both.sessions) == ("New", None, old.sessions)
    assert json.loads(both.to_json()) == fake_report() | {"title": "New", "audit": None}
    assert old.title != "New"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"schema"', "damaged"),
        ("[" * 100_000, "damaged"),
        ([1, 2], "no report of cbtrain"),
        ({}, "no report of cbtrain"),
        ({"schema": 2}, "no report of cbtrain"),
        ({"schema": "cbtrain.analysis/1"}, "no report of cbtrain"),
        ({"schema": f"cbtrain.report/{VERSION + 1}"}, "written by a newer cbtrain"),
        (None, "no such report"),
    ],
)
def test_what_is_no_report_is_refused_in_one_line(tmp_path, content, problem):
    path = tmp_path / "report.json"
    with pytest.raises(UserError) as error:
        Report.read(path) if content is None else read(path, content)
    assert str(error.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(error.value)


def test_bytes_that_are_no_text_and_a_folder_are_refused(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe{}")
    for name in ("binary", "."):
        with pytest.raises(UserError, match="damaged"):
            Report.read(tmp_path / name)
