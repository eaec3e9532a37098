"""Small sweeps over a random base, and what their runs leave."""

import json
from dataclasses import replace

import yaml

from cbtrain.study.sweep.sweep_file import nested
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.writing import write_canonical

STAGE = {"pack_tokens": 1024, "token_budget": 8000, "max_epochs": 9, "validate_every": 2500, "validation_tokens": 1000}
FOUR = {
    "plain": {},
    "seed": {"therapist.seed": 1, "therapist.lora": {"rank": 4, "dropout": 0.1}},
    "rate": {
        "therapist": {"learning_rate": 50.0, "packs_per_step": 2, "activation_checkpointing": "full", "patience": 1}
    },
    "patient": {"speaker": "patient", "patient.token_budget": 5000, "patient.lora.modules_to_save": ["lm_head"]},
}
"""Runs that differ in what could be mixed up: seed, rank, dropout, rate, size of steps, recomputation, end, speaker."""


def write_corpus(folder, turns=12, words=str):
    """The sample corpus with the first ``turns`` of each session, and ``words`` made of each turn's text."""
    corpus = read("sample")

    def short(session):
        return replace(session, turns=tuple(replace(turn, text=words(turn.text)) for turn in session.turns[:turns]))

    courses = [replace(course, sessions=tuple(map(short, course.sessions))) for course in corpus.courses]
    write_canonical(replace(corpus, courses=tuple(courses)), folder)
    return folder


def common_settings(place, **more):
    """What runs have in common, with the base and the corpus in ``place``."""
    return {
        "model": {"path": str(place / "base")},
        "corpus": {"path": str(place / "corpus")},
        "threads": 1,
        "split.test": 0,
        "therapist": dict(STAGE),
        "patient": dict(STAGE),
        "training.checkpoints": {"every_steps": 2, "keep_last": 2},
        **more,
    }


def write_sweep(path, common, runs=None, **more):
    path.write_text(yaml.safe_dump({"common": common, "runs": FOUR if runs is None else runs, **more}, sort_keys=False))
    return path


def words_of(settings):
    """``key=value`` for each of ``settings``."""
    return [f"{key}={json.dumps(value)}" for key, value in _leaves(nested(settings, ""))]


def _leaves(settings, at=""):
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{at}{key}.")
        else:
            yield f"{at}{key}", value


def adapter(run, speaker="therapist"):
    return (run / speaker / "adapter_model.safetensors").read_bytes()


def lines(run, kind="step"):
    """What the metrics of a run's only stage tell of numbers, without times."""
    found = []
    for file in (run / "training").glob("[tp]*/metrics.jsonl"):
        found += [json.loads(line) for line in file.read_text().splitlines() if line.endswith("}")]
    names = ("step", "tokens", "loss", "grad_norm", "learning_rate", "batch", "best")
    return [tuple(line.get(name) for name in names) for line in found if line["kind"] == kind]


def results(folder):
    return {run["name"]: run for run in json.loads((folder / "sweep.json").read_text())["runs"]}
