"""``a,b`` where a list is wanted, and ``all-linear``."""

import pytest

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.model.adapters.peft_format import peft_config
from cbtrain.model.config import LORA_TARGETS, LoraConfig


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("training.speakers", "therapist,patient", ["therapist", "patient"]),
        ("training.speakers", "patient", ["patient"]),
        ("training.speakers", "[patient, therapist]", ["patient", "therapist"]),
        ("therapist.lora.targets", "q_proj, v_proj", ["q_proj", "v_proj"]),
        ("therapist.lora.targets", "all-linear", list(LORA_TARGETS)),
        ("therapist.lora.targets", "layers.0.mlp.up_proj,all-linear", list(LORA_TARGETS)),
        ("therapist.lora.layers", "0,2", [0, 2]),
        ("therapist.lora.layers", "3", [3]),
        ("therapist.lora.layers", "null", None),
        ("split.test", "amara,ben", ["amara", "ben"]),
        ("split.test", "0.2", 0.2),
        ("corpus.cleaning.therapist_names", "Nova,Dr Lee,", ["Nova", "Dr Lee"]),
        ("tokens.therapist_system", "Be kind, be brief.", "Be kind, be brief."),
        ("corpus.path", "a,b", "a,b"),
        ("evaluation.patient_instructions", "a,b", "a,b"),
    ],
)
def test_a_list_may_be_written_with_commas(key, text, expected, tmp_path):
    *sections, last = key.split(".")
    (tmp_path / "c.yaml").write_text(nested(sections, last, text))
    for config in (load_config(None, [f"{key}={text}"]), load_config(str(tmp_path / "c.yaml"))):
        value = config
        for part in key.split("."):
            value = getattr(value, part)
        assert value == expected


def nested(sections, last, text):
    """YAML of ``text`` under the keys above it, as a block."""
    lines = [f"{'  ' * depth}{section}:" for depth, section in enumerate(sections)]
    return "\n".join([*lines, f"{'  ' * len(sections)}{last}: {text}"])


def test_the_entries_of_a_list_are_checked():
    with pytest.raises(UserError, match=r"training.speakers.1: must be 'patient' or 'therapist'. Got 'nurse'."):
        load_config(None, ["training.speakers=patient,nurse"])
    with pytest.raises(UserError, match=r"unknown target 'all-linears'. Did you mean 'all-linear'\?"):
        load_config(None, ["therapist.lora.targets=all-linears"])
    with pytest.raises(UserError, match="tokens.weights: must be a list"):
        load_config(None, ["tokens.weights=a,b"])


def test_all_linear_is_written_as_the_names_it_means():
    for targets in ("all-linear", ["all-linear"]):
        config = LoraConfig(targets=targets)
        assert config == LoraConfig()
        assert peft_config(config, base="b", tied=False) == peft_config(LoraConfig(), base="b", tied=False)
