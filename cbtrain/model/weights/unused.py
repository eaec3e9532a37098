"""Notes about settings in a model folder's files that cbtrain does not use."""

from __future__ import annotations

from pathlib import Path

from cbtrain.model.architecture import read_model_config
from cbtrain.model.config_keys import unused_keys
from cbtrain.model.weights.stops import GENERATION, read_generation_config

NO_SAMPLING = frozenset(
    "eos_token_id bos_token_id pad_token_id transformers_version _from_model_config do_sample max_length "
    "max_new_tokens use_cache cache_implementation return_dict_in_generate output_attentions output_hidden_states "
    "output_scores trust_remote_code".split()
)
"""Keys of ``generation_config.json`` that are used, or that do not say how to sample."""


def unused_facts(folder: Path) -> list[str]:
    """Return a short text for each key of ``config.json`` that is not used."""
    return [f"config.json: {text}" for text in unused_keys(read_model_config(folder))]


def unused_sampling(folder: Path) -> list[str]:
    """Return a text that names the sampling settings in ``generation_config.json``: a request brings its own."""
    settings = read_generation_config(folder)
    named = [f"{key}={settings[key]}" for key in sorted(settings.keys() - NO_SAMPLING) if settings[key] is not None]
    return [f"{GENERATION}: {', '.join(named)} (each request says how to sample)"] if named else []
