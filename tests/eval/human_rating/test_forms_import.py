"""Filled forms come back as one more judge, and whatever does not fit is refused with the table untouched."""

import csv
import json
import math

import numpy as np
import pytest
from rated_run import DOMAINS, key_of, run_folder, sessions_of

from cbtrain.cli.main import main
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.rating.scores import Score, read_scores_csv, write_scores_csv


@pytest.fixture
def made(tmp_path):
    """A run's forms for two raters."""
    run_folder(tmp_path / "run", sessions_of(seeds=1))
    assert main(["rate", "export", str(tmp_path / "run"), "--out", str(tmp_path / "forms")]) == 0
    return tmp_path


def bring(made, *forms, status=0, more=()):
    arguments = ["rate", "import", *forms, "--key", made / "forms" / "key.json", *more]
    assert main([str(word) for word in arguments]) == status


def ratings_of(made, number=1, rater="Ann", **scores):
    """What the page of rater ``number`` downloads with every domain of every session scored 3, or as ``scores``."""
    form = key_of(made / "forms")["forms"][number - 1]
    sessions = [
        {"code": one["code"], "ratings": {name: {"score": scores.get(name, 3), "evidence": []} for name in DOMAINS}}
        for one in form["sessions"]
    ]
    return {"schema": "cbtrain.ratings/1", "form": form["id"], "rater": rater, "sessions": sessions}


def save(made, content, name="ann.json"):
    path = made / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def table_of(made):
    return {(score.judge, score.session_id): score for score in read_scores_csv(made / "run" / "human_scores.csv")}


def test_a_page_comes_back_session_by_session(made, capsys):
    ratings = ratings_of(made)
    for place, session in enumerate(ratings["sessions"]):
        session["ratings"]["agenda"] = {"score": place, "evidence": [2, 6, 2]}
    ratings["sessions"][1]["ratings"]["homework"] = {"score": "n/a", "evidence": []}
    del ratings["sessions"][2]["ratings"]["pacing"]["score"]
    ratings["sessions"][3]["ratings"] = {"agenda": {"evidence": [1]}}
    ratings["sessions"][4]["note"] = "Kept to the agenda,\nmostly.  "
    capsys.readouterr()
    bring(made, save(made, ratings))
    said = capsys.readouterr().out
    assert "human: Ann" in said
    counts = "3 sessions rated, 1 with domains that cannot be rated (unratable), 1 rated in part (truncated, their gaps"
    assert counts in said
    assert "1 not rated (no row)" in said
    scores = table_of(made)
    hidden = key_of(made / "forms")["forms"][0]["sessions"]
    assert len(scores) == 5
    for place in (0, 1, 2, 4, 5):
        own = scores["human: Ann", hidden[place]["session_id"]]
        key = hidden[place]
        assert (own.arm, own.patient, own.seed, own.repeat) == (key["arm"], key["patient"], key["seed"], 0)
        assert own.domains["agenda"] == place
        assert own.domains["feedback"] == 3
    by_place = [scores.get(("human: Ann", one["session_id"])) for one in hidden]
    assert [one and one.status for one in by_place] == ["ok", "unratable", "truncated", None, "ok", "ok"]
    assert by_place[1].domains["homework"] is None
    assert by_place[2].domains["pacing"] is None
    assert by_place[2].total is None
    notes = [json.loads(line) for line in (made / "run" / "human_notes.jsonl").read_text().splitlines()]
    kept = {note["session_id"]: Score(**note) for note in notes}
    assert kept[hidden[0]["session_id"]].evidence == {"agenda": [1, 5]}
    assert kept[hidden[2]["session_id"]].stopped_at == "pacing"
    assert kept[hidden[4]["session_id"]].reason == {"note": "Kept to the agenda,\nmostly."}
    assert list(kept[hidden[0]["session_id"]].domains.values())[:2] == [0, 3]


def fill(made, number=1, separator=",", rater="Ben", value=lambda place, name: "4"):
    path = made / "forms" / f"rater-{number}" / "ratings.csv"
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[0]["rater"] = rater
    for place, row in enumerate(rows):
        row |= {name: value(place, name) for name in DOMAINS}
    with path.open("w", encoding="utf-8-sig", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), delimiter=separator)
        table.writeheader()
        table.writerows(rows)
    return path


