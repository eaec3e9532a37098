"""Settings as they are read: YAML that somebody else has written, in bounded work, or refused in one line."""

from __future__ import annotations

import pytest

from cbtrain.config.loading import dump_config, load_config
from cbtrain.errors import UserError
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.providers.costs.prices import load_prices
from cbtrain.settings import MISSING, MOST_VALUES, changed_settings, differences, parse_yaml
from cbtrain.training.config import StageConfig

BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n" for level in range(1, 10)
)
"""Ten lines that stand for ten thousand million texts."""


@pytest.mark.fault("F12")
@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (BOMB, "its aliases (*name) stand for more than 100,000 values"),
        ("a: &a [*a]\n", "its aliases (*name) stand for more than 100,000 values"),
        (f"a: [{'1, ' * 300_000}1]\n", "more than 100,000 values"),
        ("{" * 200_000, "more than 1,000 sections in sections"),
        ("- x\n" * 300_000, "more than 100,000 values"),
        ("a: " + "[" * 5_000, "malformed YAML (nested too deep)"),
        ("a: 1\nb: 2\na: 3\n", "malformed YAML (key 'a' comes twice)"),
        ("a: 2026-13-45\n", "malformed YAML (month must be in 1..12)"),
        ("a: !!python/object/apply:os.getcwd []\n", "malformed YAML (could not determine a constructor"),
        ("a: \x00\n", "malformed YAML"),
        ("? [a, b]\n: 1\n", "malformed YAML (found unhashable key)"),
        ("a: [1, 2\n", "malformed YAML"),
    ],
)
@pytest.mark.parametrize("load", [lambda path: load_config(path, []), load_prices, lambda path: load_rubric(str(path))])
def test_hostile_yaml_is_one_line_wherever_it_is_read(tmp_path, text, problem, load):
    path = tmp_path / "other.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as refused:
        load(path)
    assert refused.value.what.startswith(problem)
    assert str(refused.value.where).startswith(str(path))
    assert "\n" not in refused.value.what


def test_aliases_and_merges_within_bounds_are_copies():
    content = parse_yaml(lambda: "base: &b {x: [1]}\none: *b\ntwo: {<<: *b, y: 2}\n", "here")
    assert content == {"base": {"x": [1]}, "one": {"x": [1]}, "two": {"x": [1], "y": 2}}
    assert content["one"]["x"] is not content["base"]["x"]
    assert len(parse_yaml(lambda: f"[{'1, ' * (MOST_VALUES - 2)}1]", "here")) == MOST_VALUES - 1
    assert parse_yaml(str, "here") is None


def test_all_differences_are_named_with_both_values():
    before, after = {"a": 1, "b": {"c": 2, "d": 4}, "old": {"x": 1}}, {"a": 1, "b": {"c": 3, "d": 4}, "new": None}
    assert differences(before, after) == [("b.c", 2, 3), ("old", {"x": 1}, MISSING), ("new", MISSING, None)]
    assert differences(after, after) == []


def test_a_setting_that_was_added_since_does_not_stop_an_interrupted_run():
    config = load_config(None, ["seed=3"])
    written = parse_yaml(lambda: dump_config(config), "here")
    # What an older version could not write: settings with a default of their own, of a stage and of a tiny study's.
    del written["therapist"]["clip_norm"], written["therapist"]["lora"]["dropout"], written["tokens"]["document_tokens"]
    assert changed_settings(written, config, "here") == []
    # The same beside a setting that is gone and a value that is not accepted any more.
    written["training"]["gone"], written["evaluation"]["seeds"] = 7, -1
    changes = changed_settings(written, config, "here")
    assert sorted(changes) == [("evaluation.seeds", -1, config.evaluation.seeds), ("training.gone", 7, None)]
    other = load_config(None, ["seed=3", "therapist.clip_norm=0.5"])
    assert ("therapist.clip_norm", 1.0, 0.5) in changed_settings(written, other, "here")


def test_settings_that_no_longer_fit_together_are_compared_as_they_are():
    written = StageConfig(packs_per_step=2).model_dump(mode="json") | {"tokens_per_step": 16_000}
    del written["clip_norm"]
    changes = changed_settings(written, StageConfig(packs_per_step=2), "here")
    assert changes == [("tokens_per_step", 16_000, None), ("clip_norm", None, 1.0)]
