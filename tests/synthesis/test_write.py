"""Writing a corpus with a real server on the loopback address that plays the large model."""

import asyncio
import json
import re

import pytest
from aiohttp import web
from loopback import completion, serve, status

from cbtrain.errors import UserError
from cbtrain.journal import read as read_journal
from cbtrain.synthesis.config import SynthesisConfig
from cbtrain.synthesis.write import part_problem, write_corpus
from cbtrain.transcripts.reading import read

PROFILES = [course.profile for course in read("sample").courses[:2]]


def asked(body):
    """Which course, session and part a request is about, read from its words."""
    text = body["messages"][1]["content"]
    name = next(p.course for p in PROFILES if p.text[:200] in text)
    number = int(text.split("\nSession ")[1].split()[0])
    part = int(text.split("Now write Part ")[1].split()[0])
    return name, number, part


def good(body):
    name, number, part = asked(body)
    text = f"Patient: {name} says {number}.{part}\n\nTherapist: And what did you think?"
    if part == 4:
        text += f"\n\nSession Summary: {name} worked on number {number}."
    return completion(text)


def config(script, **changes):
    return SynthesisConfig(provider=script.config(max_retries=0), sessions=2, attempts=2, **changes)


async def test_every_profile_gets_its_course_and_the_corpus_reads_back(tmp_path):
    async with serve(lambda n, body: good(body)) as script:
        written = await write_corpus(config(script), PROFILES, tmp_path / "out")
    assert not written.failed
    corpus = read(tmp_path / "out" / "corpus")
    assert [(c.id, len(c.sessions), c.profile) for c in corpus.courses] == [(p.course, 2, p) for p in PROFILES]
    for session in corpus.sessions():
        assert [turn.role for turn in session.turns] == ["patient", "therapist"] * 4
        assert session.turns[-1].text.endswith(f"Session Summary: {session.course} worked on number {session.number}.")


async def test_a_part_sees_the_parts_before_and_the_last_sessions_summary(tmp_path):
    async with serve(lambda n, body: good(body)) as script:
        await write_corpus(config(script), PROFILES[:1], tmp_path / "out")
    name = PROFILES[0].course
    requests = {asked(body): body["messages"][1]["content"] for body in script.bodies}
    assert f"{name} says 2.1" in requests[name, 2, 3]
    assert f"{name} says 2.2" in requests[name, 2, 3]
    assert f"{name} says 1." not in requests[name, 2, 3]
    assert f"{name} worked on number 1." in requests[name, 2, 1]
    assert "cannot see the patient" in requests[name, 1, 1]
    assert "cannot see the patient" not in requests[name, 2, 1]


async def test_an_unusable_part_is_asked_for_again_with_another_seed(tmp_path):
    def plan(n, body):
        return completion("I cannot.") if n == 1 else good(body)

    async with serve(plan) as script:
        written = await write_corpus(config(script), PROFILES[:1], tmp_path / "out")
    assert len(written.corpus.courses) == 1
    assert script.bodies[0]["messages"] == script.bodies[1]["messages"]
    assert script.bodies[0]["seed"] != script.bodies[1]["seed"]


async def test_a_course_that_fails_is_named_and_the_others_are_written(tmp_path):
    first, second = (profile.course for profile in PROFILES)

    def plan(n, body):
        return completion("I cannot.") if asked(body) == (first, 2, 3) else good(body)

    async with serve(plan) as script:
        written = await write_corpus(config(script), PROFILES, tmp_path / "out")
    assert [course.id for course in read(tmp_path / "out" / "corpus").courses] == [second]
    assert list(written.failed) == [first]
    assert "session 2, part 3: not a dialogue of Patient: and Therapist:, 2 times" in written.failed[first]