def test_a_spreadsheet_says_the_same_as_a_page(made):
    values = {"agenda": "5,0", "feedback": "2.0", "pacing": " N/A ", "homework": ""}
    bring(made, fill(made, separator=";", value=lambda place, name: values.get(name, "4")))
    scores = list(table_of(made).values())
    assert {score.judge for score in scores} == {"human: Ben"}
    assert len(scores) == 6
    for score in scores:
        assert score.status == "truncated"
        expected = {"agenda": 5.0, "feedback": 2.0, "pacing": None, "homework": None}
        assert score.domains == {name: expected.get(name, 4.0) for name in DOMAINS}


def test_two_raters_and_the_runs_judge_share_a_table_that_analyze_reads(made):
    llm = [
        Score(
            session_id=one["session_id"],
            arm=one["arm"],
            patient=one["patient"],
            seed=one["seed"],
            judge="cue",
            repeat=0,
            status="ok",
            domains=dict.fromkeys(DOMAINS, 1.5),
        )
        for one in key_of(made / "forms")["forms"][0]["sessions"]
    ]
    table = made / "run" / "scores.csv"
    write_scores_csv(llm, table)
    before = table.read_text()
    bring(made, save(made, ratings_of(made)), fill(made, number=2), more=["--out", table])
    assert table.read_text().startswith(before)
    found = read_ratings(table)
    assert sorted(set(found.judge)) == ["cue", "human: Ann", "human: Ben"]
    assert np.allclose([found.total[found.judge == judge].mean() for judge in sorted(set(found.judge))], [16.5, 33, 44])
    assert math.isfinite(found.total.sum())
    assert (made / "run" / "scores_notes.jsonl").exists()


def test_the_same_form_again_takes_the_place_of_its_own_rows_alone(made, capsys):
    half = ratings_of(made)
    half["sessions"] = half["sessions"][:4]
    bring(made, save(made, half), fill(made, number=2))
    notes = made / "run" / "human_notes.jsonl"
    others = [line for line in notes.read_text().splitlines() if '"human: Ben"' in line]
    bring(made, save(made, ratings_of(made, agenda=6)))
    assert "replace 4 rows of an earlier import of the same form" in capsys.readouterr().out
    scores = table_of(made)
    assert len(scores) == 12
    assert {score.domains["agenda"] for (judge, _), score in scores.items() if judge == "human: Ann"} == {6}
    lines = notes.read_text().splitlines()
    assert len(lines) == 12
    assert [line for line in lines if '"human: Ben"' in line] == others


def test_one_name_on_two_forms_or_two_names_on_one_are_refused(made, capsys):
    bring(made, save(made, ratings_of(made)))
    before = {path.name: path.read_bytes() for path in (made / "run").iterdir()}
    bring(made, save(made, ratings_of(made, number=2), "other.json"), status=2)
    assert "by 'human: Ann' that is not from this form" in capsys.readouterr().err
    bring(made, save(made, ratings_of(made, rater="Cas")), status=2)
    assert "was already imported as 'human: Ann'" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in (made / "run").iterdir()} == before
    bring(made, made / "other.json", more=["--rater", "Ann  B."])
    assert {judge for judge, _ in table_of(made)} == {"human: Ann", "human: Ann B."}


def test_without_a_run_the_table_lies_beside_the_key(tmp_path, capsys):
    assert main(["rate", "export", "sample", "--out", str(tmp_path / "forms"), "--sessions", "2"]) == 0
    bring(tmp_path, save(tmp_path, ratings_of(tmp_path)))
    assert len(read_scores_csv(tmp_path / "forms" / "human_scores.csv")) == 2


def changed(**changes):
    return lambda made: save(made, ratings_of(made) | changes)


def with_rating(name="agenda", session=0, **rating):
    def make(made):
        ratings = ratings_of(made)
        ratings["sessions"][session]["ratings"][name] = {"score": 3} | rating
        return save(made, ratings)

    return make


