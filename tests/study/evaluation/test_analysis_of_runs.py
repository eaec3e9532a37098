"""Run folders are analysed whole: transcripts, people's ratings, an audit; runs of one protocol are compared."""

import copy
import csv
import json
import shutil

import numpy as np
import pytest
from rated_run import ARMS, key_of, run_folder, sessions_of
from scored import score, score_of

from cbtrain.cli.main import main
from cbtrain.eval.rating.cue_rater import CUE_RATER_LABEL
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score, write_scores_csv
from cbtrain.transcripts.types import Turn

DOMAINS = [domain.id for domain in load_rubric().domains]
PROTOCOL = {"seed": 7, "patients": ["p"], "judge": {"kind": "llm", "api": {"model": "one"}}, "sessions": {"seeds": 2}}


def call(capsys, *words):
    status = main([*map(str, words)])
    return status, *capsys.readouterr()


def points(session, place, shift=0):
    """Scores that differ by arm, patient and seed, with the tuned arm ahead."""
    base = 2 + (session.arm in ("tuned", ARMS[1])) + (place % 3 == 0) + shift
    return {domain: float(min(6, base + (number + place) % 2)) for number, domain in enumerate(DOMAINS)}


def evaluated(folder, arms=("base", "tuned"), protocol=None, shift=0, judge="judge-1"):
    """A run folder with scores, and with a report that tells evidence and protocol as an evaluation's does."""
    sessions = sessions_of(arms=arms)
    for session in sessions:
        if session.arm == "tuned":  # every run tunes by itself
            session.turns[1] = Turn("therapist", f"Words of {folder.name}.")
    run_folder(folder, sessions)
    scores = [score_of(s, points(s, place, shift), judge) for place, s in enumerate(sessions)]
    write_scores_csv(scores, folder / "scores.csv")
    assert main(["analyze", str(folder), "--out", str(folder), "--draws", "200"]) == 0
    report = json.loads((folder / "report.json").read_text())
    for session in report["sessions"]:
        session["ratings"][0] |= {"evidence": {"agenda": [1]}, "reason": {"agenda": "asked"}}
    report |= {"protocol": protocol or PROTOCOL, "deviations": ["the moon was full"], "title": "A study"}
    (folder / "report.json").write_text(json.dumps(report))
    return folder


