"""Patients behind an API that think aloud, refuse, speak for the therapist or say nothing, against a real server."""

import re

import pytest
from lanes import lanes
from loopback import completion, serve

from cbtrain.eval.analysis.agreement.panel import panel_of
from cbtrain.eval.analysis.ratings import ratings_of
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.simulation.api_speakers import ApiPatient
from cbtrain.eval.simulation.dialogue import SILENT_PATIENT, Limits, SpeakerStopped, Spoken, hold_session
from cbtrain.eval.simulation.local_speakers import LocalTherapist
from cbtrain.eval.simulation.parts import PatientRole, own_words
from cbtrain.eval.simulation.restoring import restore
from cbtrain.eval.simulation.runner import SimulationSettings, plan_sessions, run_sessions
from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.request import Completion
from cbtrain.journal import Journal, read
from cbtrain.study.evaluation.report_data import describe_sessions
from cbtrain.study.evaluation.scores import as_transcripts, records
from cbtrain.transcripts.reading import read as read_corpus
from cbtrain.transcripts.types import FAILURES, Turn

PROFILE = read_corpus("sample").courses[0].profile


class Therapist:
    async def speak(self, turns, seed):
        return Spoken(f"What happened then? ({len(turns)})", {})


async def said(reply, usage=None, profile=None):
    """What a patient whose API replies so says, with its facts; or how it stopped."""
    async with serve(lambda number, body: reply | ({"usage": usage} if usage else {})) as script:
        async with script.provider() as provider:
            patient = ApiPatient(provider, PatientRole(profile, forbidden=("<|end|>",)), SamplingConfig(max_tokens=80))
            try:
                spoken = await patient.speak([], 1)
            except SpeakerStopped as stopped:
                return stopped.ending, str(stopped)
    return spoken.text, spoken.facts


@pytest.mark.fault("D1")
async def test_thinking_is_no_word_of_the_patients_and_is_counted():
    text, facts = await said(completion("<think>I should sound low.</think>\nI feel low."))
    assert (text, facts["thinking_removed"]) == ("I feel low.", len("I should sound low."))
    text, facts = await said(completion("I feel low."))
    assert "thinking_removed" not in facts


@pytest.mark.fault("D1")
async def test_a_local_model_that_thinks_is_cleared_too():
    class Model:
        def __init__(self, text):
            self.text = text

        async def answer(self, *args, **kwargs):
            return Completion([1, 2], self.text, "stop", 3, 0)

    therapist = LocalTherapist(
        Model("<think>be kind</think>What happened?"), SamplingConfig(), "", adapter="tuned", ids={}
    )
    spoken = await therapist.speak([Turn("patient", "Low.")], 1)
    assert (spoken.text, spoken.facts["thinking_removed"]) == ("What happened?", len("be kind"))
    silent = LocalTherapist(Model("<think>be kind, and"), SamplingConfig(), "", adapter="tuned", ids={})
    ending, error = await held("I feel low.", therapist=silent)
    assert ending == "empty_turn"
    assert "12 characters of thinking: raise evaluation.therapist.max_tokens" in error
    both = LocalTherapist(Model("What happened?\nPatient: Nothing."), SamplingConfig(), "", adapter="tuned", ids={})
    assert (await both.speak([], 1)).facts["speaks_for_patient"]


@pytest.mark.fault("D2")
@pytest.mark.parametrize(
    ("reply", "usage", "error"),
    [
        (completion("", "length"), {"completion_tokens": 80, "completion_tokens_details": {"reasoning_tokens": 80}},
         "thinking, but no answer (80 of 80 tokens, 80 of them spent on thinking); raise evaluation.patient.max_tokens"),
        (completion(None, "length", reasoning_content="I should"), {"completion_tokens": 80},
         "thinking, but no answer (80 of 80 tokens); raise evaluation.patient.max_tokens"),
        (completion("<think>I should", "length"), {"completion_tokens": 80},
         "thinking, but no answer (80 of 80 tokens); raise evaluation.patient.max_tokens"),
        (completion(" "), {"completion_tokens": 1}, "an empty answer (1 of 80 tokens)"),
    ],
)  # fmt: skip
async def test_an_empty_answer_is_a_failure_that_says_where_the_tokens_went(reply, usage, error):
    ending, text = await said(reply, {"prompt_tokens": 9, **usage})
    assert ending in FAILURES
    assert error in text


async def held(*lines, therapist=None, turns=None):
    spoken = list(lines)

    class Patient:
        async def speak(self, turns, seed):
            return Spoken(spoken.pop(0) if len(spoken) > 1 else spoken[0], {})

    async def record(index, turn, spoken):
        pass

    return await hold_session(
        Patient(),
        therapist or Therapist(),
        [] if turns is None else turns,
        Limits(max_turns=6, max_words=1000),
        seed=lambda i: i,
        record=record,
    )


