import errno
import os
import stat

import pytest

from cbtrain.errors import UserError, nearest, system_problem
from cbtrain.files import atomic_folder, hold, share_with, write_atomic, written_together
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


@pytest.mark.fault("F12")
@pytest.mark.parametrize("way", ["folder in a file's place", "file in a folder's place", "an error in between"])
def test_files_that_belong_together_are_written_together_or_not_at_all(way, tmp_path):
    old = {"a": "old a", "in/b": "old b"}

    def write(folder):
        with written_together(folder) as temporary:
            write_atomic(temporary / "a", "new a")
            write_atomic(temporary / "in" / "b", "new b")
            write_atomic(temporary / "c", "new c")
            if way == "an error in between":
                raise OSError(errno.EFBIG, "too large", str(temporary / "c"))

    for name, text in old.items():
        write_atomic(tmp_path / "there" / name, text)
    if way == "folder in a file's place":
        (tmp_path / "there" / "c").mkdir()
    elif way == "file in a folder's place":
        (tmp_path / "there" / "in" / "b").unlink()
        (tmp_path / "there" / "in").rmdir()
        (tmp_path / "there" / "in").write_text("old b")
        old = {"a": "old a", "in": "old b"}
    with pytest.raises(OSError, match=str(tmp_path / "there")) as failed:
        write(tmp_path / "there")
    assert system_problem(failed.value).startswith(str(tmp_path / "there"))
    found = {
        str(p.relative_to(tmp_path / "there")): p.read_text() for p in (tmp_path / "there").rglob("*") if p.is_file()
    }
    assert found == old
    if way == "an error in between":
        with pytest.raises(OSError, match="too large"):
            write(tmp_path / "new")
        assert not (tmp_path / "new").exists()
