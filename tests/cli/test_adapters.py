"""``--adapter`` of commands that take several."""

import re

import pytest

from cbtrain.cli.adapters import adapters_of
from cbtrain.errors import UserError


def test_adapters_of_a_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr=1" / "x=y").mkdir(parents=True)

    def parsed(*values):
        return {name: str(folder) for name, folder in adapters_of(values, lambda folder: folder.name).items()}

    assert parsed() == {}
    assert parsed("runs/a/therapist", "b=runs/b/therapist", "c=lr=1") == {
        "therapist": "runs/a/therapist",
        "b": "runs/b/therapist",
        "c": "lr=1",
    }
    # A path may hold "=": if the folder exists, and if the "=" is behind a "/".
    assert parsed("lr=1", "lr=1/x=y", "gone/z=1") == {"lr=1": "lr=1", "x=y": "lr=1/x=y", "z=1": "gone/z=1"}
    for values, problem in (
        (("a/t", "b/t"), "two adapters are named 't'. Name them: NAME=DIR."),
        (("t=a", "t=a"), "two adapters are named 't'"),
        (("=a",), "'=a' is neither DIR nor NAME=DIR"),
        (("a=",), "'a=' is neither DIR nor NAME=DIR"),
        (("",), "'' is neither"),
    ):
        with pytest.raises(UserError, match=f"^--adapter: {re.escape(problem)}"):
            parsed(*values)