def test_a_run_folder_brings_its_transcripts_rubric_and_report(tmp_path, capsys):
    run = evaluated(tmp_path / "run")
    status, out, _ = call(capsys, "analyze", run, "--draws", 200, "--out", tmp_path / "out")
    assert status == 0
    assert "a total of 40 or more" in out
    assert "≥ 6 turns" in out  # lengths are known
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["title"], report["deviations"]) == ("A study", ["the moon was full"])
    (rating,) = report["sessions"][0]["ratings"]
    assert (rating["evidence"], rating["reason"]) == ({"agenda": [1]}, {"agenda": "asked"})
    assert report["sessions"][0]["turns"][1]["text"].startswith("Words 0")
    assert report["analysis"] == json.loads((tmp_path / "out" / "analysis.json").read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    assert "the moon was full" in page
    assert "There is one judge only" in page


def test_failures_are_counted_once_whoever_names_them(tmp_path, capsys):
    """Cards, tables, terminal and the browser's flag tell of the same sessions: ours, and what the 2024 study's
    simulations call theirs."""
    sessions = sessions_of(arms=("base", "tuned"))
    for place, ending in ((0, "Critical Error"), (1, "provider_error"), (2, "Critical Error"), (3, "patient_end")):
        sessions[place].ending, sessions[place].error = ending, None
    run = run_folder(tmp_path / "run", sessions)
    scores = [
        score_of(s, points(s, place))
        for place, s in enumerate(sessions)
        if not s.failed or place == 2  # as one was of the 2024 study
    ]
    write_scores_csv(scores, run / "scores.csv")
    status, out, _ = call(capsys, "analyze", run, "--draws", 200, "--out", tmp_path / "out")
    assert status == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    failed = {arm["name"]: arm["failed"] for arm in report["arms"]}
    assert failed == {arm["name"]: arm["failed"] for arm in report["analysis"]["completion"]["arms"]}
    assert sum(failed.values()) == 2
    flagged = [session for session in report["sessions"] if "failed" in session["flags"]]
    assert [session["ending"] for session in flagged] == ["Critical Error", "provider_error"]
    assert {session["status"] for session in flagged} == {"not rated: the session failed"}
    (planned,) = {line.split()[2] for line in out.splitlines() if line.split()[:1] == ["base"] and "%" in line}
    assert planned == str(failed["base"])


def test_a_failed_session_that_one_of_a_panel_rated_is_not_counted_as_failed(tmp_path, capsys):
    sessions = sessions_of(arms=("base", "tuned"), patients=[f"p{place}" for place in range(6)])
    sessions[0].ending = "Critical Error"
    run = run_folder(tmp_path / "run", sessions)
    scores = [
        score_of(s, points(s, place), judge)
        for place, s in enumerate(sessions)
        for judge in ("one", "two")
        if place or judge == "one"
    ]
    write_scores_csv(scores, run / "scores.csv")
    assert call(capsys, "analyze", run, "--draws", 200, "--out", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [arm["failed"] for arm in report["arms"]] == [0, 0]
    assert [arm["sessions"] for arm in report["analysis"]["length"]["arms"]] == [12, 12]
    assert report["sessions"][0]["flags"] == ["not_rated"]
    told = (tmp_path / "out" / "report.md").read_text()
    assert (
        "Difference in the share of sessions that failed, in percentage points:\n\n- tuned − base: 0.00 (the same "
        in told
    )
    assert "that failed, in percentage points" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.fault("F7")
def test_people_become_judges_and_the_audit_is_shown(tmp_path, capsys):
    run = evaluated(tmp_path / "run", judge="cue")
    first = json.loads((run / "report.json").read_text())
    assert call(capsys, "rate", "export", run, "--out", tmp_path / "forms", "--raters", 1)[0] == 0
    sheet = tmp_path / "forms" / "rater-1" / "ratings.csv"
    rows = list(csv.DictReader(sheet.open()))
    of = {row["code"]: row["session_id"] for row in key_of(tmp_path / "forms")["forms"][0]["sessions"]}
    sessions = {session.id: (session, place) for place, session in enumerate(sessions_of(arms=("base", "tuned")))}
    for row in rows:
        row |= {"rater": "Ann", "note": "saw it"} | points(*sessions[of[row["session"]]], shift=1)
    with sheet.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    assert call(capsys, "rate", "import", sheet, "--key", tmp_path / "forms" / "key.json")[0] == 0
    audit = {"sessions": 4, "rater": {"label": "judge"}, "probes": [
        {"text": "agenda left out", "copies": 4, "findings": [
            {"measure": "agenda", "expected": "falls", "shift": -1.5, "ci_low": -2.0, "ci_high": -1.0,
             "verdict": "as expected"}]}]}  # fmt: skip
    (run / "audit").mkdir()
    (run / "audit" / "audit.json").write_text(json.dumps(audit))
    fresh = json.loads((run / "report.json").read_text())  # the import has written it anew, with its draws
    assert fresh["analysis"]["bootstrap"] == first["analysis"]["bootstrap"]
    assert fresh["analysis"]["contrasts"] == first["analysis"]["contrasts"]
    assert fresh["rater"]["label"] == f"{CUE_RATER_LABEL} (for comparison: human: Ann)"
    assert "People and machine judges" in (run / "report.html").read_text()
    assert "People and machine judges" in (run / "report.md").read_text()
    alone = fresh["analysis"]["contrasts"]
    status, out, _ = call(capsys, "analyze", run, "--draws", 200, "--out", run)
    assert status == 0
    shown = " ".join(out.split())
    assert "Agreement of judges on the total" in shown
    assert "People and machine judges" in shown
    assert "human: Ann, cue" in shown
    assert CUE_RATER_LABEL in shown
    report = json.loads((run / "report.json").read_text())
    # People are secondary to the judge that was planned: they change no figure of its.
    assert report["analysis"]["panel"] == {
        "judges": ["cue"], "beside": ["human: Ann"], "pooled": False, "linked": True, "rotating": False,
    }  # fmt: skip
    assert report["analysis"]["contrasts"] == alone
    judges = [rating["judge"] for rating in report["sessions"][0]["ratings"]]
    assert judges == ["cue", "human: Ann"]
    assert report["sessions"][0]["ratings"][1]["reason"]["note"] == "saw it"
    assert report["rater"]["label"] == f"{CUE_RATER_LABEL} (for comparison: human: Ann)"
    (between,) = report["analysis"]["agreement"]["between"]
    # One point more in every domain, but where the scale ends.
    assert between["total"]["icc_consistency"]["estimate"] == pytest.approx(1.0)
    assert report["analysis"]["agreement"]["severity"]["human: Ann"] == pytest.approx(5.5)
    page = (run / "report.html").read_text()
    assert "agenda left out" in page
    assert "Tests of the judge" not in page  # an audit of an older version has none
    assert "as expected" in page
    assert call(capsys, "judge", "audit", "--only", "content", "--sessions", 6, "--out", run / "audit")[0] == 0
    assert call(capsys, "analyze", run, "--draws", 200, "--out", run)[0] == 0
    newer = (run / "report.html").read_text()
    assert "Tests of the judge" in newer
    assert "several of these faults at once" in newer
    only = json.loads(call(capsys, "analyze", run, "--draws", 200, "--judge", "human: Ann", "--json")[1])
    assert (only["judges"], only["ratings"]) == (["human: Ann"], 12)
    status, _, err = call(capsys, "analyze", run, "--judge", "Ann")
    assert status == 2
    assert "no rating by 'Ann'. The judges are: cue, human: Ann" in err
    text = (run / "report.json").read_text()
    (run / "report.json").write_text("{")
    status, out, _ = call(capsys, "rate", "import", sheet, "--key", tmp_path / "forms" / "key.json")
    assert status == 0
    assert "note: the ratings are kept, but the report could not be written anew" in out
    assert f"then: cbtrain analyze {run} --out {run}" in out
    (run / "report.json").write_text(text)
    before = (run / "report.json").read_bytes()
    for file, damaged in ((run / "audit" / "audit.json", "damaged ("), (run / "human_notes.jsonl", "damaged line")):
        whole = file.read_bytes()
        file.write_bytes(whole[: len(whole) // 2])
        status, _, err = call(capsys, "analyze", run, "--out", run)
        assert (status, f"{file.name}:" in err, damaged in err) == (2, True, True), err
        file.write_bytes(whole)
    assert (run / "report.json").read_bytes() == before


def test_runs_of_one_protocol_are_compared(tmp_path, capsys):
    one, other = evaluated(tmp_path / "one"), evaluated(tmp_path / "other", shift=1)
    capsys.readouterr()
    status, out, _ = call(capsys, "compare", one, other, "--draws", 200, "--out", tmp_path / "both")
    assert status == 0
    found = json.loads((tmp_path / "both" / "analysis.json").read_text())
    contrasts = {row["id"]: row for row in found["contrasts"]}
    assert contrasts["tuned: one − other"]["estimate"] == pytest.approx(-11.0)
    assert contrasts["one: tuned − base"]["estimate"] == pytest.approx(contrasts["other: tuned − base"]["estimate"])  # fmt: skip
    assert found["completion"]["arms"][0]["planned"] == 6
    report = json.loads((tmp_path / "both" / "report.json").read_text())
    assert [arm["label"] for arm in report["arms"]] == ["one base", "one tuned", "other base", "other tuned"]
    assert len({session["id"] for session in report["sessions"]}) == 24
    assert report["sessions"][0]["ratings"][0]["reason"] == {"agenda": "asked"}
    assert report["protocol"] == PROTOCOL
    assert "tuned: one − other" in out
    same = "6 sessions of other (base) are identical to sessions of one"
    assert same in " ".join(out.split())
    assert same in (tmp_path / "both" / "report.md").read_text()
    shutil.copytree(one, tmp_path / "copy")
    status, _, err = call(capsys, "compare", one, tmp_path / "copy")
    assert (status, err.count("\n")) == (2, 1)
    assert f"copy: all its sessions are identical to those of {one}" in err


@pytest.mark.fault("G5")
def test_runs_that_trained_patients_of_their_own_are_compared_and_a_note_says_so(tmp_path, capsys):
    """As `cbtrain run model.path=…` makes them: another base model has another patient."""
    own = [PROTOCOL | {"patient": {"played by": f"an adapter with weights {weights}"}} for weights in ("aa", "bb")]
    one, other = (
        evaluated(tmp_path / name, protocol=protocol) for name, protocol in zip(("one", "other"), own, strict=True)
    )
    capsys.readouterr()
    status, out, err = call(capsys, "compare", one, other, "--draws", 200, "--out", tmp_path / "both")
    assert (status, err) == (0, "")
    told = "the patients of one and other are played by different models (each run trained its own)"
    assert told in " ".join(out.split())
    assert told in (tmp_path / "both" / "report.md").read_text()
    report = json.loads((other / "report.json").read_text())
    report["protocol"]["patient"]["played by"] = {"model": "an API's"}
    (other / "report.json").write_text(json.dumps(report))
    status, _, err = call(capsys, "compare", one, other)
    assert (status, err.count("\n")) == (2, 1)
    assert "patient.played by (an adapter with weights aa and" in err


def test_runs_of_other_protocols_are_refused_and_the_differences_named(tmp_path, capsys):
    changed = copy.deepcopy(PROTOCOL) | {"seed": 8}
    changed["judge"]["api"]["model"] = "two"
    one, other = evaluated(tmp_path / "one"), evaluated(tmp_path / "other", protocol=changed)
    capsys.readouterr()
    status, out, err = call(capsys, "compare", one, other, "--out", tmp_path / "both")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert f"its protocol differs from that of {one}: seed (7 and 8); judge.api.model (one and two)" in err
    assert not (tmp_path / "both").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["compare", "one"], "at least two different runs are needed"),
        (["compare", "one", "./one"], "at least two different runs are needed"),
        (["compare", "one", "bare"], "bare: not an evaluated run"),
        (["compare", "one", "old"], "its report does not name the protocol"),
        (["compare", "one", "torn"], "damaged"),
        (["compare", "one", "newer"], "written by a newer cbtrain"),
        (["analyze", "one"], "damaged"),
        (["analyze", "bare"], "bare: no scores.csv in it"),
        (["analyze", "one", "one"], "occurs twice"),
        (["analyze", "one", "--transcripts", "elsewhere"], "it has no session of a rated arm"),
        (["analyze", "one", "--rubric", "none"], "none: no such rubric"),
        (["analyze", "high.csv"], "agenda of session 0 of patient p with tuned is 7, outside 0 to 6"),
        (["analyze", "nan.csv"], "nan.csv:2: agenda: 'nan' is not a score"),
        (["analyze", "nobody.csv"], "nobody.csv:2: judge is empty"),
        (["analyze", "all.csv", "other-items.csv"], "item 'agenda' is in one table only"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(words, problem, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    evaluated(tmp_path / "one")
    if words == ["analyze", "one"]:
        (tmp_path / "one" / "report.json").write_text('{"schema": "cbtrain.report/2", ')
    written = (("old", "cbtrain.report/1"), ("newer", "cbtrain.report/99"))
    files = [(name, json.dumps({"schema": schema})) for name, schema in written]
    for name, content in [*files, ("torn", '{"schema"')]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "report.json").write_text(content)
    (tmp_path / "bare").mkdir()
    run_folder(tmp_path / "elsewhere", sessions_of())
    scores = [score("tuned", "p", dict.fromkeys(DOMAINS, 3.0), session_id="s")]
    for name, (old, new) in {"high": (",3,", ",7,"), "nan": (",3", ",nan"), "nobody": (",j,", ",,")}.items():
        write_scores_csv(scores, tmp_path / "all.csv")
        head, row = (tmp_path / "all.csv").read_text().splitlines()
        row = row.replace(old, new, 1).replace(",33", ",37" if name == "high" else ",33")
        (tmp_path / f"{name}.csv").write_text(f"{head}\n{row}\n")
    write_scores_csv(
        [Score(session_id="s", arm="t", patient="p", seed=0, judge="j", repeat=0, status="ok", domains={"mood": 3.0})],
        tmp_path / "other-items.csv",
    )
    capsys.readouterr()
    status, out, err = call(capsys, *words, "--out", "made")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert problem in err
    assert not (tmp_path / "made").exists()


def test_where_everything_is_known_no_figure_is_a_gap(tmp_path, capsys):
    """Two judges, repeats, lengths: what the tables look for is what the analysis gives."""
    random = np.random.default_rng(0)
    sessions = sessions_of(patients=[f"p{place}" for place in range(7)], arms=("base", "tuned"), seeds=3)
    scores = []
    for session in sessions:
        session.turns = session.turns * int(random.integers(1, 5))
        level = 2.5 + 0.8 * (session.arm == "tuned") + random.normal(0, 0.5)
        for judge in ("one", "two"):
            for repeat in range(2):
                points = {d: float(np.clip(round(level + random.normal(0, 0.7)), 0, 6)) for d in DOMAINS}
                scores.append(score_of(session, points, judge, repeat=repeat))
    run = run_folder(tmp_path / "run", sessions)
    write_scores_csv(scores, run / "scores.csv")
    status, out, _ = call(capsys, "analyze", run, "--draws", 200, "--out", tmp_path / "out")
    assert (status, "n/a" in out) == (0, False)
    assert "n/a" not in (tmp_path / "out" / "report.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert "n/a" not in page[page.index('id="result') : page.index('id="making"')]


def test_people_are_secondary_to_the_judge_of_several_tables(tmp_path, capsys):
    """One judge rated in two goes, and Ann as much as it."""
    domains = dict.fromkeys(DOMAINS, 3.0)
    for name, judge, patients in (("one", "m", "pq"), ("two", "m", "rs"), ("human_scores", "human: Ann", "pqrs")):
        scores = [
            Score(
                session_id=f"{p}.{arm}", arm=arm, patient=p, seed=0, judge=judge, repeat=0, status="ok", domains=domains
            )
            for p in patients
            for arm in ("base", "tuned")
        ]
        write_scores_csv(scores, tmp_path / f"{name}.csv")
    tables = [tmp_path / f"{name}.csv" for name in ("one", "two", "human_scores")]
    found = json.loads(call(capsys, "analyze", *tables, "--draws", 200, "--json")[1])
    assert (found["panel"]["judges"], found["panel"]["beside"]) == (["m"], ["human: Ann"])
