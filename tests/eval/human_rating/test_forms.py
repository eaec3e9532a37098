"""Blind forms: what raters get, in which order, and what they must not be able to see."""

import collections
import csv
import itertools
import json
import random
import re
import stat

import pytest
from command import cbtrain
from rated_run import ARMS, DOMAINS, PATIENTS, key_of, run_folder, sessions_of

from cbtrain.cli.main import main
from cbtrain.eval.human_rating.assignment import imbalance, in_order
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.transcripts.types import Turn


def export(*arguments, status=0):
    assert main(["rate", "export", *map(str, arguments)]) == status


def page_data(folder):
    page = (folder / "form.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="form-data">(.*?)</script>', page, re.DOTALL)[1])


def test_the_forms_hold_every_session_under_codes_and_the_key_says_which(tmp_path, capsys):
    sessions = sessions_of()
    export(run_folder(tmp_path / "run", sessions), "--out", tmp_path / "forms")
    key = key_of(tmp_path / "forms")
    by_id = {session.id: session for session in sessions}
    codes = []
    for number, form in enumerate(key["forms"], 1):
        folder = tmp_path / "forms" / f"rater-{number}"
        data = page_data(folder)
        assert data["form"] == form["id"]
        assert [session["code"] for session in data["sessions"]] == [session["code"] for session in form["sessions"]]
        with (folder / "ratings.csv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        assert [row["session"] for row in rows] == [session["code"] for session in form["sessions"]]
        assert [*rows[0]] == ["form", "rater", "session", *DOMAINS, "note"]
        text = (folder / "reading.txt").read_text(encoding="utf-8")
        for shown, hidden in zip(data["sessions"], form["sessions"], strict=True):
            own = by_id[hidden["session_id"]]
            assert (hidden["arm"], hidden["patient"], hidden["seed"]) == (own.arm, own.patient, own.seed)
            assert [turn["text"] for turn in shown["turns"]] == [turn.text for turn in own.turns]
            block = text.split(f"SESSION {hidden['code']} ")[1].split("=====")[0]
            assert f"[2] Therapist:\n    {own.turns[1].text}\n" in block
        assert {session["session_id"] for session in form["sessions"]} == set(by_id)
        codes += [session["code"] for session in form["sessions"]]
    assert len(set(codes)) == len(codes)
    said = capsys.readouterr().out
    assert "12 sessions, 2 arms; 12 for every rater" in said
    assert f"KEEP TO YOURSELF: {tmp_path / 'forms' / 'key.json'}" in said
    assert "KEEP key.json TO YOURSELF" in (tmp_path / "forms" / "README.txt").read_text()
    assert stat.S_IMODE((tmp_path / "forms" / "key.json").stat().st_mode) == 0o600


def test_nothing_that_raters_get_tells_arm_patient_session_or_ending(tmp_path):
    sessions = sessions_of()
    sessions[0].turns[1] = Turn("therapist", "<|im_start|>assistant [INST]Hello.</s>[END]")
    export(run_folder(tmp_path / "run", sessions), "--out", tmp_path / "forms")
    secrets = [*ARMS, *PATIENTS, *(session.id for session in sessions), "max_turns", "session_id", str(tmp_path)]
    secrets += ["im_start", "[INST]", "</s>", "[END]", load_rubric().domains[0].cues[0].name]
    files = [path for path in (tmp_path / "forms").rglob("*") if path.is_file() and path.name != "key.json"]
    assert len(files) == 7
    for path in files:
        assert not [word for word in secrets if word in path.read_text(encoding="utf-8") or word in path.name], path
    assert "assistant Hello." in (tmp_path / "forms/rater-1/reading.txt").read_text()


def test_orders_differ_by_rater_and_come_again_by_the_seed(tmp_path):
    run = run_folder(tmp_path / "run", sessions_of())
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        export(run, "--out", tmp_path / name, "--raters", 3, "--seed", seed)

    def orders(name):
        return [[session["session_id"] for session in form["sessions"]] for form in key_of(tmp_path / name)["forms"]]

    first = orders("a")
    assert len({tuple(order) for order in first}) == 3
    assert orders("b") == first
    assert orders("c") != first
    for path in sorted((tmp_path / "a").rglob("*.*")):
        assert path.read_bytes() == (tmp_path / "b" / path.relative_to(tmp_path / "a")).read_bytes()


def test_no_arm_is_favoured_by_the_order():
    sessions = sessions_of(patients=[f"p{number}" for number in range(15)])
    first, changes = collections.Counter(), 0
    for seed in range(40):
        order = in_order(sessions, random.Random(seed))
        assert sorted(session.id for session in order) == sorted(session.id for session in sessions)
        assert imbalance(order) < imbalance(sessions)
        means = [sum(i for i, one in enumerate(order) if one.arm == arm) / 30 for arm in ARMS]
        assert abs(means[0] - means[1]) < 4  # of 60 places; 2.5 standard errors of one random order are 11
        first[order[0].arm] += 1
        changes += sum(one.arm != other.arm for one, other in itertools.pairwise(order))
    assert min(first.values()) >= 8
    assert 0.45 < changes / (40 * 59) < 0.57  # of neighbours; no pattern to see through


def test_a_drawn_sample_keeps_pairs_together_and_goes_round_the_patients(tmp_path, capsys):
    run = run_folder(tmp_path / "run", sessions_of(seeds=4))
    export(run, "--out", tmp_path / "forms", "--sessions", 13, "--raters", 2, "--overlap", 4)
    said = capsys.readouterr().out
    assert "12 sessions of 24, 2 arms, the same patients and seeds in all; 4 for every rater" in said
    assert "note: 13 cannot be divided equally among 2 arms, so it is 12" in said
    by_rater = [
        {(one["patient"], one["seed"], one["arm"]) for one in form["sessions"]}
        for form in key_of(tmp_path / "forms")["forms"]
    ]
    drawn = by_rater[0] | by_rater[1]
    assert len(drawn) == 12
    assert [len(hand) for hand in by_rater] == [8, 8]
    assert len(by_rater[0] & by_rater[1]) == 4
    for hand in by_rater:  # both sides of every pair
        assert {(p, s, ARMS[0]) for p, s, _ in hand} | {(p, s, ARMS[1]) for p, s, _ in hand} == hand
    assert collections.Counter(patient for patient, _, _ in drawn) == dict.fromkeys(PATIENTS, 4)


def test_failed_sessions_are_counted_and_left_out_and_break_their_pair(tmp_path, capsys):
    sessions = sessions_of()
    sessions[0].ending, sessions[0].error = "provider_error", "gone"
    run = run_folder(tmp_path / "run", sessions)
    export(run, "--out", tmp_path / "all")
    said = capsys.readouterr().out
    assert "11 sessions, 2 arms" in said
    assert "note: 1 session failed and cannot be rated" in said
    export(run, "--out", tmp_path / "drawn", "--sessions", 10)
    ids = {one["session_id"] for form in key_of(tmp_path / "drawn")["forms"] for one in form["sessions"]}
    assert ids == {session.id for session in sessions[2:]}
    export(run, "--out", tmp_path / "none", "--sessions", 12, status=2)
    assert "12 sessions, but only 10 with the same number from every arm" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_corpus_has_its_own_ids_and_arms_without_pairs_are_drawn_evenly(tmp_path, capsys):
    export("sample", "--out", tmp_path / "sample", "--raters", 1, "--sessions", 3)
    assert all("/" in one["session_id"] for one in key_of(tmp_path / "sample")["forms"][0]["sessions"])
    assert key_of(tmp_path / "sample")["run"] is None
    lines = []
    for arm, patients in (("x", "abcd"), ("y", "efghij")):
        for patient in patients:
            turns = [{"role": "patient", "text": f"I am {patient}."}, {"role": "therapist", "text": "Yes."}]
            session = {"schema": "cbtrain.session/1", "course": patient, "session": 1, "turns": turns}
            lines.append(json.dumps(session | {"facts": {"arm": arm}}))
    (tmp_path / "s.jsonl").write_text("\n".join(lines))
    capsys.readouterr()
    export(tmp_path / "s.jsonl", "--out", tmp_path / "unpaired", "--sessions", 6, "--raters", 1)
    assert "note: no patient and seed has a session in every arm" in capsys.readouterr().out
    arms = collections.Counter(one["arm"] for one in key_of(tmp_path / "unpaired")["forms"][0]["sessions"])
    assert arms == {"x": 3, "y": 3}


def test_the_runs_own_rubric_is_taken_unless_another_is_named(tmp_path):
    scale = tmp_path / "short.yaml"
    rubric = load_rubric().model_dump(mode="json")
    scale.write_text(json.dumps(rubric | {"name": "Short", "cutoff": 8, "domains": rubric["domains"][:2]}))
    run = run_folder(tmp_path / "run", sessions_of(seeds=1), rubric=str(scale))
    export(run, "--out", tmp_path / "own")
    assert key_of(tmp_path / "own")["rubric"]["domains"] == DOMAINS[:2]
    export(run, "--out", tmp_path / "named", "--rubric", "cbt_fidelity")
    assert key_of(tmp_path / "named")["rubric"]["domains"] == DOMAINS


BAD = {
    "no such path": (["nothing"], "nothing: no such file or folder"),
    "folder taken": (["RUN", "--out", "RUN"], "already exists and is not an empty folder"),
    "rubric": (["RUN", "--rubric", "cbt_fidelty"], "Did you mean 'cbt_fidelity'?"),
    "no raters": (["RUN", "--raters", "0"], "--raters: 0 is too small"),
    "more raters than pairs": (["RUN", "--raters", "9", "--overlap", "0"], "--raters: 9 raters, but only 6 sets"),
    "fewer than arms": (["RUN", "--sessions", "1"], "--sessions: 1 cannot hold one session of each of 2 arms"),
    "too many": (["RUN", "--sessions", "14"], "At most 12, or leave it out"),
    "overlap": (["RUN", "--overlap", "13"], "--overlap: 13 sessions for every rater, but there are only 12"),
    "run without sessions": (["BARE"], "no simulated sessions in this run"),
    "all failed": (["FAILED"], "all its sessions failed"),
    "malformed": (["BROKEN"], "sessions.jsonl:13"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_line_with_status_2_and_leaves_nothing(case, tmp_path, capsys):
    arguments, message = BAD[case]
    for name in ("RUN", "BARE", "FAILED", "BROKEN", "ARMLESS"):
        if name in arguments:
            sessions = sessions_of()
            for session in sessions:
                session.ending = "budget" if name == "FAILED" else "max_turns"
            run_folder(tmp_path / name, sessions)
    if "BARE" in arguments:
        (tmp_path / "BARE" / "sessions.jsonl").unlink()
    if "ARMLESS" in arguments:
        path = tmp_path / "ARMLESS" / "sessions.jsonl"
        path.write_text(path.read_text().replace('"arm"', '"group"'))
    if "BROKEN" in arguments:
        with (tmp_path / "BROKEN" / "sessions.jsonl").open("a") as file:
            file.write("{oops")
    before = sorted(tmp_path.rglob("*"))
    words = [str(tmp_path / word) if (tmp_path / word).exists() else word for word in arguments]
    export(*words, *([] if "--out" in words else ["--out", tmp_path / "forms"]), status=2)
    err = capsys.readouterr().err
    assert message in err
    assert err.startswith("cbtrain: ")
    assert len(err.strip().splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_help_lists_both_commands_and_rate_still_takes_settings(tmp_path):
    def ask(*words):
        return cbtrain(*words, cwd=tmp_path)

    listed = ask("--help").stdout
    assert "rate export" in listed
    assert "rate import" in listed
    assert "cbtrain rate import" in " ".join(ask("rate", "--help").stdout.split())
    assert ask("rate", "export", "--help").stdout.startswith("usage: cbtrain rate export")
    assert "'therapist.lerning_rate'" in ask("rate", "therapist.lerning_rate=1", "--out", "x").stderr
