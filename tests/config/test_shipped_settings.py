"""Every name of commit eba986d resolves to the settings that stood in its file then (but for budgets that were out of
reach, and are none today), and the other combinations exist."""

import json

import pytest

from cbtrain.config.loading import load_config
from cbtrain.config.sources import read_layers, shipped_configs, shipped_families, shipped_recipes

LORA = """
model: {path: NAME, weights: bf16}
training: {speakers: [therapist]}
therapist: {lora: {rank: 16, alpha: 32}, learning_rate: 2.0e-4, schedule: cosine, warmup: 0.05, pack_tokens: 16384,
  tokens_per_step: 65536, activation_checkpointing: auto, max_epochs: 3, validate_every: 500_000,
  validation_tokens: 200_000, patience: 4}
evaluation: {max_turns: 40, therapist: {max_tokens: 400}, patient: {max_tokens: 300}}
"""

PAPERS_RECORDS = """
corpus: {cleaning: {split_inner_labels: false, remove_residue: false, split_summaries: false, drop_empty_turns: false,
  merge_repeated_speaker: false, drop_duplicate_sessions: false}}
tokens: {recipe: paper, format: alpaca}
"""

THEN = {
    "lora": LORA,
    "qlora": LORA.replace("bf16", "nf4").replace("16384", "8192"),
    "course": "tokens: {document: course}"
    + LORA.replace("weights: bf16", "weights: bf16, attention: auto")
    .replace("pack_tokens: 16384", "pack_tokens: 131072, packs_per_step: 1")
    .replace("tokens_per_step: 65536, ", "")
    .replace("validation_tokens: 200_000", "validation_tokens: 400_000"),
    "zero3": LORA.replace("[therapist]", "[therapist], engine: deepspeed, zero_stage: 3")
    .replace("pack_tokens: 16384", "pack_tokens: 8192, packs_per_step: 16, optimizer: adamw")
    .replace("tokens_per_step: 65536, ", ""),
    "paper": PAPERS_RECORDS
    + """
split: {validation: 0.09, test: 0.1}
model: {path: NAME, weights: nf4}
training: {speakers: [therapist]}
therapist: {supervise: everything, lora: {rank: 16, alpha: 16, dropout: 0.0}, optimizer: adamw8bit,
  learning_rate: 2.0e-4, schedule: linear, warmup: 0.0623, weight_decay: 0.01, beta2: 0.999, clip_norm: 1.0,
  activation_checkpointing: auto, pack_tokens: 10000, packs_per_step: 4, max_epochs: 1,
  validate_every: 3_700_000, validation_tokens: 200_000, patience: 1000, seed: 3407}
evaluation: {max_turns: 50, max_words: 5000, engine: {context_tokens: 10000},
  therapist: {temperature: 0.8, top_k: 40, top_p: 0.95, max_tokens: 600}, patient: {temperature: 1.0, max_tokens: 300}}
""",
}

MODELS = {
    "llama3.1-8b": ("meta-llama/Llama-3.1-8B-Instruct", "meta-llama/Llama-3.1-8B"),
    "mistral-7b-v0.3": ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Mistral-7B-v0.3"),
    "qwen2.5-7b": ("Qwen/Qwen2.5-7B-Instruct", "Qwen/Qwen2.5-7B"),
}
"""Of every family the tuned model, and the base that the 2024 study took."""

ALONE = {
    "paper": PAPERS_RECORDS
    + """
therapist: {supervise: everything, pack_tokens: 10000, lora: {rank: 16, alpha: 16, dropout: 0.0}, learning_rate: 2.0e-4,
  schedule: linear}
patient: {supervise: everything, pack_tokens: 10000}
""",
    "quick": """
tiny: {vocabulary: 1024, hidden: 64, layers: 2, intermediate: 160}
base: {token_budget: 60000, validate_every: 20000, validation_tokens: 6000}
therapist: {token_budget: 40000, validate_every: 10000, validation_tokens: 6000}
patient: {token_budget: 20000, validate_every: 10000, validation_tokens: 6000}
evaluation: {max_patients: 2, max_turns: 8, therapist: {max_tokens: 40}, patient: {max_tokens: 30}}
""",
}


def written_out(name):
    """What stood, or would have stood, in the file of this name."""
    if name in ALONE:
        return ALONE[name]
    family, _, recipe = name.rpartition("-")
    return THEN[recipe].replace("NAME", MODELS[family][recipe == "paper"])


def test_every_combination_is_there():
    assert (set(shipped_families()), set(shipped_recipes())) == (set(MODELS), set(THEN))
    assert set(shipped_configs()) == {*ALONE, *(f"{family}-{recipe}" for family in MODELS for recipe in THEN)}


@pytest.mark.parametrize("name", [*ALONE, *(f"{family}-{recipe}" for family in MODELS for recipe in THEN)])
def test_a_name_stands_for_the_same_settings_as_ever(name, tmp_path):
    (tmp_path / "then.yaml").write_text(written_out(name))
    assert load_config(name) == load_config(str(tmp_path / "then.yaml"))
    # As JSON, so that 1 and 1.0 are not the same: run folders are compared as they are written.
    now, then = (
        json.dumps(load_config(source).model_dump(mode="json")) for source in (name, str(tmp_path / "then.yaml"))
    )
    assert now == then


def test_no_recipe_says_again_what_it_extends():
    for recipe in THEN:
        seen = {}
        for layer in read_layers(f"llama3.1-8b-{recipe}"):
            for section, values in layer.values.items():
                for key, value in values.items():
                    assert seen.get((section, key)) != value, f"{layer.name} repeats {section}.{key}"
                    seen[section, key] = value
