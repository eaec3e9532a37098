"""A made-up report for the tests of the report: two therapists, four patients, eight sessions, one of them failed."""

from cbtrain import NOTICE
from cbtrain.eval.report.schema.report import SCHEMA, Report

HOSTILE = "</script><script>window.hacked=1</script><img src=x onerror='window.hacked=1'> \u2028\u2029 <!-- & [red]x[/]"
RATER = "Cue rater: counts surface cues, measures no competence"

DOMAINS = [
    ("agenda", "Agenda", "Sets and keeps a shared plan for the session."),
    ("feedback", "Feedback", "Asks how the session lands and adapts to the answer."),
    ("understanding", "Understanding", "Shows that the patient's view was heard."),
    ("interpersonal", "Interpersonal effectiveness", "Warm, genuine, professional."),
    ("collaboration", "Collaboration", "Works with the patient as a team."),
    ("pacing", "Pacing and efficient use of time", "Keeps the session moving without rushing."),
    ("discovery", "Guided discovery", "Asks so that the patient finds the answer."),
    ("key", "Focus on key cognitions or behaviors", "Picks the thoughts that matter."),
    ("strategy", "Strategy for change", "Has a coherent plan for change."),
    ("techniques", "Cognitive-behavioral techniques", "Applies techniques with skill."),
    ("homework", "Homework", "Reviews and sets tasks for between sessions."),
]
PATIENTS = [("p1", "Mara Lindqvist"), ("p2", "Tomás Ibarra"), ("p3", "June Okafor"), ("p4", "Devon Hale")]
LINES = [
    "I have been putting everything off again. The dishes, the letters, even calling my sister back.",
    "That sounds heavy. Before we look at it, shall we agree on what today should cover? You mentioned the letters, "
    "and I would like to hear how the activity plan went.",
    "I did two of the three walks. The third one I stayed in bed and thought: see, you never finish anything.",
    "Let us stay with that thought for a moment. What went through your mind right before it?\n\nAnd how strongly did "
    "you believe it, from 0 to 100?",
    "That if I cannot even walk round the block, I am useless. Ninety, maybe.",
    "Two of three walks, and the conclusion is that you never finish anything. What would your sister say about that?",
    "She would say I am being unfair. That two is more than none.",
    "For next week, would you write down one such thought a day and the evidence on both sides? How did today feel?",
]


def report_of(content):
    """The report that a ``report.json`` with this content is read as."""
    return Report.model_validate(content)


def fake_session(arm, patient, seed, place):
    tuned = arm == "tuned"
    scores = {
        d: (i * 7 + place * 3 + 5 * tuned) % 4 + (1 + tuned if i % 3 else tuned) for i, (d, *_) in enumerate(DOMAINS)
    }
    turns = [{"role": ("patient", "therapist")[i % 2], "text": text} for i, text in enumerate(LINES * 2)]
    return {
        "id": f"{arm}-{patient[0]}-{seed}",
        "arm": arm,
        "patient": patient[0],
        "patient_name": patient[1],
        "seed": seed,
        "ending": "patient_end" if place % 3 else "max_turns",
        "error": None,
        "turns": turns[: 10 + 2 * place],
        "domains": scores,
        "total": sum(scores.values()),
        "status": "ok",
        "flags": [] if place % 3 else ["stopped_by_limit"],
        "ratings": [
            {
                "judge": "cue",
                "repeat": 0,
                "status": "ok",
                "total": sum(scores.values()),
                "domains": scores,
                "evidence": {"agenda": [1], "discovery": [3, 5], "homework": [7], "feedback": []},
                "reason": {"agenda": "Proposes what to cover and asks for more.", "pacing": "Even throughout."},
            }
        ],
    }


def fake_arm(name, label, sessions):
    mine = [s for s in sessions if s["arm"] == name]
    scored = [s for s in mine if s["total"] is not None]
    mean = sum(s["total"] for s in scored) / len(scored)
    return {
        "name": name,
        "label": label,
        "sessions": len(mine),
        "rated": len(scored),
        "failed": len(mine) - len(scored),
        "total_mean": mean,
        "total_sd": (sum((s["total"] - mean) ** 2 for s in scored) / (len(scored) - 1)) ** 0.5,
        "domains": {d: sum(s["domains"][d] for s in scored) / len(scored) for d, *_ in DOMAINS},
        "endings": {"patient_end": 2, "max_turns": len(mine) - 2},
        "turns_mean": 13.0,
        "words_per_therapist_turn": 88.4 if name == "tuned" else 214.6,
    }