async def test_an_interrupted_run_asks_for_nothing_twice(tmp_path):
    stop = asyncio.Event()

    def plan(n, body):
        if n > 6:
            stop.set()
            return status(503)
        return good(body)

    async with serve(plan) as script:
        settings = config(script)
        task = asyncio.create_task(write_corpus(settings, PROFILES, tmp_path / "out"))
        await stop.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        done = {
            (e["course"], e["session"], e["part"] + 1)
            for e in read_journal(tmp_path / "out" / "events.jsonl")
            if e["kind"] == "part"
        }
        assert 0 < len(done) < 16
        script.plan = lambda n, body: good(body)
        script.bodies.clear()
        written = await write_corpus(settings, PROFILES, tmp_path / "out")
    assert not written.failed
    assert not done & {asked(body) for body in script.bodies}
    assert len(done) + len(script.bodies) == 2 * 2 * 4


async def test_a_continued_run_asks_anew_for_what_was_unusable(tmp_path, monkeypatch):
    """With other seeds: answers on disk would be the same unusable ones."""
    monkeypatch.setenv("TEST_API_KEY", "k")
    bad = True

    def plan(n, body):
        return completion("I cannot.") if bad and asked(body)[2] == 3 else good(body)

    async with serve(plan) as script:
        provider = script.config(max_retries=0, api_key_env="TEST_API_KEY")
        settings = SynthesisConfig(provider=provider, sessions=1, attempts=2,
                                   providers={"answers": str(tmp_path / "answers")})  # fmt: skip
        for _ in range(2):
            written = await write_corpus(settings, PROFILES[:1], tmp_path / "out")
            assert "part 3" in written.failed[PROFILES[0].course]
        third = [body["seed"] for body in script.bodies if asked(body)[2] == 3]
        assert len(third) == len(set(third)) == 4
        bad = False
        lines = []
        written = await write_corpus(settings, PROFILES[:1], tmp_path / "out", lines.append)
        assert not written.failed
        assert len(script.bodies) == 2 + 4 + 2
    assert lines[-1] == "8 answers of unknown price, 0 of 20 requests in flight"
    kinds = [event["kind"] for event in read_journal(tmp_path / "out" / "events.jsonl")]
    assert kinds.count("request_ended") == 8


async def test_other_settings_do_not_mix_into_a_begun_run(tmp_path):
    async with serve(lambda n, body: good(body)) as script:
        await write_corpus(config(script), PROFILES, tmp_path / "out")
        with pytest.raises(UserError, match="other settings or profiles"):
            await write_corpus(config(script, temperature=1), PROFILES, tmp_path / "out")
        with pytest.raises(UserError, match="other settings or profiles"):
            await write_corpus(config(script), PROFILES[:1], tmp_path / "out")
        written = await write_corpus(config(script, courses_in_flight=1), PROFILES, tmp_path / "out")
        assert len(script.bodies) == 16
    assert len(written.corpus.courses) == 2


async def test_a_refused_key_stops_at_once(tmp_path):
    async with serve(lambda n, body: status(401, "bad key")) as script:
        with pytest.raises(UserError, match="bad key.*Check the API key"):
            await write_corpus(config(script), PROFILES, tmp_path / "out")
    assert len(script.bodies) <= 2
    assert not (tmp_path / "out" / "corpus").exists()


@pytest.mark.fault("D1")
async def test_neither_thinking_nor_code_fences_get_into_a_corpus(tmp_path):
    """Nor from the journal of an older version, which let them pass."""

    def around(body, before, after):
        return completion(before + good(body)["choices"][0]["message"]["content"] + after)

    def plan(n, body):
        return around(body, "<think>Patient: hm</think>\n```text\n", "\n```") if n % 2 else good(body)

    heard = []
    async with serve(plan) as script:
        written = await write_corpus(config(script), PROFILES[:1], tmp_path / "out", warn=heard.append)
        assert not written.failed
        events = (tmp_path / "out" / "events.jsonl").read_text()
        assert "4 of 8 answers of the writer" in heard[-1]
        assert events.count('"thinking_removed": 11') == 4
        for bad in ("<think>hm</think>", "hm</think>"):
            old = re.sub(', "crc": "[0-9a-f]{8}"', "", events)  # older versions wrote no checksums
            old = old.replace('"text": "Patient:', f'"text": "{bad}Patient:')
            (tmp_path / "out" / "events.jsonl").write_text(old.replace('think?"', 'think?\\n```"'))
            again = await write_corpus(config(script), PROFILES[:1], tmp_path / "out")
            for corpus in (written.corpus, again.corpus):
                assert len(list(corpus.sessions())) == 2
                spoken = [turn.text for session in corpus.sessions() for turn in session.turns]
                assert not [text for text in spoken if "hm" in text or "```" in text]


