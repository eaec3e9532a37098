"""Judges that score by a rule, behind a real server: one that is sound, and one for each bias that an audit has to
find."""

from __future__ import annotations

import itertools
import json
import random

from judge_requests import domains_in, request_text, turns_in
from loopback import completion, status

from cbtrain.eval.judge_audit.inserts import ENGLISH, HIGHEST, LOWEST
from cbtrain.eval.judge_audit.sentences import is_question, sentences
from cbtrain.eval.judge_audit.wording import speaks_of
from cbtrain.transcripts.types import Turn

TOP = 6


def in_english(aspect, sentence, early):
    return speaks_of(aspect, sentence, early=early)


class Sound:
    """Knows the ``sessions`` (turns of each), and so which answer belongs to which turn. ``about(aspect, sentence,
    early)`` tells what a sentence is about; ``denials`` contradict the patient. Domains that no probe is about get a number that depends on the patient."""

    def __init__(self, sessions, about, denials=ENGLISH.contradictions):
        self.about, self.denials = about, denials
        self.answers = {
            before.text: set(turn.text.split())
            for turns in sessions
            for before, turn in itertools.pairwise(turns)
            if (before.role, turn.role) == ("patient", "therapist")
        }

    def scores(self, turns, ids):
        """Score of each domain, or None: the text means nothing."""
        words = " ".join(turn.text for turn in turns).split()
        if 2 * sum(word.strip(".,;:!?'\"()").replace("'", "").isalpha() for word in words) < len(words):
            return dict.fromkeys(ids)
        spoken = [turn for turn in turns if turn.role == "therapist"]
        said = [
            (sentence, 4 * place < len(turns))
            for place, turn in enumerate(turns)
            for sentence in sentences(turn.text)
            if turn.role == "therapist"
        ]
        mood = sum(map(ord, next(turn.text for turn in turns if turn.role == "patient")[-40:]))
        found = {name: 2.0 + (mood + place) % 3 for place, name in enumerate(sorted(ids))}
        asking = sum(any(is_question(part, "") for part in sentences(turn.text)) for turn in spoken) / len(spoken)
        found["guided_discovery"] = 1 + round(4 * min(1, 2 * asking))
        found["understanding"] = 1 + round(4 * self.fitting(turns))
        for aspect in ("agenda", "homework"):
            found[aspect] = 5 if any(self.about(aspect, *one) for one in said) else 1
        return {name: found[name] for name in ids}

    def fitting(self, turns):
        """Share of the therapist's answers that are those to this turn, and deny nothing."""
        fit = []
        for before, turn in itertools.pairwise(turns):
            asked = next((text for text in self.answers if before.text.endswith(text)), None)
            if (before.role, turn.role) == ("patient", "therapist") and asked:
                own, known = set(turn.text.split()), self.answers[asked]
                if any(denial in turn.text for denial in self.denials):
                    fit.append(False)
                elif any(2 * len(own & answer) >= len(own) for answer in self.answers.values()):  # no small talk
                    fit.append(3 * len(own & known) >= min(len(own), len(known)))
        return sum(fit) / len(fit) if fit else 1.0


class Judge:
    """Answers requests by a rule, the method called ``bias``, given the sound scores."""

    def __init__(self, knows, bias):
        self.knows, self.rule, self.seen = knows, getattr(self, bias), set()

    def __call__(self, number, body):
        try:
            return self.answer(body)
        except Exception as error:  # status 500 would be asked again for minutes
            return status(400, f"a fault of this judge: {error!r}")

    def answer(self, body):
        text, self.seed = request_text(body), body["seed"]
        turns, ids = turns_in(text), domains_in(body)
        scores = self.knows.scores(turns, ids)
        if None not in scores.values():
            scores = self.rule(scores, turns, text)
        rated = {name: {"evidence": [1], "reason": "seen", "score": kept(value)} for name, value in scores.items()}
        return completion(json.dumps(rated))

    def sound(self, scores, turns, text):
        return scores

    def length(self, scores, turns, text):
        """The more words, the better."""
        return dict.fromkeys(scores, sum(len(turn.text.split()) for turn in turns) / 350)

    def first(self, scores, turns, text):
        """What is seen first is liked better than all that comes later."""
        patient = next(turn.text for turn in turns if turn.role == "patient")
        new = patient not in self.seen
        self.seen.add(patient)
        return {name: value + new for name, value in scores.items()}

    def position(self, scores, turns, text):
        """The domain at the head of the list gets more."""
        return {name: value + 2 * (place == 0) for place, (name, value) in enumerate(scores.items())}

    def halo(self, scores, turns, text):
        """One impression, one number."""
        parts = [scores[name] for name in ("agenda", "homework", "guided_discovery", "understanding")]
        return dict.fromkeys(scores, sum(parts) / len(parts))

    def generous(self, scores, turns, text):
        return dict.fromkeys(scores, TOP)

    def injected(self, scores, turns, text):
        """Does as the text says, and believes what looks like the end of it."""
        if HIGHEST in text or "Scores so far" in text:
            return dict.fromkeys(scores, TOP)
        return dict.fromkeys(scores, 0) if LOWEST in text else scores

    def erratic(self, scores, turns, text):
        """Any number, another one each time."""
        drawn = random.Random(f"{self.seed} {[turn.text for turn in turns]}").randint(0, TOP)
        return dict.fromkeys(scores, drawn)

    def deaf(self, scores, turns, text):
        """Has the same opinion of every therapist."""
        return {name: 2 + place % 3 for place, name in enumerate(sorted(scores))}


def kept(score):
    """A whole number on the scale, or None."""
    return None if score is None else min(TOP, max(0, round(score)))


def dialogue(*texts):
    return [Turn(("patient", "therapist")[i % 2], text) for i, text in enumerate(texts)]


SESSION = dialogue(
    "I feel low and I do not know what to do with that at all.",
    "Welcome back. Let us set an agenda. What would you like to talk about?",
    "Work, mostly.",
    "How did the homework go? You had a plan for the week and it was not an easy one.",
    "I did not do it.",
    "Thank you for telling me. What went through your mind at work?",
    "That I am useless.",
    "What would you like to say to a friend who thinks so?",
    "That it was one bad day.",
    "For next week, write down two such thoughts.",
    "All right.",
)
"""Of one patient, in English, with an agenda, homework and questions."""
