"""A setting by its older name: read everywhere, written by its current one."""

import pytest
from pydantic import BaseModel, Field

from cbtrain.cli.main import main
from cbtrain.config.loading import dump_config, load_config
from cbtrain.errors import UserError
from cbtrain.settings import current_key, renamed, with_current_names
from cbtrain.training.config import StageConfig

OLDER, CURRENT = "therapist.recompute", "therapist.activation_checkpointing"


class Entry(BaseModel):
    weight: float = Field(1.0, validation_alias=renamed("weight", "share", "part"))


class Outer(BaseModel):
    entries: list[Entry] = []
    inner: Entry | None = None


def write(folder, name, text):
    (folder / name).write_text(text)
    return str(folder / name)


def test_both_names_are_one_setting_in_every_layer(tmp_path):
    write(tmp_path, "below.yaml", "therapist: {recompute: full}\npatient: {recompute: selective}")
    file = write(tmp_path, "mine.yaml", "extends: below.yaml\ntherapist: {activation_checkpointing: selective}")
    config = load_config(file)
    assert (config.therapist.activation_checkpointing, config.patient.activation_checkpointing) == ("selective",) * 2
    for words in ([f"{OLDER}=none"], [f"{CURRENT}=none"], ["therapist={recompute: none}"]):
        assert load_config(file, words).therapist.activation_checkpointing == "none"
    text = dump_config(config)
    assert "recompute" not in text
    assert load_config(write(tmp_path, "written.yaml", text)) == config


def test_two_names_with_different_values_are_refused_and_with_one_value_taken(tmp_path):
    both = "therapist: {{recompute: full, activation_checkpointing: {}}}"
    assert load_config(write(tmp_path, "a.yaml", both.format("full"))).therapist.activation_checkpointing == "full"
    message = f"{OLDER} and {CURRENT} have different values. They are one setting. Give it once, as {CURRENT}."
    with pytest.raises(UserError, match=f"b.yaml: {message}"):
        load_config(write(tmp_path, "b.yaml", both.format("none")))
    with pytest.raises(UserError, match=f"^command line: {message}"):
        load_config(None, [f"{OLDER}=full", f"{CURRENT}=none"])


def test_errors_and_explanations_have_the_current_name(tmp_path, capsys):
    with pytest.raises(UserError, match=rf"^command line: {CURRENT}: must be .* Got 'some'"):
        load_config(None, [f"{OLDER}=some"])
    with pytest.raises(
        UserError, match=r"unknown key 'therapist.recomputed'. Did you mean 'therapist.activation_checkpointing'"
    ):
        load_config(None, ["therapist.recomputed=full"])
    assert main(["config", "explain", OLDER]) == 0
    assert capsys.readouterr().out.startswith(f"{CURRENT}: auto, none, mlp, selective or full")


def test_names_are_found_in_lists_and_optional_sections():
    given = {"entries": [{"share": 2}, {"part": 3}], "inner": {"share": 4}, "other": {"share": 5}}
    current = {"entries": [{"weight": 2}, {"weight": 3}], "inner": {"weight": 4}, "other": {"share": 5}}
    assert with_current_names(given, Outer, "here") == current
    assert current_key("entries.1.part", Outer) == "entries.1.weight"
    with pytest.raises(UserError, match=r"here: entries.0.share and entries.0.part have different values"):
        with_current_names({"entries": [{"share": 1, "part": 2}]}, Outer, "here")
    assert StageConfig.model_validate({"recompute": "full"}).activation_checkpointing == "full"
