"""A patient that falls out of its part is asked once more, and what is left is flagged; ways of playing are data."""

import pytest

from cbtrain.errors import UserError
from cbtrain.eval.simulation.dialogue import SpeakerStopped, Spoken
from cbtrain.eval.simulation.in_character import in_character
from cbtrain.eval.simulation.simulators import SessionBegins, load_simulator, shipped_simulators
from cbtrain.patients.case import Case
from cbtrain.patients.library import library
from cbtrain.patients.profile import profile_of
from cbtrain.transcripts.types import Turn

SOUND = "I stayed in bed till noon again, and then I was cross with myself all day."
REFUSAL = SpeakerStopped("content_filter", "the patient's model answered with refusal", {"requests": ["r0"]})
THERAPIST = "As your therapist, I'd like you to try a thought record this week. How does that sound to you?"
BOTH = "Patient: I am tired.\nTherapist: Tell me more.\nPatient: No.\nTherapist: And then?"
TURNS = [Turn("patient", SOUND), Turn("therapist", "What went through your mind when you woke up?")]


async def said(*answers, policy="retry", turns=TURNS):
    """What a patient says who gives these answers in order, and the seeds that it was asked with."""
    seeds = []

    async def say(seed):
        answer = answers[len(seeds)]
        seeds.append(seed)
        if isinstance(answer, Exception):
            raise answer
        return Spoken(answer, {"requests": [f"r{len(seeds)}"]})

    return await in_character(say, turns, 7, {}, policy), seeds


async def test_each_kind_of_drift_is_tried_again_once_then_flagged():
    drifting = {
        "therapist_speech": THERAPIST,
        "repetition": SOUND,
        "speaks_for_both": BOTH,
        "soft_refusal": "I'm sorry, but I'd rather not continue with this roleplay. Is there anything else I can help you with?",
        "gives_in": "You're absolutely right! I feel so much better already, all my sadness is gone. Thank you so much!",
    }
    for kind, text in drifting.items():
        spoken, seeds = await said(text, "Nothing much. The radio was on.")
        assert (spoken.text, len(set(seeds))) == ("Nothing much. The radio was on.", 2), kind
        assert kind in spoken.facts["drift_first"]["kinds"]
        assert spoken.facts["drift_first"]["text"] == text
        assert spoken.facts["requests"] == ["r1", "r2"]
        assert "drift" not in spoken.facts
        left, _ = await said(text, text)
        assert kind in left.facts["drift"]
        flagged, seeds = await said(text, policy="flag")
        assert (flagged.text, kind in flagged.facts["drift"], len(seeds)) == (text, True, 1)
        ignored, _ = await said(text, policy="ignore")
        assert "drift" not in ignored.facts


async def test_a_sound_turn_is_asked_for_once_and_a_refusal_fails_if_it_comes_twice():
    spoken, seeds = await said("I thought, here we go again.")
    assert (spoken.facts, len(seeds)) == ({"requests": ["r1"]}, 1)
    spoken, seeds = await said(REFUSAL, "I thought, here we go again.")
    assert spoken.facts["drift_first"]["kinds"] == ["refusal"]
    with pytest.raises(SpeakerStopped) as failed:
        await said(REFUSAL, SpeakerStopped("content_filter", "again", {"requests": ["r2"]}))
    assert failed.value.facts["requests"] == ["r0", "r2"]
    # One refusal beside an answer that only drifts is no failure.
    spoken, _ = await said(THERAPIST, SpeakerStopped("content_filter", "again", {"requests": ["r2"]}))
    assert (spoken.text, spoken.facts["requests"]) == (THERAPIST, ["r1", "r2"])
    assert spoken.facts["drift_first"] == {"kinds": ["refusal"], "text": "again"}
    assert "therapist_speech" in spoken.facts["drift"]
    # The answer with fewer kinds of drift counts.
    spoken, _ = await said(SOUND, f"{THERAPIST}\n{BOTH}")
    assert spoken.text == SOUND


def test_shipped_simulators_play_every_patient_of_the_library_in_every_phase():
    for case in library("depression"):
        profile = profile_of(case)
        for name, simulator in shipped_simulators().items():
            simulator.check(profile, case)
            first = simulator.system(profile, case)
            assert case.name in first
            assert "[END]" in first
            for phase, later in case.phases.items():
                text = simulator.system(profile, case, SessionBegins(4, later.summary, later.since))
                assert later.summary in text, (name, phase)
                assert later.since in text
                assert "\n\n\n" not in text
    assert list(shipped_simulators()) == ["narrative", "cognitive-model"]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("name: x\nsystem: '{{ patient.name }'\n", "no template in line 1 of `system`"),
        ("name: x\nsystem: '{{ patient.nane }}'\n", "cannot be filled in for a"),
        ("name: x\nsystem: '{{ case.history }}'\nneeds: [history]\n", "a has no history, which x needs"),
        ("name: x\n", "system: missing"),
        ("- 1\n", "no simulator"),
    ],
)
def test_a_simulator_of_ones_own_is_checked_before_it_plays(tmp_path, content, problem):
    file = tmp_path / "mine.yaml"
    file.write_text(content)
    case = Case(id="a", name="Ann", symptoms=[{"name": "low mood", "severity": 2}])

    def prompt():
        simulator = load_simulator(str(file))
        simulator.check(profile_of(case), case)
        return simulator.system(profile_of(case), case)

    with pytest.raises(UserError, match=problem.replace("(", r"\(")):
        prompt()
    with pytest.raises(UserError, match="Did you mean 'narrative'"):
        load_simulator("narative")
