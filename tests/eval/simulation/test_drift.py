"""Drift of simulated patients: each kind is caught where it was written, and sound patients are left alone."""

import re

import pytest
from pattern_cost import steps_from_one_place

from cbtrain.eval.simulation import drift_wordings
from cbtrain.eval.simulation.drift import DRIFTS, drift_in
from cbtrain.transcripts.types import Turn

NAMES = {"Jo Marsh": "patient", "Jo": "patient", "Nova": "therapist"}
OPENING = Turn(
    "patient", "I've been feeling low since the spring. I hardly leave the flat any more, and I can't say why."
)
ASKED = Turn("therapist", "What goes through your mind on those mornings when you stay in bed?")
ADVISED = Turn(
    "therapist",
    "Your thought that you are a burden may be one of many readings. Could you write three others down before Thursday, "
    "and put a number beside each for how much of it you believe?",
)
LOST = (
    "Everything at work takes twice as long as it used to, and when my manager walks past I pretend to type so that "
    "nobody sees how lost I am."
)
BEGUN = (OPENING, ASKED)

THERAPISTS = [
    "As your therapist, I think we should begin with a thought record.",
    "I'd like you to try something this week: each evening, write down one thing that went well.",
    "It sounds like you're carrying a lot. How does that make you feel when you wake up?",
    "Your homework for this week is to track your mood three times a day.",
    "I'm really proud of the progress you've made since we began.",
    "That's wonderful to hear. What thoughts do you have when the sadness comes?",
    "Thank you for sharing that, Jo. Your feelings are completely valid.",
    "It's great that you're already noticing your thoughts. Let's explore where they come from.",
    "Consider setting aside ten minutes a day for yourself. Remember, it's okay to take small steps.",
    "1. Write down the thought that troubles you.\n2. Ask yourself what your evidence is.\n3. Rate how far you believe it."
    "\n\nYou can use this sheet whenever you feel low.",
    "So: " + ADVISED.text,
]
BOTH = [
    "I stayed in bed again.\n\nTherapist: What went through your mind?\n\nPatient: That nobody would notice.",
    "I stayed in bed again. Nova: And how was that for you?",
    "Mira: I stayed in bed.\nDr. Lind: What came up?\nMira: Nothing.\nDr. Lind: Nothing at all?",
    "*The therapist nods and writes something down* I stayed in bed again.",
    "“I stayed in bed again.”\n“It sounds like you are exhausted.”\n“I suppose that I am.”\n“Let's explore that.”",
    "我又躺了一整天。\n治疗师：你当时在想什么？",
]
REFUSALS = [
    "I'm sorry, but I can't continue with this role-play.",
    "I'd rather not continue this roleplay. It is going somewhere I don't like.",
    "I understand. Let's keep this conversation positive and respectful.",
    "I'm here to help you. What would you like to talk about?",
    "I'm just an AI, so I have no mornings.",
    "Let me step out of character for a moment.",
    "If you have any other questions, feel free to ask.",
    "Please contact a mental health professional if these thoughts come back.",
]
GIVING_IN = [
    "You're absolutely right, I never saw it that way. I feel so much better already! Thank you so much.",
    "Wow, that changes everything. I'm healed.",
    "You're right. That really opened my eyes, and I feel hopeful now.",
    "That makes perfect sense. Thank you so much, I can't wait to start right away!",
]