@pytest.mark.fault("D2")
async def test_a_session_that_an_empty_answer_stopped_is_taken_up_again(tmp_path):
    """Also one that an older version took for ended."""
    events, empty = tmp_path / "events.jsonl", True

    def plan(number, body):
        silent = empty and len(body["messages"]) > 3
        return completion("" if silent else f"I feel low, {len(body['messages'])}.", "length" if silent else "stop")

    async def run(script):
        sessions = plan_sessions(["p"], ["base"], 1)
        with Journal(events) as journal:
            restore(sessions, list(read(events)))
            async with script.provider() as provider:
                await run_sessions(
                    sessions,
                    lanes(
                        sessions, lambda session: (ApiPatient(provider, PatientRole(), SamplingConfig()), Therapist())
                    ),
                    journal,
                    SimulationSettings(1, Limits(4, 999), seed=0),
                )
        return sessions[0]

    async with serve(plan) as script:
        first = await run(script)
        assert (first.ending, len(first.turns)) == ("provider_error", 2)
        text = re.sub(', "crc": "[0-9a-f]{8}"', "", events.read_text())  # older versions wrote no checksums
        old = text.replace('"provider_error"', '"empty_turn"').replace(first.error.replace('"', '\\"'), SILENT_PATIENT)
        empty = False
        for before in (text, old):
            events.write_text(before)
            asked = len(script.bodies)
            again = await run(script)
            assert (again.ending, len(again.turns)) == ("max_turns", 4)
            assert len(script.bodies) == asked + 1  # its first turn is kept


@pytest.mark.fault("D6")
@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Goodbye. [END]", "Goodbye."),
        ("Goodbye.\n**[END]**", "Goodbye."),
        ("Goodbye.\n[end]", "Goodbye."),
        ("Goodbye. `[End]`.", "Goodbye."),
        ("Goodbye [END] .", "Goodbye"),
        ('Goodbye. "[END]"', "Goodbye."),
        ("Goodbye.\\[END\\]", "Goodbye."),
        ("再见。【END】", "再见。"),
        ("Goodbye.\n[END]\nAnd thank you.", "Goodbye.\n\nAnd thank you."),
        ("**[END]**", None),
    ],
)
async def test_an_end_mark_ends_the_session(text, left):
    turns = []
    assert (await held(text, turns=turns))[0] == "patient_end"
    assert [turn.text for turn in turns] == ([left] if left else [])


@pytest.mark.fault("D6")
@pytest.mark.parametrize(
    "text", ["It says [END] on my calendar.", "The [END] of it, I thought.", "[ENDING]", "the end"]
)
async def test_an_end_mark_in_the_middle_of_a_sentence_is_speech(text):
    assert (await held(text, "[END]"))[0] == "patient_end"
    turns = []
    await held(text, "[END]", turns=turns)
    assert [turn.text for turn in turns] == [text, "What happened then? (1)"]


@pytest.mark.fault("D7")
@pytest.mark.parametrize(
    "refusal", ["I'm sorry, but I can't help with that.", "As an AI language model, I have no feelings."]
)
async def test_a_refusal_in_words_is_a_failure_that_quotes_it(refusal):
    ending, error = await said(completion(refusal))
    assert ending == "content_filter"
    assert refusal in error


@pytest.mark.fault("D7")
@pytest.mark.parametrize(
    ("text", "left", "labels", "cut"),
    [
        ("I feel low.\nTherapist: And then?\nPatient: Nothing.", "I feel low.", 0, True),
        ("Patient: I feel low.", "I feel low.", 1, False),
        (f"**{PROFILE.name.split()[0]}:** I feel low.\n\n**Therapist:** And then?", "I feel low.", 1, True),
        ("I feel low. Therapist: And then?", "I feel low.", 0, True),
        ("My therapist: she was kind.", "My therapist: she was kind.", 0, False),
    ],
)
async def test_a_patient_speaks_for_itself_alone(text, left, labels, cut):
    found, facts = await said(completion(text), profile=PROFILE)
    assert (found, facts.get("labels_removed", 0), "other_speaker_cut" in facts) == (left, labels, cut)


async def test_a_patient_that_is_the_therapist_only_has_failed():
    assert await said(completion("Therapist: How was your week?")) == (
        "provider_error", "the patient's model spoke for the therapist only",
    )  # fmt: skip
    assert own_words("Client: a", "patient", {}) == ("a", 1, 0)


@pytest.mark.fault("D1")
@pytest.mark.fault("D7")
async def test_what_was_taken_out_is_on_record_and_flags_its_session(tmp_path):
    """In the journal, in the transcripts that a run leaves, and in what is read back from either."""
    replies = ["<think>low</think>I feel low.", "It was long.\nTherapist: And then?", "Nothing."]

    def plan(number, body):
        return completion(replies[number - 1])

    (session,) = sessions = plan_sessions(["p"], ["base"], 1)
    with Journal(tmp_path / "events.jsonl") as journal:
        async with serve(plan) as script, script.provider() as provider:
            speakers = ApiPatient(provider, PatientRole(), SamplingConfig()), Therapist()
            await run_sessions(
                sessions,
                lanes(sessions, lambda session: speakers),
                journal,
                SimulationSettings(1, Limits(6, 999), seed=0),
            )
        (resumed,) = again = plan_sessions(["p"], ["base"], 1)
        restore(again, list(read(journal.path)))
    (written,) = records(as_transcripts(sessions))
    assert session.marks == resumed.marks == written.marks == {"thinking_removed": 1, "other_speaker_cut": 1}
    session.turns[1] = Turn("therapist", "I'm sorry, but I can't help with that.")
    rubric = load_rubric()
    ratings = ratings_of([], [domain.id for domain in rubric.domains], ["base"], rubric)
    (told,) = describe_sessions(sessions, [], {}, ratings, panel_of(ratings, []))
    assert told.flags == ["not_rated", "stopped_by_limit", "refusal", "thinking_removed", "other_speaker_cut"]