def with_sessions(change):
    def make(made):
        ratings = ratings_of(made)
        ratings["sessions"] = change(ratings["sessions"])
        return save(made, ratings)

    return make


def edited(*swaps):
    """The filled CSV with words exchanged."""

    def make(made):
        path = fill(made)
        text = path.read_text(encoding="utf-8")
        for old, new in swaps:
            assert old in text
            text = text.replace(old, new, 1)
        path.write_text(text, encoding="utf-8")
        return path

    return make


def as_text(old, new):
    """The download with words exchanged."""

    def make(made):
        path = save(made, ratings_of(made))
        text = path.read_text(encoding="utf-8")
        assert old in text
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return make


def raw(content):
    def make(made):
        (made / "form").write_bytes(content)
        return made / "form"

    return make


def foreign_code(made):
    ratings = ratings_of(made)
    ratings["sessions"][0]["code"] = key_of(made / "forms")["forms"][1]["sessions"][0]["code"]
    return save(made, ratings)


BAD = {
    "missing": (lambda made: made / "nothing.json", "no such file"),
    "folder": (lambda made: made, "a folder"),
    "empty": (raw(b" \n"), "empty"),
    "page": (lambda made: made / "forms/rater-1/form.html", "a web page, not ratings"),
    "workbook": (raw(b"PK\x03\x04..."), "a workbook, not a CSV"),
    "no encoding": (raw("form;Sch\x81n".encode("latin-1")), "not UTF-8"),
    "malformed JSON": (raw(b'{"schema": '), "malformed JSON"),
    "deep JSON": (raw(b'{"a":' * 100_000), "malformed JSON"),
    "a domain twice": (
        as_text('"agenda": {', '"agenda": {"score": 1}, "agenda": {'),
        "JSON (key 'agenda' comes twice)",
    ),
    "two raters": (as_text('"rater": ', '"rater": "Zoe", "rater": '), "malformed JSON (key 'rater' comes twice)"),
    "400 digits": (with_rating(score=10**400), "000… is not a point of the scale"),
    "underscore": (with_rating(score="0_3"), "'0_3' is not a point"),
    "another script's digit": (with_rating(score="٣"), "'٣' is not a point"),
    "infinite": (with_rating(score="1e999"), "'1e999' is not a point"),
    "sheet: underscore": (edited((",4,", ",0_3,")), "'0_3' is not a point"),
    "schema": (changed(schema="cbtrain.ratings/9"), "not the ratings of a form"),
    "no sessions": (changed(sessions=None), "sessions: must be a list"),
    "form": (changed(form="XXXXXX"), "form 'XXXXXX' does not belong to this key"),
    "rater": (changed(rater="  "), "the rater's name is missing. Give it with --rater NAME."),
    "long rater": (changed(rater="a" * 61), "is not a name of at most 60"),
    "unprintable rater": (changed(rater="a\x1b[31m"), "is not a name of at most 60"),
    "code": (with_sessions(lambda all: [all[0] | {"code": "ABCD"}]), "has no session 'ABCD'"),
    "code of another form": (foreign_code, "It belongs to form"),
    "double": (with_sessions(lambda all: [*all, all[0]]), "comes twice"),
    "nothing rated": (with_sessions(lambda all: [one | {"ratings": {}} for one in all]), "no session is rated in it"),
    "domain": (with_rating("agneda"), "no such domain 'agneda'. Did you mean 'agenda'?"),
    "above": (with_rating(score=7), "agenda: 7 is not a point of the scale. Give a whole number from 0 to 6"),
    "below": (with_rating(score=-1), "-1 is not a point"),
    "between": (with_rating(score=3.5), "3.5 is not a point"),
    "no number": (with_rating(score=float("nan")), "nan is not a point"),
    "truth value": (with_rating(score=True), "sessions.0.ratings.agenda.score"),
    "turn": (with_rating(evidence=[7]), "there is no turn 7. Its turns are 1 to 6."),
    "turn 0": (with_rating(evidence=[0]), "there is no turn 0"),
    "sheet: point": (edited((",4,", ",9,")), "ratings.csv:2, agenda: '9' is not a point"),
    "sheet: word": (edited((",4,", ",good,")), "'good' is not a point"),
    "sheet: column": (edited(("agenda", "Agenda")), "column 'agenda' is missing"),
    "sheet: more columns": (edited(("note", "note,mood")), "column 'mood' is not a column of the form"),
    "sheet: beyond": (edited((",4,\n", ",4,,,9\n")), "ratings.csv:2: 17 cells, but 15 columns"),
    "sheet: raters": (edited((",,", ",Eve,")), "two raters, 'Ben' and 'Eve'"),
    "sheet: no rater": (edited((",Ben,", ",,")), "the rater's name is missing"),
    "sheet: no rows": (
        lambda made: raw(",".join(["form", "rater", "session", *DOMAINS, "note"]).encode())(made),
        "no s",
    ),
}


