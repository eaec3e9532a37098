"""``cbtrain judge audit``: the cue rater on the embedded corpus, an LLM judge that hears nothing, and bad input."""

import json
import re

import pytest
from judge_requests import turns_read
from loopback import background, completion

from cbtrain.cli.main import main
from cbtrain.eval.rating.rubric_files import load_rubric


def run(capsys, *words):
    status = main(["judge", "audit", *map(str, words)])
    return status, *capsys.readouterr()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch, tmp_path):
    for key in ("CBTRAIN_JUDGE_API_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(key, raising=False)
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))


def verdicts(found):
    return {
        (probe["probe"], finding["measure"]): finding["verdict"]
        for probe in found["probes"]
        for finding in probe["findings"]
    }


def test_the_cue_rater_on_the_embedded_corpus(capsys, tmp_path):
    status, out, err = run(capsys, "--out", tmp_path / "a", "--json")
    assert status == 0
    found = json.loads(out)
    assert found == json.loads((tmp_path / "a" / "audit.json").read_text())
    assert (found["schema"], found["rater"]["kind"]) == ("cbtrain.audit/2", "cue")
    assert (found["sessions"], found["patients"]) == (18, 6)
    assert "smoke-test cue rater" in err
    told = verdicts(found)
    falling = [("no homework", "homework"), ("no agenda", "agenda"), ("lectures", "guided_discovery")]
    for case in [*falling, ("contradicts", "understanding"), ("repeat", "total"), ("garbage", "status")]:
        assert told[case] == "as expected", case
    page = (tmp_path / "a" / "audit.html").read_text()
    assert "Is the judge fair?" in page
    assert "several of these faults at once" in page
    assert not re.search(r"<script|src=|https?://", page)
    few = ["--sessions", 2, "--only", "content", "--json"]
    one, other = (json.loads(run(capsys, "--out", tmp_path / name, *few)[1]) for name in "bc")
    assert one == other
    status, out, _ = run(capsys, "--out", tmp_path / "a", "--sessions", 1, "--only", "content,nothing")
    assert status == 0
    shown = " ".join(out.split())
    assert "sessions: 1, patients: 1" in shown
    assert "one patient says nothing of others" in shown
    assert "left out (--only)" in shown
    assert "Not a medical device" in shown


def test_the_older_name_of_the_command(capsys, tmp_path):
    assert main(["rate", "audit", "--sessions", "1", "--only", "nothing", "--out", str(tmp_path / "a")]) == 0
    assert "0 of 2 ratings of nothing have scores" in " ".join(capsys.readouterr().out.split())


def test_a_judge_that_likes_everything_is_found_out_and_paid_once(capsys, tmp_path, monkeypatch):
    ids = [domain.id for domain in load_rubric().domains]

    def same(score):
        return completion(json.dumps({name: {"evidence": [1], "reason": "fine", "score": score} for name in ids}))

    def plan(number, body):
        words = [text for speaker, text in turns_read(body) if speaker == "patient"]
        return same(4 if any(words) else None)

    monkeypatch.setenv("A_KEY", "k")
    with background(plan) as script:
        provider = f"evaluation.judging.provider={{base_url: '{script.url}', model: m, api_key_env: A_KEY}}"
        words = ["--sessions", 6, "evaluation.judging.rater=llm", provider, "--out", tmp_path / "a"]
        status, out, err = run(capsys, *words, "--json")
        assert status == 0, err
        found = json.loads(out)
        asked = len(script.bodies)
        told = verdicts(found)
        # Each of six sessions: twice as it is, with the domains turned round, twelve copies. Copies without a word are
        # not sent, renamed ones are the same request.
        assert (found["rater"]["kind"], asked) == ("llm", 6 * 15)
        assert told["contradicts", "understanding"] == told["no homework", "homework"] == "not as expected"
        assert told["garbage", "status"] == "not as expected"
        assert told["empty", "status"] == told["repeat", "total"] == told["padded", "total"] == "as expected"
        assert told["renamed", "requests"] == "as expected"
        assert len({json.dumps(body) for body in script.bodies}) == asked
        assert run(capsys, *words, "--json")[0] == 0
        assert len(script.bodies) == asked


def test_nothing_is_sent_away_unasked(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("A_KEY", "k")
    (tmp_path / "s.txt").write_text("Patient: I feel low.\nTherapist: What happened?\n")
    provider = "evaluation.judging.provider={base_url: 'https://api.example.org/v1', model: m, api_key_env: A_KEY}"
    words = [f"corpus.path={tmp_path}/s.txt", provider, "evaluation.judging.rater=llm", "--out", tmp_path / "a"]
    status, out, err = run(capsys, *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "--allow-upload" in err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--sessions", "0"], "--sessions: 0 is too small"),
        (["--seed", "-1"], "--seed: -1 is too small"),
        (["--only", "lenght"], "--only: no test 'lenght'. Did you mean 'length'?"),
        (["--match", "agenda=x"], "--match: 'agenda=x': the rubric has no domain 'x'"),
        (["--writer-model", "m"], "--writer-model: of which API?"),
        (["--writer", "nobody"], "nobody"),
        (["--writer", "openai", "--writer-model", "m"], "OPENAI_API_KEY"),
        (["corpus.path=nowhere"], "nowhere"),
        (["evaluation.judging.rubric=none"], "none: no such rubric"),
        (["evaluation.judging.rater=llm"], "the LLM judge's API key is not set"),
        (["corpus.path=short.txt"], "no session could be rated (unratable)"),
        pytest.param(
            ["corpus.path=unread.txt"],
            "no turn in any session, read as 'text'; labels in the text that were not read: P (1), T (1). If it is a transcript, "
            "say who is who: --therapist-label NAME --patient-label NAME (corpus.therapist_labels=…, corpus.patient_labels=…)",
            marks=pytest.mark.fault("G1"),
        ),
    ],
)
def test_bad_input_is_one_line(words, problem, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "short.txt").write_text("Patient: I feel low.\nTherapist: What happened?\n")
    (tmp_path / "unread.txt").write_text("P: I feel low.\nT: What happened?\n")
    status, _, err = run(capsys, *words, "--out", "a")
    assert (status, err.count("\n")) == (2, 1)
    assert problem in err
    assert not (tmp_path / "a" / "audit.json").exists()


def test_rate_itself_takes_its_settings_as_before(capsys, tmp_path):
    assert main(["rate", "--out", str(tmp_path / "r")]) == 0
    assert "18" in capsys.readouterr().out
    assert main(["rate", "audi", "--out", str(tmp_path / "r")]) == 2
    assert "unknown command 'rate audi'. Did you mean 'rate audit'?" in capsys.readouterr().err