def fake_stage(name, method, start, end, tokens):
    curve = []
    for i in range(25):
        loss = end + (start - end) * 0.86**i + 0.04 * ((i * 37) % 11 / 11 - 0.5)
        point = {"tokens": tokens * i // 24, "train_loss": loss if i else None, "validation_loss": None}
        curve.append(point | ({"validation_loss": loss + 0.06} if i % 4 == 0 else {}))
    parameters = 22_417_408
    return {
        "name": name,
        "method": method,
        "parameters": parameters,
        "trainable": parameters if method == "full" else 1_179_648,
        "token_budget": tokens,
        "tokens": tokens - 1210,
        "supervised_tokens": tokens // 2,
        "share_of_corpus": 0.6312,
        "epochs": 0.63,
        "steps": 240,
        "seconds": 212.4,
        "tokens_per_second": 5651.0,
        "stopped": "budget",
        "curve": curve,
        "validation_before": start + 0.06,
        "validation_best": end + 0.09,
        "forgetting": [] if name == "base" else fake_forgetting(),
    }


def fake_forgetting():
    """Of one text much, and the other was not measured."""
    rise = {"rise": 0.312, "warning": "Warning: the perplexity rose by 31% (12.1 to 15.9): more than 10%"}
    found = {
        "tokens": 3712,
        "base_perplexity": 12.1,
        "tuned_perplexity": 15.87,
        "kl": 0.021,
        "not_measured": "",
        **rise,
    }
    general = {"text": "general text", "about": "16 of 16 passages", **found}
    return [general, {"text": "patients' turns", "tokens": 0, "not_measured": "there is no validation part"}]


def fake_analysis():
    """One contrast, with what it rests on and nothing beside it."""
    contrast = {
        "id": "tuned − base",
        "family": "tuning",
        "patients": {"p1": 8.0, "p2": 16.0, "p3": 9.75},
        "estimate": 11.25,
        "se": 2.31,
        "ci_low": 3.9,
        "ci_high": 18.6,
        "p": 0.0164,
        "p_adjusted": 0.0164,
        "method": "mean over patients of the paired difference; 95 % t interval",
        "notes": [],
    }
    plan = {"id": "tuned − base", "family": "tuning", "pairs": [["tuned", "base"]]}
    return {"unit": "patient", "plan": [plan], "contrasts": [contrast]}


def fake_report():
    """A report of two therapists, four patients and eight sessions, one of them failed."""
    sessions = [fake_session(arm, p, 1, i) for arm in ("base", "tuned") for i, p in enumerate(PATIENTS)]
    failed = {
        "error": "provider_error: no answer after 5 attempts",
        "ending": "provider_error",
        "status": "not rated: the session failed",
    }
    failed |= {"flags": ["failed", "not_rated", "short"], "ratings": []}
    sessions[3] |= failed | {"total": None, "domains": {d: None for d, *_ in DOMAINS}}
    sessions[3]["turns"] = sessions[3]["turns"][:3]
    arms = [fake_arm("base", "Base model", sessions), fake_arm("tuned", "CBT-tuned model", sessions)]
    held_out = [("set_41", "Robin, 34", 18.2, 12.9), ("set_46", "Ines, 51", 17.4, 12.7), ("set_47", None, 19.9, 14.8)]
    return {
        "schema": SCHEMA,
        "created": "2026-11-23T03:10:00Z",
        "cbtrain_version": "0.1.0",
        "notice": NOTICE,
        "title": "Small study on the sample corpus",
        "seconds": 1284.0,
        "peak_memory_gb": 3.2,
        "corpus": {
            "path": "sample",
            "format": "tahir2024",
            "courses": 12,
            "sessions": 240,
            "therapist_turns": 6531,
            "words": 810_697,
            "cleaning": {
                "session summaries split off": {"times": 240, "sessions": 240, "words_left_out": 0},
                "empty turns dropped": {"times": 1, "sessions": 1, "words_left_out": 0},
                "same speaker joined": {"times": 214, "sessions": 190, "words_left_out": 0},
            },
            "split": {
                "train": [f"set_{i}" for i in range(1, 10)],
                "validation": ["set_40"],
                "test": ["set_41", "set_46", "set_47"],
            },
        },
        "training": [
            fake_stage("base", "full", 9.1, 3.2, 1_200_000),
            fake_stage("therapist", "lora", 3.3, 2.5, 600_000),
            fake_stage("patient", "lora", 3.4, 2.7, 600_000),
        ],
        "perplexity": {
            "tokens_note": "Over the therapist's own words and stop tokens only.",
            "patients": [
                {"patient": i, "name": n, "tokens": 21_480, "base": b, "tuned": t, "change_percent": 100 * (t / b - 1)}
                for i, n, b, t in held_out
            ],
            "mean_change_percent": -27.3,
            "verdict": "Lower for every held-out patient.",
        },
        "rater": {"judge": "cue", "kind": "cue", "label": RATER},
        "scale": {
            "name": "CBT Fidelity Rating, 11 domains after Young and Beck 1980",
            "min": 0,
            "max": 6,
            "total_max": 66,
            "cutoff": 40,
            "note": "Our own instrument; it is not the CTRS and it is not validated.",
            "domains": [{"id": i, "name": n, "description": d} for i, n, d in DOMAINS],
        },
        "arms": arms,
        "analysis": fake_analysis(),
        "sessions": sessions,
        "config": {"model": {"preset": "tiny", "layers": 6}, "training": {"token_budget": 600_000, "seed": 7}},
        "environment": {"python": "3.11.2", "torch": "2.13.0", "device": "cpu", "threads": 2},
    }
