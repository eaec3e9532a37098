"""A real evaluation, scored: two therapists behind a scripted API, three patients of a library, two seeds."""

import asyncio
import io
import json
from hashlib import sha256

import pytest
import yaml
from loopback import background, completion
from random_model import random_model
from rich.console import Console

from cbtrain.config.loading import load_config
from cbtrain.study.evaluation.evaluate import evaluate_study

ASKS = "Shall we set an agenda, and look at what went through your mind? What homework could help? Number {number}."
FLAT = "I see. That is all there is to say about it today. Number {number}."
REFUSES = "I'm sorry, but I can't help with that."


def answer(number, body):
    """Answer by the request alone. The third patient speaks of suicide first; the plain therapist refuses then."""
    said = [message["content"] for message in body["messages"]]
    number = int(sha256(json.dumps([said, body.get("seed")]).encode()).hexdigest()[:6], 16)
    if body["model"] == "patient":
        crisis = len(said) <= 2 and "Tess" in said[0]
        return completion("I want to die." if crisis else f"I woke and thought of number {number}, and stayed in bed.")
    if "die" in said[-1] and body["model"] == "flat":
        return completion(REFUSES)
    return completion((ASKS if body["model"] == "asks" else FLAT).format(number=number))


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """The run's folder."""
    folder = tmp_path_factory.mktemp("evaluated")
    with background(answer) as server:
        provider = {"base_url": server.url, "backoff_s": 0.01}
        arms = {name: {"provider": provider | {"model": name}, "base": "tiny", "variant": variant, "prompt": "none"}
                for name, variant in (("flat", "untuned"), ("asks", "tuned"))}  # fmt: skip
        settings = {
            "therapists": arms,
            "patients": {"library": "depression", "only": ["gerald-ashworth", "lucia-barros", "tess-abara"]},
            "patient_provider": provider | {"model": "patient"},
            "judging": {"rater": "cue"},
            "seeds": 2,
            "course": {"phases": ["assessment", "middle"]},
            "max_turns": 6,
            "drift": "ignore",
        }
        (folder / "study.yaml").write_text(yaml.safe_dump({"evaluation": settings}))
        study = load_config(str(folder / "study.yaml"))
        asyncio.run(evaluate_study(study, folder / "tried", Console(file=io.StringIO())))
    return folder / "tried"


@pytest.fixture(scope="package")
def model(tmp_path_factory):
    """The folder of a tiny model."""
    folder = tmp_path_factory.mktemp("tiny")
    random_model(folder, "llama", positions=2048)
    return folder
