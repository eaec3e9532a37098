"""Variants of LoRA by name."""

import pytest

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.model.method_presets import PRESETS


def test_a_preset_is_what_it_stands_for():
    plain = load_config("quick").model_dump()
    for name, preset in PRESETS.items():
        given = load_config("quick", [f"therapist.method={name}"])
        by_hand = {**plain["therapist"], **preset.stage, "lora": {**plain["therapist"]["lora"], **preset.lora}}
        assert given.model_dump() == {**plain, "therapist": by_hand} != plain
        # Written out and read again, as in a run folder, it is the same.
        assert type(given).model_validate(given.model_dump(mode="json")) == given
    other = load_config("quick", ["patient.method=rslora", "patient.lora.rank=4"]).patient
    assert (other.method, other.lora.rslora, other.lora.rank) == ("lora", True, 4)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            ["therapist.method=rslora", "therapist.lora.rslora=false"],
            "therapist: method rslora sets lora.rslora to true, not false: leave one out",
        ),
        (
            ["therapist.method=lora-mlp", "therapist.lora.targets=q_proj"],
            "method lora-mlp sets lora.targets to [gate_proj, up_proj, down_proj], not [q_proj]: leave one out",
        ),
        (["therapist.method=lora-plus", "therapist.lora_plus_ratio=4"], "sets lora_plus_ratio to 16.0, not 4"),
        (["therapist.method=rslor"], "therapist.method: unknown method 'rslor'. Did you mean 'rslora'?"),
        (["therapist.method=rslora", "therapist.lora=3"], "therapist.lora: must be a section of keys and values"),
        (
            ["therapist.method=half", "therapist.options.rounds=1"],
            "therapist.options.rounds: unknown key. Did you mean",
        ),
    ],
)
def test_what_contradicts_it_is_refused(settings, problem):
    with pytest.raises(UserError) as error:
        load_config("quick", settings)
    assert problem in str(error.value)