@pytest.mark.fault("D5")
async def test_moderation_stops_a_course_and_not_the_run(tmp_path):
    first, second = (profile.course for profile in PROFILES)
    moderated = {"code": 403, "message": "declined", "metadata": {"reasons": ["self-harm"], "flagged_input": "I want"}}

    async def flagged(request):
        return web.json_response({"error": moderated}, status=403)

    async with serve(lambda n, body: flagged if asked(body)[0] == first else good(body)) as script:
        written = await write_corpus(config(script), PROFILES, tmp_path / "out")
    assert [course.id for course in written.corpus.courses] == [second]
    assert "content filter: declined" in written.failed[first]


@pytest.mark.fault("D2")
@pytest.mark.fault("D7")
@pytest.mark.parametrize(
    ("reply", "problem"),
    [
        (completion("", "length"), "thinking, but no answer (3 of 4,096 tokens); raise max_tokens"),
        (completion("I'm sorry, but I can't assist with that."), "the model refused: \"I'm sorry, but I can't"),
    ],
)
async def test_why_a_part_is_unusable(reply, problem, tmp_path):
    async with serve(lambda n, body: reply) as script:
        written = await write_corpus(config(script), PROFILES[:1], tmp_path / "out")
    assert problem in written.failed[PROFILES[0].course]


@pytest.mark.parametrize(
    ("text", "part", "finish", "problem"),
    [
        ("Patient: a\nTherapist: b", 0, "stop", ""),
        ("Patient: a\nTherapist: b", 0, "length", "the answer ended with 'length'"),
        ("Hello.\nPatient: a\nTherapist: b", 0, "stop", "text before the first speaker"),
        ("Patient: a\nPatient: b\nTherapist: c", 1, "stop", "one speaker twice in a row"),
        ("Patient: a\nTherapist: *nods*", 1, "stop", "asterisks"),
        ("Patient: a\nTherapist: b\n```", 1, "stop", "a code fence"),
        ("Patient: a\nTherapist: b\nSession Summary: c", 2, "stop", "a summary before the last part"),
        ("Patient: a\nTherapist: b", 3, "stop", "no summary in the therapist's last turn"),
        ("Therapist: a\nPatient: b\nSession Summary: c", 3, "stop", "no summary in the therapist's last turn"),
        ("Patient: a\nTherapist: b\nSession Summary: c", 3, "stop", ""),
    ],
)
def test_what_makes_a_part_unusable(text, part, finish, problem):
    assert part_problem(text, part, finish) == problem


async def test_the_command(tmp_path):
    import sys
    from pathlib import Path

    async with serve(lambda n, body: good(body)) as script:
        (tmp_path / "my.yaml").write_text(
            json.dumps({"provider": {"base_url": script.url, "model": "m"}, "sessions": 1})
        )
        command = [Path(sys.executable).with_name("cbtrain"), "synthesize", "--config", "my.yaml", "--out", "out"]
        profiles = read("sample").courses
        PROFILES[:] = [course.profile for course in profiles]
        process = await asyncio.create_subprocess_exec(
            *command, "attempts=1", cwd=tmp_path, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        PROFILES[:] = PROFILES[:2]
    assert process.returncode == 0
    assert f"{len(profiles)} courses, {len(profiles)} sessions: out/corpus" in out.decode()
