import os
import stat

import pytest

from cbtrain.errors import UserError, nearest
from cbtrain.files import atomic_folder, hold, share_with, write_atomic
from cbtrain.journal import Journal


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


@pytest.mark.fault("F11")
def test_who_may_read_files_is_the_umasks_and_the_settings_choice(tmp_path):
    def modes(folder):
        write_atomic(folder / "events.json", "{}")
        with atomic_folder(folder / "adapter") as temporary:
            os.close(os.open(temporary / "weights", os.O_CREAT, 0o600))  # as safetensors writes
        hold(folder / "lock")
        Journal(folder / "journal.jsonl").close()
        return {oct(stat.S_IMODE(path.stat().st_mode)) for path in [folder, *folder.rglob("*")]}

    before = os.umask(0o022)
    try:
        assert modes(tmp_path / "usual") == {"0o755", "0o644"}
        assert share_with("owner") == 0o022
        assert modes(tmp_path / "owner") == {"0o700", "0o600"}
        assert share_with("group") == 0o077
        assert modes(tmp_path / "group") == {"0o750", "0o640"}
    finally:
        os.umask(before)


def test_user_error_is_one_line_with_what_where_and_fix():
    error = UserError("no\nsuch key.", where="a.yaml", hint="Remove it.")
    assert str(error) == "a.yaml: no such key. Remove it."
    assert nearest("lerning_rate", ["learning_rate", "seed"]) == "Did you mean 'learning_rate'?"
    assert nearest("x", ["b", "a"]) == "Known: a, b."
