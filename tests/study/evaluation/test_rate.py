"""Sessions that exist already are rated like simulated ones."""

import csv
import functools
import json

import pytest
from command import cbtrain
from loopback import background, completion
from rich.console import Console

from cbtrain.cli.main import main
from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.study.corpus import load_corpus


def test_transcripts_by_arm(tmp_path):
    def line(course, arm, *said):
        roles = ("patient", "therapist")
        turns = [{"role": roles[i % 2], "text": text} for i, text in enumerate(said)]
        record = {"schema": "cbtrain.session/1", "course": course, "session": 1, "turns": turns, "patient": "ann"}
        return json.dumps(record | {"facts": {"arm": arm}})

    cbt = (
        "I feel low.",
        "What shall we put on our agenda?",
        "Work is too much.",
        "What homework would help you until next week?",
    )
    cbt = cbt * 4
    flat = ("I feel low.", "I see, and that is all there is to say about it today.") * 8
    (tmp_path / "s.jsonl").write_text("\n".join([line("a/ann", "a", *cbt), line("b/ann", "b", *flat)]))
    done = cbtrain("rate", "corpus.path=s.jsonl", "--out", "rated", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "smoke-test cue rater" in done.stdout
    with (tmp_path / "rated" / "scores.csv").open() as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert {row["patient"] for row in rows.values()} == {"ann"}
    assert load_rubric(str(tmp_path / "rated" / "rubric.yaml")) == load_rubric()
    assert float(rows["a"]["total"]) > float(rows["b"]["total"])


def test_a_budget_that_ends_in_the_middle_is_told_of_and_the_rest_is_had_later(tmp_path):
    domains = [domain.id for domain in load_rubric().domains]
    good = completion(json.dumps({name: {"evidence": [1], "reason": "asks", "score": 3} for name in domains}))
    turns = "Patient: I feel low.\nTherapist: What went through your mind?\n"
    for number in range(6):
        (tmp_path / f"s{number}.txt").write_text(turns * (number + 1))
    with background(lambda number, body: good) as script:
        provider = f"base_url: '{script.url}', model: m, api_key_env: A_KEY, price: {{input: 0, output: 1000}}"
        command = ["rate", "corpus.path=.", "evaluation.judging.rater=llm",
                   "evaluation.judging.judge.max_tokens=10", f"evaluation.judging.provider={{{provider}}}"]  # fmt: skip
        environment = {"A_KEY": "k", "CBTRAIN_CACHE": str(tmp_path / "cache")}
        run = functools.partial(cbtrain, cwd=tmp_path, env=environment)
        first = run(*command, "--out", "rated", "providers.budget=0.02")
        assert first.returncode == 2
        assert first.stderr.startswith("cbtrain: providers.budget: budget: the next judge request may cost")
        assert "(2 of 6 ratings are missing). The results are written, without them" in first.stderr
        assert "ratings are missing (providers.budget: budget: the next judge request may cost" in first.stdout
        assert "APIs: judge 4 requests, $0.0120" in first.stdout
        none = run(*command, "providers.budget=0.001", "--out", "other", "providers.answers=other.sqlite")
        assert none.returncode == 2
        assert none.stderr.startswith("cbtrain: providers.budget: no session could be rated: budget:")
        rest = run(*command, "--out", "rated", "providers.budget=1")
        assert rest.returncode == 0, rest.stderr
        assert "note:" not in rest.stdout
        assert "APIs: judge 6 requests, $0.0180" in rest.stdout
    assert len(script.bodies) == 6


@pytest.mark.fault("G1")
def test_transcripts_without_known_labels_reach_neither_a_judge_nor_a_person(tmp_path, capsys, monkeypatch):
    """Their labels are told, and the options that read them; the sessions beside them are rated."""
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))
    domains = [domain.id for domain in load_rubric().domains]
    good = completion(json.dumps({name: {"evidence": [1], "reason": "asks", "score": 3} for name in domains}))
    words = "Frau Amsel: Mir geht es schlecht.\nDr. Bach: Was ging Ihnen durch den Kopf?\n"
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in (1, 2):
        (corpus / f"amsel-{number}.txt").write_text(words * number)
    seen = "labels in the text that were not read: Dr. Bach, Frau Amsel"

    def run(*command):
        return main([*map(str, command)]), *capsys.readouterr()

    with background(lambda number, body: good) as script:
        rate = ["rate", f"corpus.path={corpus}", "evaluation.judging.rater=llm", "--out", tmp_path / "rated",
                f"evaluation.judging.provider={{base_url: '{script.url}', model: m, api_key_env: null}}"]  # fmt: skip
        status, _, err = run(*rate)
        assert (status, script.bodies) == (2, [])
        assert "labels in the text that were not read: Frau Amsel (3), Dr. Bach (3)" in err
        assert "corpus.therapist_labels=" in err
        (corpus / "known.txt").write_text("Client: I feel low.\nTherapist: What happened?\n")
        status, out, _ = run(*rate)
        assert (status, len(script.bodies)) == (0, 1)
        assert f"note: 2 sessions cannot be rated: no speaker was found in it; {seen}" in " ".join(out.split())
        with (tmp_path / "rated" / "scores.csv").open() as file:
            assert sorted(row["status"] for row in csv.DictReader(file)) == ["ok", "unratable", "unratable"]
        labels = ["corpus.therapist_labels=[Dr. Bach, Therapist]", "corpus.patient_labels=[Frau Amsel, Client]"]
        assert run(*rate, *labels)[0] == 0
        assert len(script.bodies) == 3
        assert len({body["messages"][1]["content"] for body in script.bodies}) == 3
    with pytest.raises(UserError, match=r"Frau Amsel \(1\), Dr\. Bach \(1\)\. If it is a transcript, say who"):
        load_corpus(load_config("quick", [f"corpus.path={corpus}/amsel-1.txt"]), Console(quiet=True))
    status, _, err = run("rate", "export", corpus, "--out", tmp_path / "some")
    assert status == 0
    assert f"left out: 2 sessions that cannot be rated: no speaker was found in it; {seen}" in err
    assert "--therapist-label" in err
    (corpus / "known.txt").unlink()
    status, _, err = run("rate", "export", corpus, "--out", tmp_path / "none")
    assert (status, err.count("\n"), (tmp_path / "none").exists()) == (2, 1, False)
    names = ["--therapist-label", "Dr. Bach", "--patient-label", "Frau Amsel"]
    assert run("rate", "export", corpus, "--out", tmp_path / "all", *names)[0] == 0
