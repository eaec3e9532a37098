"""What the settings of a sweep's runs must share, and must not share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.settings import MISSING, differences
from cbtrain.study.anchored import anchored
from cbtrain.study.run_folder import FREE
from cbtrain.study.sweep.problems import Problems
from cbtrain.study.untrained_texts import check_general_text
from cbtrain.training.checkpoints.resuming import CHANGES_NO_BIT
from cbtrain.training.telemetry.loggers import check_loggers

SHARED = ("model", "threads", "sharing")
"""Sections and settings that decide how the one base is held, or concern the whole process."""

SHARED_IN_TRAINING = ("deterministic", "memory_limit", "peak_tflops", "savings_off", "timeout_minutes")

MADE_FROM = ("seed", "corpus", "split", "tiny", "base", "base_window")
"""What decides a base that the sweep makes itself (model.path is null)."""

OF_TRAINING = ("corpus", "split", "tokens", "model")
"""What an adapter depends on besides its base and the settings of its own speaker. The study's ``seed`` is not in it:
each stage has one of its own."""


def check_runs(configs: Mapping[str, StudyConfig], where: str, problems: Problems) -> None:
    """Collect why the runs of the sweep ``where`` cannot train over one base, and which of them would train the same
    adapter."""
    for name, config in configs.items():
        for what, hint in _unfit(config):
            problems.add(UserError(what, where=f"{where}, run {name}", hint=hint))
        with problems.collected():
            check_loggers(config.training)
        with problems.collected():
            check_general_text(config)
    names = list(configs)
    for name in names[1:]:
        _compare(configs, names[0], name, where, problems)
    unfit = {str(error.where) for error in problems.found}
    _refuse_twins({name: one for name, one in configs.items() if f"{where}, run {name}" not in unfit}, where, problems)


def speaker_of(config: StudyConfig) -> Any:
    """Return whose adapter a run of a sweep trains."""
    return config.training.speakers[0]


def _unfit(config: StudyConfig) -> Iterator[tuple[str, str]]:
    """Yield why a run is not the training of one LoRA adapter by the plain engine: what is wrong, and what to do."""
    speakers = config.training.speakers
    if len(speakers) > 1:
        hint = "A run of a sweep trains one adapter: write speaker: therapist, or speaker: patient, in two runs."
        yield f"training.speakers is {', '.join(speakers)}", hint
    for speaker in speakers:
        if getattr(config, speaker).method != "lora":
            hint = "A sweep trains LoRA adapters, which leave the base as it is: use `cbtrain train` for it."
            yield f"{speaker}.method is {getattr(config, speaker).method}", hint
    if config.training.engine != "torch":
        hint = "Set training.engine=torch: with torchrun whole runs are dealt out over the ranks."
        yield f"training.engine is {config.training.engine}", hint
    if config.training.wandb is not None:
        yield "training.wandb is set", "It logs one run at a time: use training.tensorboard, or `cbtrain train`."
    if config.model.path is None and config.base.method != "full":
        yield "base.method is 'lora'", "Set base.method=full: a new base is trained whole."


def _compare(configs: Mapping[str, StudyConfig], first: str, name: str, where: str, problems: Problems) -> None:
    """Collect in what the bases of two runs differ."""
    kept, own = _of_base(configs[first]), _of_base(configs[name])
    hint = "Runs of a sweep share one base: give it under common, or make another sweep."
    if configs[name].model.path is None:
        hint = f"{hint} (Without model.path the sweep makes its base from this.)"
    for key, one, other in differences(kept, own):
        values = (f"{'not set' if value is MISSING else value}" for value in (other, one))
        problem = f"{key} is {next(values)}, in run {first} it is {next(values)}"
        problems.add(UserError(problem, where=f"{where}, run {name}", hint=hint))


def _of_base(config: StudyConfig) -> dict[str, Any]:
    """Return the settings that all runs share, by dotted key."""
    settings = anchored(config).model_dump(mode="json")
    names = (*SHARED, *(MADE_FROM if config.model.path is None else ()))
    training = {name: settings["training"][name] for name in SHARED_IN_TRAINING}
    return {**{name: settings[name] for name in names}, "training": training}


def trained_by(config: StudyConfig) -> dict[str, Any]:
    """Return the settings that decide the adapter of a run."""
    settings = anchored(config).model_dump(mode="json")
    names = (*OF_TRAINING, speaker_of(config))
    kept = {name: settings[name] for name in names}
    kept["model"] = {key: value for key, value in kept["model"].items() if f"model.{key}" not in FREE}
    kept["tokens"] = {key: value for key, value in kept["tokens"].items() if f"tokens.{key}" not in FREE}
    speaker = speaker_of(config)
    kept[speaker] = {key: value for key, value in kept[speaker].items() if key not in CHANGES_NO_BIT}
    return {"speaker": speaker, **kept}


def _refuse_twins(configs: Mapping[str, StudyConfig], where: str, problems: Problems) -> None:
    trained = {name: trained_by(config) for name, config in configs.items()}
    names = list(trained)
    for place, name in enumerate(names):
        twin = next((other for other in names[:place] if trained[other] == trained[name]), None)
        if twin is not None:
            speaker = speaker_of(configs[name])
            but = f"{speaker}.* (but {', '.join(CHANGES_NO_BIT)})"
            hint = f"What decides it is {but}, corpus, split and tokens: a seed of training, {speaker}.seed."
            problem = f"it would train the same adapter as run {twin}"
            problems.add(UserError(problem, where=f"{where}, run {name}", hint=hint))


def differing(configs: Mapping[str, StudyConfig]) -> dict[str, dict[str, Any]]:
    """Return of each run the settings (dotted keys) in which it differs from another one of its speaker, as far as they
    decide its adapter: for tables."""
    trained = {name: trained_by(config) for name, config in configs.items()}
    differs: dict[str, dict[str, Any]] = {}
    for name, settings in trained.items():
        others = [one for one in trained.values() if one["speaker"] == settings["speaker"]]
        keys = dict.fromkeys(key for other in others for key, *_ in differences(others[0], other))
        differs[name] = {key: value for key in keys if (value := _at(settings, key)) is not MISSING}
    return differs


def _at(settings: Mapping[str, Any], key: str) -> Any:
    value: Any = settings
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            return MISSING
        value = value[part]
    return value