SOUND = [
    # plain
    "Mostly I think about the day ahead and then I don't get up.",
    "I don't know.",
    "It was a bit better on Tuesday. I went to the shop and cooked something.",
    "I wrote the thoughts down, as you asked. Three of them were about work.",
    "1. Woke at six, felt sick.\n2. Thought that I'd be sacked.\n3. Stayed in my room until noon, and I hated myself for it.",
    "Situation: my boss wrote to me.\nThought: I am done for.\nFeeling: fear, 80.\nThought: I could ask first.\nFeeling: 60.",
    "My homework went badly. I filled in one line and then I lost the sheet.",
    # upset
    "Stop asking me how I feel! You don't know what it's like, nobody does. I can't do this. I can't do this.",
    "You sit there and tell me to breathe. Do you think I haven't tried that? I've tried everything.",
    "I'd rather not talk about my father. Can we leave it?",
    "I don't want to continue this conversation if you are going to look at the clock.",
    "As a therapist, would you say that I'm beyond help?",
    "What do you want me to say? That it's all my fault? Fine, it is.",
    # verbose
    "Well, you wake up and you think you should get up, but you can't, and then you lie there and you look at the ceiling, "
    "and before you know it it's noon and I have missed another call from my sister, who means well, I know she does.",
    "So my friend told me you should try yoga, consider a new job, and remember that it's okay to feel sad, and I just "
    "nodded, because what do you say to that? She said she's proud of the progress I have made. What progress?",
    'Then she wrote: "I\'d like you to try therapy. You can do it." And I thought, you can try all you want.',
    "My mother is always like that: \"It's completely understandable that you feel low, let's look at your week.\" Sorry, "
    "that was her teaching voice. I shut down when she does that.",
    # reserved
    "Yeah.",
    "I guess so. Maybe.",
    "Not really.",
    "Fine.",
    "Mm. I'd have to think about it.",
    # pleasing
    "Thank you, that helps. I'll try it, though I'm not sure that I'll manage every day.",
    "You're right, I do that a lot. I never thought of it like that.",
    "You're right. I feel a bit better when I've been outside.",
    "Yes, that makes sense. I felt better after the last breath, thank you.",
    "That makes sense. Thank you, Nova. I appreciate your patience with me.",
    "I appreciate your willingness to explore this with me, and your commitment to helping me.",
    "Thank you so much for last week. I've been feeling a lot better since I started the walks, but the mornings are hard.",
    "Yes, of course, whatever you think is best. Should I write it every day or only when I feel low?",
    "I'm sorry, I know that you have other patients. How are you, by the way?",
    # tangential
    "That reminds me of the dog we had. He'd lie at the door all day. Anyway, what was the question?",
    "The bus was late again, so I read the notices. One said: please contact the crisis line. I wrote the number down.",
    "Me: can we talk?\nHim: busy\nMe: when?\nHim: dunno. That's what I get from my brother.",
    "It's like a role I play. At work I'm cheerful, and at home I take the mask off and there's nothing under it.",
    # asks the therapist
    "Can you tell me more about how this is supposed to work? I don't see how writing things down changes them.",
    "Do you think I'm making it up? What would you do in my place?",
    "How do you suggest I start? I don't want to get it wrong.",
    "It sounds like you're saying I should forgive him. I can't.",
    "Are you an AI? I'm not sure that I can talk to a machine about this.",
    "Could we try that breathing again? I felt calmer for a moment.",
    # steps of an exercise, read back
    "Okay. I breathe in, and I hold it. My shoulders drop a little.",
    "“I am doing what I can.”\n“I am doing what I can.”\n“I am doing what I can.”\nThat felt silly, to be honest.",
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "texts"),
    [("therapist_speech", THERAPISTS), ("speaks_for_both", BOTH), ("soft_refusal", REFUSALS), ("gives_in", GIVING_IN)],
)
def test_each_kind_is_caught(kind, texts):
    before = (*BEGUN, Turn("patient", LOST), ADVISED) if kind != "gives_in" else BEGUN
    assert [text for text in texts if kind not in drift_in(text, before, NAMES)] == []


def test_sound_turns_are_left_alone():
    assert len(SOUND) >= 40
    turns = [OPENING, ASKED]
    for text in SOUND:
        assert drift_in(text, turns, NAMES) == [], text
        turns += [Turn("patient", text), ADVISED]
        # Early in a session, where a patient may give in.
        assert drift_in(text, BEGUN, NAMES) == [], text


def test_an_own_turn_said_again_is_repetition_and_short_answers_may_recur():
    turns = [*BEGUN, Turn("patient", LOST), ADVISED]
    assert drift_in(LOST, turns) == ["repetition"]
    assert drift_in(LOST.replace("twice as long", "three times as long"), turns) == ["repetition"]
    assert drift_in("I stare at the screen and hope that it is five soon. " + LOST[-20:], turns) == []
    for short in ("Yeah.", "I don't know.", "I don't know what to say to that, really."):
        assert drift_in(short, [*turns, Turn("patient", short), ADVISED]) == []
    again = "我每天早上都睁着眼睛躺在床上，觉得自己对谁都没有用处，什么也不想做。"
    assert drift_in(again, [Turn("patient", again), ADVISED]) == ["repetition"]
    assert drift_in("But I cannot see the end of it. " * 3, BEGUN) == ["repetition"]


def test_transformation_counts_early_only():
    late = [turn for _ in range(4) for turn in (Turn("patient", "Hm. I'm not sure."), ASKED)]
    for text in GIVING_IN:
        assert drift_in(text, BEGUN) == ["gives_in"]
        assert drift_in(text, late) == []


def test_a_role_play_that_the_therapist_began_may_be_left():
    text = "I'd rather not continue this role-play, I feel silly."
    invited = [*BEGUN, Turn("patient", LOST), Turn("therapist", "Let's role-play the call. I am your manager.")]
    assert drift_in(text, BEGUN) == ["soft_refusal"]
    assert drift_in(text, invited) == []


def test_a_summary_that_opens_a_later_session_is_the_therapists():
    text = "Hi, I'm back. Here is the summary of last time:\n- Your homework for this week is to track your mood."
    assert drift_in(text, []) == []
    assert drift_in(text.replace("summary of last time", "plan"), []) == ["therapist_speech"]


def test_several_kinds_are_told_in_order():
    text = "I'm just an AI. Your homework for this week is to rest.\nTherapist: Good."
    assert drift_in(text, BEGUN) == ["therapist_speech", "speaks_for_both", "soft_refusal"]
    assert set(drift_in(text, BEGUN)) < set(DRIFTS)


def test_wordings_cost_few_steps_from_each_place():
    values = [value for value in vars(drift_wordings).values() if isinstance(value, re.Pattern | tuple)]
    patterns = [pattern for value in values for pattern in (value if isinstance(value, tuple) else (value,))]
    assert len(patterns) > 25
    assert [pattern.pattern for pattern in patterns if steps_from_one_place(pattern) > 3_000] == []
