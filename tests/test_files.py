import pytest

from cbtrain.errors import UserError, nearest
from cbtrain.files import atomic_folder, write_atomic


def test_write_atomic_replaces_whole_and_leaves_nothing_beside(tmp_path):
    path = tmp_path / "new" / "report.json"
    write_atomic(path, "one")
    write_atomic(path, b"two")
    assert path.read_text() == "two"
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_write_atomic_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "report.json"
    write_atomic(path, "old")
    with pytest.raises(TypeError):
        write_atomic(path, 12)  # type: ignore[arg-type]
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_atomic_folder_replaces_and_rolls_back(tmp_path):
    target = tmp_path / "adapter"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("1")
    with atomic_folder(target) as folder:
        (folder / "b").write_text("2")
    assert [p.name for p in target.iterdir()] == ["b"]

    def break_off():
        with atomic_folder(target) as folder:
            (folder / "c").write_text("3")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        break_off()
    assert [p.name for p in target.iterdir()] == ["b"]
    assert [p.name for p in tmp_path.iterdir()] == ["adapter"]


def test_user_error_is_one_line_with_what_where_and_fix():
    error = UserError("no\nsuch key.", where="a.yaml", hint="Remove it.")
    assert str(error) == "a.yaml: no such key. Remove it."
    assert nearest("lerning_rate", ["learning_rate", "seed"]) == "Did you mean 'learning_rate'?"
    assert nearest("x", ["b", "a"]) == "Known: a, b."
