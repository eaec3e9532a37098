"""``cbtrain analyze`` on the 2024 study's scores and on tables of our own."""

import csv
import json

import forked
import pytest
from places import SCORES2024, needs_scores
from scored import score

from cbtrain.cli.main import main
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score, write_scores_csv


def analyze(capsys, *words):
    status = main(["analyze", *map(str, words)])
    return status, *capsys.readouterr()


def table(path, rows):
    """Scores of (arm, patient, total) of one item; None is no score."""
    scores = [score(arm, p, {"agenda": value}) for arm, p, value in rows]
    write_scores_csv(scores, path)
    return path


@needs_scores
def test_the_published_analysis_as_json(capsys):
    status, out, err = analyze(capsys, SCORES2024, "--protocol", "paper", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["protocol"] == "tahir2024"
    assert analyze(capsys, SCORES2024, "--protocol", "tahir2024", "--json")[1] == out
    effect = {term["term"]: term for term in found["fixed_effects"]}["variant: instruct"]
    assert {"estimate", "se", "ci_low", "ci_high", "p"} <= set(effect)
    assert f"{effect['estimate']:.3f}" == "-11.326"
    assert {(group["n"], f"{group['mean']:.2f}", f"{group['sd']:.2f}") for group in found["groups"]} >= {
        (100, "67.86", "7.24"),
        (93, "47.20", "14.09"),
    }


@needs_scores
def test_the_default_analysis_repeats_and_is_written(capsys, tmp_path):
    _, out, _ = analyze(capsys, SCORES2024, "--json", "--draws", "500", "--out", tmp_path / "out")
    found = json.loads(out)
    assert found == json.loads((tmp_path / "out" / "analysis.json").read_text())
    assert found == json.loads(analyze(capsys, SCORES2024, "--json", "--draws", "500")[1])
    keys = {"id", "estimate", "se", "ci_low", "ci_high", "p", "p_adjusted", "method"}
    assert all(keys <= set(contrast) for contrast in found["contrasts"])
    gains = {row["item"]: row["estimate"] for row in found["items"] if row["contrast"].startswith("Llama")}
    assert len(gains) == 11
    assert gains["Agenda"] == pytest.approx(5.79 - 3.92)
    assert f"{found['agreement']['halo'][0]['alpha']['estimate']:.3f}" == "0.909"


@needs_scores
def test_what_a_person_sees(capsys):
    _, out, _ = analyze(capsys, SCORES2024, "--draws", "500")
    assert "Llama: tuned − instruct" in out
    assert "3.20 to 12.86" in out
    assert "note: 5 patients: a sign-flip test cannot give p below 0.0625" in out
    assert "note: Mistral: tuned − instruct; all bases: tuned − instruct: left out: 7 of the sessions" in out
    assert (
        "No difference between bases is shown in what tuning changes (Hotelling's test over 5 patients, F(2, 3) = "
        in out
    )
    _, out, _ = analyze(capsys, SCORES2024, "--protocol", "paper")
    assert "−11.326" in out
    assert "optimizer powell" in " ".join(out.split())


def test_gaps_are_marked_and_nothing_is_silent(capsys, tmp_path):
    one = table(tmp_path / "one.csv", [("tuned", "p", 3.0), ("base", "p", 2.0)])
    status, out, _ = analyze(capsys, one)
    assert status == 0
    assert "one patient: no interval can be given" in out
    assert "n/a" in out
    assert analyze(capsys, one, "--out", tmp_path / "out")[0] == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Scores of 1 patient, analysed" in page
    assert (
        "No difference can be shown between Tuned therapist and Base model: +1.00 point, and no interval can be given."
        in page
    )
    alone = table(tmp_path / "alone.csv", [("tuned", "p", 3.0), ("tuned", "q", None)])
    status, out, _ = analyze(capsys, alone, "--json")
    found = json.loads(out)
    assert (found["contrasts"], found["ratings_without_total"]) == ([], {"tuned": 1})


def test_statuses_of_tables_alone_are_kept(capsys, tmp_path):
    scores = [
        score(arm, p, {"agenda": None if status != "ok" else 3.0}, status=status)
        for arm in ("base", "tuned")
        for p, status in (("p", "ok"), ("q", "refused"), ("r", "truncated"))
    ]
    write_scores_csv(scores, tmp_path / "scores.csv")
    assert analyze(capsys, tmp_path / "scores.csv", "--out", tmp_path / "out")[0] == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [session["status"] for session in report["sessions"]] == ["ok", "refused", "truncated"] * 2


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["none.csv"], "none.csv: no such file"),
        (["one.csv", "--protocol", "paper"], "one.csv: the published analysis needs at least two bases"),
        (["torn.csv"], "has a control character"),
        (["one.csv", "--draws", "100000000000"], "--draws: 100,000,000,000 is too many"),
        (["one.csv", "--draws", "3"], "--draws: 3 is too few"),
        (["one.csv", "--seed", "-3"], "--seed: -3 is below 0"),
    ],
)
def test_bad_input_is_one_line(words, problem, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    table(tmp_path / "one.csv", [("tuned", "p", 3.0), ("base", "p", 2.0)])
    table(tmp_path / "torn.csv", [("tu\nned", "p", 3.0), ("base", "p", 2.0)])
    status, out, err = analyze(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert problem in err


HEAD = "session_id,arm,patient,seed,judge,repeat,status"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{HEAD},agenda,total\ns,a,p,0,j,0,ok,,3\n", "t.csv:2: there is a total (3), but a domain has no score"),
        (f"{HEAD},agenda,total\n\n\ns,a,p,0,j,0,ok,x,3\n", "t.csv:4: agenda: 'x' is not a score"),
        (f"{HEAD},agenda,total\ns,a,p,0,j,0,ok,1_2,12\n", "t.csv:2: agenda: '1_2' is not a score"),
        (f"{HEAD},agenda,total\ns,a,p,0,j,0,ok,\u0663,3\n", "t.csv:2: agenda: '\u0663' is not a score"),
        (f"{HEAD},agenda,total\ns,a,p,0,j,0,ok,1e999,3\n", "t.csv:2: agenda: '1e999' is not a score"),
        (f"{HEAD},age\x1bnda,total\ns,a,p,0,j,0,ok,1,1\n", "t.csv: column 'age\\x1bnda' has a control character"),
        (f",{HEAD},agenda,total\n7,s,a,p,0,j,0,ok,1,\n", "t.csv: column 1 has no name"),
        (f"{HEAD},agenda,total\ns,a,p,1_0,j,0,ok,1,1\n", "t.csv:2: seed: '1_0' is not a whole number"),
        (f"{HEAD},agenda,total\ns,a,p,0,j,-1,ok,1,1\n", "t.csv:2: repeat: -1 is below 0"),
        (f"{HEAD},agenda,total\ns,a,p,{'9' * 5000},j,0,ok,1,1\n", "is too large"),
        (f"{HEAD},agenda,total\ns,a,p\0,0,j,0,ok,1,1\n", "t.csv:2: patient 'p\\x00' has a control character"),
        (f"{HEAD},agenda,total\ns,a\u202eb,p,0,j,0,ok,1,1\n", "t.csv:2: arm 'a\\u202eb' has a control character"),
        (f"{HEAD},agenda,total\ns,a,p,0,j,0,ok,1,1\ns,a,q,0,j,0,ok,1,1\n", "two sessions have session_id 's'"),
        (f"{HEAD},agenda,total\ns,a,p,0,j,0,ok,1,1\nz,a,p,0,k,0,ok,1,1\n", "session_ids 's' and 'z' have the same arm"),
        (f"{HEAD},agenda,total\ns,é\x81,p,0,j,0,ok,1,1\n".encode("latin-1"), "t.csv: not UTF-8"),
        (f'{HEAD},agenda,total\ns,a,p,0,j,0,ok,"1,250",\n', "1,250 in line 2 may be a decimal or thousands"),
        (
            f"{HEAD};agenda;total\ns;a;p;0;j;0;ok;1,5;\nt;a;q;0;j;0;ok;1.250;\n".replace(",", ";", 6),
            "1.250 in line 3 beside 1,5 in line 2 may be a decimal or thousands",
        ),
        (b"PK\x03\x04", "t.csv: a workbook, not a CSV"),
    ],
)
def test_tables_that_cannot_be_trusted_are_refused(text, problem, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    status, out, err = analyze(capsys, "t.csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert problem in err


def test_columns_beside_those_of_the_instrument_are_no_domains(capsys, tmp_path):
    domains = {domain.id: 3.0 for domain in load_rubric().domains}
    scores = [
        Score(
            session_id=f"p.{arm}",
            arm=arm,
            patient="p",
            seed=0,
            judge="j",
            repeat=0,
            status="ok",
            domains=domains | {"mood": 1.0},
        )
        for arm in ("base", "tuned")
    ]
    write_scores_csv(scores, tmp_path / "t.csv")
    status, _, err = analyze(capsys, tmp_path / "t.csv")
    assert (status, "column 'mood' is not a domain of" in err) == (2, True)


def test_what_a_spreadsheet_leaves_blank_is_passed_over(capsys, tmp_path):
    rows = [f"{arm}.{p},{arm},p{p},{p},j,0,ok,{p + 1},{p + 1}" for arm in ("base", "tuned") for p in range(3)]
    (tmp_path / "t.csv").write_text(
        "\n".join(["", f"{HEAD},agenda,total,", *(f"{row}," for row in rows), ",,,,,,,,", "  ", " ,,"])
    )
    status, out, err = analyze(capsys, tmp_path / "t.csv", "--json")
    assert (status, json.loads(out)["ratings"], err) == (0, 6, "")


def test_whole_numbers_may_look_like_those_of_a_data_frame(capsys, tmp_path):
    rows = [f"{arm}.{p},{arm},p{p},{p}.0,j,0.0,ok,{p + 1},{p + 1}" for arm in ("base", "tuned") for p in range(3)]
    (tmp_path / "t.csv").write_text("\n".join([f"{HEAD},agenda,total", *rows]))
    assert analyze(capsys, tmp_path / "t.csv")[0] == 0


@needs_scores
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda rows: [rows[0], [*rows[1], "x"], *rows[2:]], "cells, but"),
        (lambda rows: [rows[0], rows[1][:6], *rows[2:]], "6 cells, but"),
        (
            lambda rows: [[*row, "Mood" if place == 0 else "5"] for place, row in enumerate(rows)],
            "'Mood' is not one of the",
        ),
        (lambda rows: [[*row, "Agenda" if place == 0 else "5"] for place, row in enumerate(rows)], "comes twice"),
        (lambda rows: [rows[0], [*rows[1][:3], "1_0", *rows[1][4:]], *rows[2:]], "'1_0' is not a number"),
        (lambda rows: [rows[0], ["²_x", *rows[1][1:]], *rows[2:]], "no session number in id"),
        (lambda rows: [rows[0], [f"{'7' * 5000}_x", *rows[1][1:]], *rows[2:]], "no session number in id"),
    ],
)
def test_the_authors_table_is_read_as_strictly(change, problem, capsys, tmp_path):
    with SCORES2024.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][0] == "id"
    with (tmp_path / "changed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(change(rows))
    status, out, err = analyze(capsys, tmp_path / "changed.csv")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert problem in err


@needs_scores
def test_a_patient_with_a_space_behind_the_name_is_no_other(capsys, tmp_path):
    with SCORES2024.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    place = rows[0].index("patient_id")
    rows[1][place] += " "
    with (tmp_path / "changed.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    _, out, _ = analyze(capsys, tmp_path / "changed.csv", "--json", "--draws", "100")
    assert json.loads(out)["patients"] == 5


ROWS = [f"{arm}.{p},{arm},{name},{p},j,0,ok,{p + 1}.5,{p + (arm == 'tuned')}.25,"
        for arm in ("base", "tuned") for p, name in enumerate(("Müller", "Zoë", "Ann"))]  # fmt: skip
PLAIN = "\n".join([f"{HEAD},agenda,homework,total", *ROWS, ""])
GERMAN = PLAIN.replace(",", ";").replace(".5", ",5").replace(".25", ",25")
SAVED = {
    "semicolons and decimal commas": GERMAN.encode(),
    "the separator named by Excel": f"sep=;\r\n{GERMAN}".encode("utf-8-sig"),
    "tabs and UTF-16, as Excel's Unicode text": PLAIN.replace(",", "\t").encode("utf-16"),
    "decimal commas in quotes": PLAIN.replace("1.5", '"1,5"').encode(),
    "a comma more in each line": PLAIN.replace("\n", ",\n").encode(),
    "Windows-1252": GERMAN.encode("cp1252"),
}


@pytest.mark.fault("E2")
@pytest.mark.parametrize("saved", SAVED)
def test_tables_of_any_spreadsheet_say_the_same(saved, capsys, tmp_path):
    (tmp_path / "plain.csv").write_text(PLAIN)
    (tmp_path / "saved.csv").write_bytes(SAVED[saved])
    plain, other = (
        json.loads(analyze(capsys, tmp_path / f"{name}.csv", "--json", "--draws", "100")[1])
        for name in ("plain", "saved")
    )
    guessed = [note for note in other["notes"] if "was read as Windows-1252" in note]
    assert bool(guessed) == (saved == "Windows-1252")
    assert other | {"notes": [note for note in other["notes"] if note not in guessed]} == plain
    assert plain["contrasts"][0]["patients"].keys() == {"Müller", "Zoë", "Ann"}


@pytest.mark.fault("E2")
@pytest.mark.parametrize(
    ("name", "other"), [("Zoë", "Zoe\u0308"), ("Ann", "ann"), ("p1", "p01"), ("Ann Lee", "Ann  Lee"), ("p1", "ｐ１")]
)
def test_names_that_nearly_agree_are_hinted_at(name, other, capsys, tmp_path):
    table(tmp_path / "s.csv", [("tuned", name, 3.0), ("base", other, 2.0)])
    status, out, _ = analyze(capsys, tmp_path / "s.csv", "--draws", "100")
    assert status == 0
    assert "no pair of sessions to compare" in out
    told = " and ".join(map(repr, sorted((name, other))))
    assert f"patients {told} differ only by case, spaces, leading zeros or Unicode form" in out
    table(tmp_path / "s.csv", [("tuned", "p10", 3.0), ("base", "p1", 2.0), ("base", "p100", 2.0)])
    assert "Unicode form only" not in analyze(capsys, tmp_path / "s.csv", "--draws", "100")[1]


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, 8_000))
from cbtrain.cli.main import main
raise SystemExit(main(["analyze", "t.csv", "--draws", "100", "--out", "out"]))
"""


@pytest.mark.fault("F12")
def test_what_the_system_refuses_is_one_line_and_leaves_nothing_half_written(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [(arm, f"p{p}", 2.0 + p % 3 + (arm == "tuned")) for arm in ("untuned", "tuned") for p in range(5)]
    table(tmp_path / "t.csv", rows)
    (tmp_path / "loop").symlink_to("loop")
    status, _, err = analyze(capsys, "t.csv", "--draws", "100", "--out", "loop/out")
    assert (status, err.count("\n")) == (2, 1)
    assert "its symbolic links lead in a circle" in err
    done = forked.run("zygote:execute", LIMITED, cwd=tmp_path)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith("cbtrain: out/")
    assert "the file would be larger than allowed here; raise the limit (ulimit -f)" in done.stderr
    assert not (tmp_path / "out").exists()
