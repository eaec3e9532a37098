"""Studies of tiny models: a base with two adapters, patients behind a scripted API, and the YAML file of a study."""

import hashlib
import json
import threading

import yaml
from loopback import completion
from random_model import random_model
from schedules import random_adapter

from cbtrain.model.adapters.methods import save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder

ADAPTERS = ("kind", "brief")
QUICK = {
    "max_patients": 3,
    "seeds": 1,
    "max_turns": 6,
    "drift": "ignore",  # the scripted patient repeats itself
    "therapist": {"max_tokens": 8},
    "engine": {"context_tokens": 2048},
}


def model_with_adapters(folder, kind="llama", adapters=ADAPTERS, positions=4096):
    """Write a base to ``folder``, and adapters inside it."""
    random_model(folder, kind, positions)
    for seed, name in enumerate(adapters, 1):
        decoder = load_decoder(str(folder))
        random_adapter(decoder, LoraConfig(rank=4), seed)
        save_adapter(decoder, folder / name, base=str(folder))
    return folder


def three_arms(folder):
    """The base, and each of its adapters."""
    return {
        "tiny-untuned": {"model": str(folder)},
        "tiny-tuned": {"model": str(folder), "adapter": str(folder / "kind")},
        "tiny-placebo": {"model": str(folder), "adapter": str(folder / "brief"), "base": "tiny", "variant": "placebo"},
    }


def write_study(path, therapists, url, **evaluation):
    """Write a study of ``therapists``, whose patients are at ``url``, rated by the cue rater, to ``path``."""
    provider = {"base_url": url, "model": "patient", "backoff_s": 0.01, "attempt_timeout_s": 2, "max_retries": 20}
    judging = {"rater": "cue"}
    settings = {"therapists": therapists, "patient_provider": provider, "judging": judging, **QUICK, **evaluation}
    path.write_text(yaml.safe_dump({"threads": 1, "evaluation": settings}, sort_keys=False))
    return path


class ScriptedPatient:
    """Answers a request by its content alone, the same whenever it is asked; ``faults`` answers some requests instead.
    ``asked`` are the bodies in order."""

    def __init__(self, faults=lambda number: None):
        self.faults, self.asked, self.alone = faults, [], threading.Lock()

    def __call__(self, number, body):
        with self.alone:
            self.asked.append(request_of(body))
        fault = self.faults(number)
        return fault or completion(words_for(body))


def answers_for(body):
    """A valid answer to a questionnaire, also by the request alone."""
    properties = body["response_format"]["json_schema"]["schema"]["properties"]
    digest = hashlib.sha256(request_of(body).encode()).digest()
    points = {name: kind["enum"] for name, kind in properties.items() if "enum" in kind}
    numbers = {name: values[digest[place] % len(values)] for place, (name, values) in enumerate(points.items())}
    texts = {name: f"I still have number {digest.hex()[:6]}." for name in properties.keys() - points.keys()}
    return json.dumps(numbers | texts)


def request_of(body):
    return json.dumps([body["messages"], body["seed"]], sort_keys=True)


def words_for(body):
    if "response_format" in body:
        return answers_for(body)
    digest = hashlib.sha256(request_of(body).encode()).hexdigest()
    return f"I woke at {int(digest[:4], 16) % 24} and thought of number {digest[:6]}, and then I stayed in bed."
