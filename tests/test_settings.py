"""Settings as they are read: YAML that somebody else has written, in bounded work, or refused in one line."""

from __future__ import annotations

import pytest

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.eval.rating.rubric import load_rubric
from cbtrain.providers.costs.prices import load_prices
from cbtrain.settings import MOST_VALUES, parse_yaml

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
        ("a: " + "[" * 5_000, "malformed YAML"),
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