@pytest.mark.fault("F12")
@pytest.mark.parametrize("case", BAD)
def test_a_form_that_does_not_fit_is_one_line_and_nothing_is_written(case, made, capsys):
    make, message = BAD[case]
    bring(made, save(made, ratings_of(made, number=2, rater="Zoe"), "good.json"))
    form = make(made)
    capsys.readouterr()
    before = {path: path.read_bytes() for path in (made / "run").iterdir()}
    bring(made, save(made, ratings_of(made, number=2, rater="Zoe", agenda=1), "good.json"), form, status=2)
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("cbtrain: ")
    assert len(err.strip().splitlines()) == 1
    assert {path: path.read_bytes() for path in (made / "run").iterdir()} == before


def test_bad_keys_tables_and_options(made, capsys):
    form = save(made, ratings_of(made))

    def refused(message, *arguments):
        assert main(["rate", "import", str(form), *map(str, arguments)]) == 2
        assert message in capsys.readouterr().err

    key, table = made / "forms" / "key.json", made / "t.csv"
    refused("nothing.json: no such file", "--key", made / "nothing.json")
    refused("not a key", "--key", made)
    refused("not a key of rating forms", "--key", form)
    (made / "deep.json").write_text('{"a":' * 100_000)
    refused("not a key (nested too deep)", "--key", made / "deep.json")
    (made / "run" / "human_forms.json").write_text('{"a":' * 100_000)
    refused("malformed JSON (nested too deep)", "--key", key)
    (made / "run" / "human_forms.json").unlink()
    broken = key_of(made / "forms")
    refused("its content has changed", "--key", save(made, broken | {"seed": 7}, "broken.json"))
    del broken["checksum"]
    broken["forms"][0]["sessions"][0].pop("arm")
    refused("forms.0.sessions.0.arm: missing", "--key", save(made, broken, "broken.json"))
    refused("one name, but 2 forms", form, "--key", key, "--rater", "Ann")
    refused("is in", form, "--key", key)
    refused("--rater: the rater's name is missing", "--key", key, "--rater", " ")
    one = key_of(made / "forms")["forms"][0]["sessions"][0]
    other = Score(
        session_id=one["session_id"],
        arm=one["arm"],
        patient=one["patient"],
        seed=one["seed"],
        judge="x",
        repeat=0,
        status="ok",
        domains={"warmth": 3.0},
    )
    write_scores_csv([other], table)
    refused("its domains are not those of the forms", "--key", key, "--out", table)
    other.domains, other.arm = dict.fromkeys(DOMAINS, 3.0), "elsewhere"
    write_scores_csv([other], table)
    refused("has another arm, patient or seed there", "--key", key, "--out", table)
    table.write_text(table.read_text() + "short,row\n")
    refused("t.csv:3: ", "--key", key, "--out", table)
    table.write_bytes(b"\x81")
    refused("t.csv: not UTF-8", "--key", key, "--out", table)
    (made / "run" / "human_notes.jsonl").write_text("{}\n[]\n")
    refused("human_notes.jsonl:1: damaged line", "--key", key)
    (made / "run" / "human_notes.jsonl").unlink()
    (made / "run" / "human_forms.json").write_text('{"forms": {"A": 1}}')
    refused("human_forms.json: forms.A: ", "--key", key)
    (made / "run").rename(made / "moved")
    refused("the run folder of these forms does not exist. Name a table with --out.", "--key", key)
    assert not list(made.glob("human_*"))
