"""Pairs from transcripts: prompts of the training part only, a real model's answers, kills that lose nothing."""

import json
import os
import signal
import time
from collections import Counter

import pytest
from command import start_cbtrain
from loopback import background, completion

from cbtrain.cli.main import main
from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.journal import read
from cbtrain.study.pairs.answers import Answer
from cbtrain.study.pairs.from_corpus import CUT, EMPTY, SAME, UNUSABLE, WHY, pairs_of_corpus
from cbtrain.study.pairs.prompts import draw_prompts
from cbtrain.transcripts.preference import pair_session
from cbtrain.transcripts.reading import read as read_corpus
from cbtrain.transcripts.types import Course, Session, Turn

PATIENTS = ("ann", "bea", "cem", "dov", "eva", "fay", "gil", "hal")
ASKS = ("When did that begin?", "What did you think then?", "How sure are you?", "What else could it mean?")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Eight patients with one session of eight turns each, in words of their own."""
    folder = tmp_path_factory.mktemp("corpus")
    lines = []
    for name in PATIENTS:
        turns = []
        for place, asks in enumerate(ASKS):
            turns.append({"role": "patient", "text": f"I am {name}, and part {place} of my week was hard at {name}s."})
            turns.append({"role": "therapist", "text": f"{asks} Tell me, {name}, as exactly as you can."})
        lines.append(json.dumps({"schema": "cbtrain.session/1", "course": name, "session": 1, "turns": turns}))
    (folder / "sessions.jsonl").write_text("\n".join(lines))
    return folder


def words(corpus, out, *more):
    options = ("--max-tokens", 24, "--chat-format", "plain", "--threads", 1, "--keep-cut", "--per-session", 3)
    return ["pairs", "make", "corpus", *map(str, (corpus, "split.test=0.3", "--out", out, *options, *more))]


def records(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.mark.slow
def test_a_killed_command_continues_and_held_out_patients_are_never_asked_for(corpus, model, tmp_path, capsys):
    out = tmp_path / "pairs.jsonl"
    command = words(corpus, out, "--model", model, "evaluation.sessions_in_flight=1")
    journal = tmp_path / "pairs.jsonl.answers"
    with start_cbtrain(*command, cwd=tmp_path) as process:
        deadline = time.monotonic() + 120
        while not (journal.exists() and journal.read_bytes().count(b'"kind": "answer"') >= 2):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.002)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not out.exists()
    before = {event["key"]: event["text"] for event in read(journal) if event["kind"] == "answer"}
    assert main([*command, "--temperature", "0.1"]) == 2
    assert (
        "it holds rejected answers with another answerer (model, prompt format, sampling or seed)"
        in capsys.readouterr().err
    )
    assert main(command) == 0
    keys = [event["key"] for event in read(journal) if event["kind"] == "answer"]
    assert len(keys) == len(set(keys)) > len(before)  # nothing was asked for twice
    after = {event["key"]: event["text"] for event in read(journal) if event["kind"] == "answer"}
    assert before.items() <= after.items()
    beside = json.loads((tmp_path / "pairs.jsonl.patients.json").read_text())
    held_out = set(beside["held_out_by_the_split"])
    assert len(held_out) >= 2
    assert {key.partition("/")[0] for key in keys} == set(PATIENTS) - held_out
    pairs = records(out)
    assert {pair["patient"] for pair in pairs} <= set(PATIENTS) - held_out
    assert not any(name in json.dumps(pair["prompt"] + pair["chosen"]) for pair in pairs for name in held_out)
    sessions = {line["course"]: line["turns"] for line in records(corpus / "sessions.jsonl")}
    for pair in pairs:
        turn = int(pair["facts"]["turn"]) - 1
        turns = sessions[pair["patient"]]
        assert pair["prompt"] == turns[:turn]
        assert pair["chosen"] == [turns[turn]]
        assert pair["rejected"][0]["text"] in after.values()
        assert pair["facts"]["rejected_model"] == model.name
        assert "max_tokens 24" in pair["facts"]["rejected_sampling"]
        assert pair["facts"].keys() >= {"corpus_fingerprint", "rejected_weights", "rejected_seed", "seed", "made_by"}
    assert max(Counter(pair["patient"] for pair in pairs).values()) <= 3
    assert main(command) == 2
    assert "already exists" in capsys.readouterr().err


def test_answers_of_an_api_need_consent_and_failures_are_asked_for_again(corpus, tmp_path, capsys):
    def run(*more):
        status = main(words(corpus, out, "--provider", provider, *map(str, more)))
        return status, *capsys.readouterr()

    out, provider = tmp_path / "pairs.jsonl", tmp_path / "api.yaml"
    provider.write_text("{base_url: https://api.example.org/v1, model: m}")
    status, _, err = run()
    assert (status, "this would send words of its sessions" in err, err.count("\n")) == (2, True, 1)
    with background(lambda number, body: completion("It will be fine.")) as server:
        provider.write_text(json.dumps({"base_url": server.url, "model": "m", "backoff_s": 0.01, "max_retries": 0}))
        status, shown, err = run("--provider-model", "other")
        assert (status, err) == (0, "")
        held_out = json.loads((tmp_path / "pairs.jsonl.patients.json").read_text())["held_out_by_the_split"]
        assert len(held_out) >= 2
        asked = json.dumps(server.bodies)
        assert {name for name in PATIENTS if f"I am {name}," in asked} == set(PATIENTS) - set(held_out)
    assert {pair["rejected"][0]["text"] for pair in records(out)} == {"It will be fine."}
    facts = records(out)[0]["facts"]
    assert facts["chosen_by"] == "the transcript"
    assert (facts["rejected_model"], facts["rejected_model_as_returned"]) == ("other", "returned-name")
    assert "model also speaks for the patient" not in shown
    out.unlink()
    status, _, err = run("--provider-model", "other")  # the server is gone: all answers are on disk
    assert (status, err) == (0, "")
    out.unlink()
    with background(lambda number, body: completion(f"Better {body['model']}.")) as server:
        large = tmp_path / "large.yaml"
        large.write_text(json.dumps({"base_url": server.url, "model": "large", "backoff_s": 0.01}))
        status, _, err = run("--provider-model", "other", "--chosen-provider", large)
        assert (status, err) == (0, "")
    assert {pair["chosen"][0]["text"] for pair in records(out)} == {"Better large."}
    assert {pair["rejected"][0]["text"] for pair in records(out)} == {"It will be fine."}  # not asked for again
    assert {pair["facts"]["chosen_model"] for pair in records(out)} == {"large"}
    (tmp_path / "pairs.jsonl.answers").unlink()
    out.unlink()
    status, _, err = run()
    assert (status, err.count("\n"), out.exists()) == (2, 1, False)
    assert "answers of" in err
    assert "Run the same command again" in err
    for more, problem in (
        (("--model", "x"), "--provider and a model here are both given"),
        (("evaluation.therapist.top_k=3",), "evaluation.therapist.top_k is 3"),
        (("--adapter", "x"), "--provider and a model here are both given"),
    ):
        status, _, err = run(*more)
        assert (status, err.count("\n"), problem in err) == (2, 1, True), err


def test_what_is_left_out_is_counted_and_more_prompts_hold_the_fewer(corpus):
    courses = read_corpus(str(corpus)).courses
    tokens = load_config(None).tokens
    few, many = (draw_prompts(courses, count, 5, tokens) for count in (2, 3))
    assert (len(few), len(many)) == (16, 24)
    assert {prompt.key for prompt in few} < {prompt.key for prompt in many}
    assert all(prompt.chosen.role == "therapist" and prompt.turns[-1].role == "patient" for prompt in many)
    assert {prompt.key for prompt in few} != {prompt.key for prompt in draw_prompts(courses, 2, 6, tokens)}
    pair = pair_session(Session("p", 1, ()), [Turn("therapist", "Hello.")], [Turn("therapist", "Yes?")])
    with pytest.raises(UserError, match="p/1: it is a pair of answers, no session"):
        draw_prompts([Course("p", (pair,))], 2, 5, tokens)
    given = [
        Answer("An answer.", "", {"finish_reason": "stop", "seed": 7}),
        Answer("Cut", "", {"finish_reason": "length"}),
        Answer(few[2].chosen.text + "\n", "", {}),
        Answer("", "", {}),
        Answer("", "context_limit", {}),
        Answer("", "content_filter", {}),
    ]
    answers = {prompt.key: answer for prompt, answer in zip(few, given, strict=False)}
    made = pairs_of_corpus(few[: len(given)], answers, {"corpus": "c"})
    assert made.left_out == Counter({CUT: 1, SAME: 1, EMPTY: 1, **dict.fromkeys(WHY.values(), 1)})
    assert [pair.preference.rejected[0].text for pair in made.pairs] == ["An answer."]
    assert made.pairs[0].facts["rejected_seed"] == "7"
    kept = pairs_of_corpus(few[: len(given)], answers, {}, keep_cut=True)
    assert (len(kept.pairs), kept.left_out[CUT], kept.left_out[UNUSABLE]) == (2, 0, 0)
