"""Write a file, a folder or a line completely or not at all; locks; the folder that all runs share."""

from __future__ import annotations

import errno
import importlib.resources
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from cbtrain.errors import UserError


def write_atomic(path: str | Path, data: str | bytes) -> None:
    """Write ``data`` (text as UTF-8) beside ``path``, fsync, then rename over it. Creates parent folders."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary file beside ``path`` that replaces ``path`` on success and vanishes on any error. An OSError
    that names no file gets ``path``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path))
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))  # the umask decides who may read it
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename in (None, str(temporary)):
            error.filename, error.filename2 = str(path), None
        raise
    sync_folder(path.parent)


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """``content`` as JSON holds it, with a ``checksum`` over all of it."""
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain | {"checksum": _checksum(plain)}


def unseal(content: Any) -> dict[str, Any]:
    """Return the object that was given to :func:`seal`. Raises ValueError if ``content`` is not a JSON object, or has
    changed since. Files of older versions of cbtrain have no checksum and are not checked."""
    if not isinstance(content, dict):
        raise ValueError("not a JSON object")
    plain = {name: value for name, value in content.items() if name != "checksum"}
    if "checksum" in content and content["checksum"] != _checksum(plain):
        raise ValueError("its content has changed since it was written")
    return plain


def unique_json(text: str) -> Any:
    """Return the content of a JSON text in which no key of an object comes twice: of two, one would be dropped
    silently. Raises ValueError, also on text that is nested too deep."""
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name, value in pairs:
        if name in content:
            raise ValueError(f"key {name!r} comes twice")
        content[name] = value
    return content


def read_sealed(path: Path, hint: str) -> dict[str, Any]:
    """Read a JSON file of :func:`seal`. Raises FileNotFoundError, and UserError with ``hint`` where it is damaged."""
    try:
        return unseal(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, RecursionError) as error:
        raise UserError(f"damaged ({error})", where=path, hint=hint) from None


def read_json_object(path: Path, hint: str) -> dict[str, Any]:
    """Return the JSON object in ``path``. Raises FileNotFoundError, and UserError with ``hint`` where the file
    cannot be read, is malformed, is nested too deeply or holds something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"malformed JSON ({error})", where=path, hint=hint) from None
    except OSError as error:
        raise UserError(f"cannot be read ({error.strerror})", where=path, hint=hint) from None
    if not isinstance(content, dict):
        raise UserError("not a JSON object", where=path, hint=hint)
    return content


def _checksum(content: Mapping[str, Any]) -> str:
    return blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16).hexdigest()


def file_digest(path: Path) -> str:
    """Return the BLAKE2b digest (128 bits, hex) of the bytes in ``path``, read in blocks."""
    digest = blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def shipped(folder: str) -> list[str]:
    """Return the names of the YAML files in a ``folder`` of the package data ``cbtrain.configs``, in order."""
    names = [file.name for file in (importlib.resources.files("cbtrain.configs") / folder).iterdir()]
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def text_digest(text: str) -> str:
    """Return 16 hexadecimal digits (BLAKE2b, 64 bits) of ``text``."""
    return blake2b(text.encode(), digest_size=8).hexdigest()


def append_whole(file: int, line: bytes, path: Path) -> None:
    """Append ``line`` to the open ``file``, which is at ``path``. Raises OSError if there is no room for all of it,
    and leaves nothing of it then."""
    written = os.write(file, line)
    if written != len(line):  # a full disk can take half a line
        os.ftruncate(file, os.fstat(file).st_size - written)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def expanded(word: str | Path) -> Path:
    """Return ``word`` as a path, a leading ``~`` as the home folder. ``~name`` of nobody stays as it is, as in a
    shell."""
    return Path(os.path.expanduser(word))


def exists(word: str | Path) -> bool:
    """Return whether ``word``, which may be something else than a path, names a file or folder. What is too long for a
    name names none. Raises OSError if a folder on the way must not be read."""
    try:
        return Path(word).exists()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def is_folder(word: str | Path) -> bool:
    """Return whether ``word`` names a folder; otherwise as :func:`exists`."""
    return exists(word) and Path(word).is_dir()


def cache_folder() -> Path:
    """Return the cache folder of this user, shared by all runs."""
    folder = os.environ.get("CBTRAIN_CACHE")
    return Path(folder) if folder else expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cbtrain"


def require_new(path: Path) -> Path:
    """Return ``path`` if it does not exist or is an empty folder. Raises UserError if not."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UserError("already exists and is not an empty folder", where=path, hint="Choose another --out.")
    return path


@contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield a temporary folder beside ``path`` that replaces ``path`` on success and vanishes on any error."""
    path = Path(os.path.abspath(path))  # '.' has no name of its own
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(_temporary_name(path))
    temporary.mkdir()
    try:
        yield temporary
        readers = temporary.stat().st_mode & 0o666
        for file in temporary.rglob("*"):
            if file.is_file():
                file.chmod(readers)  # some libraries write for the owner alone, whatever the umask
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
        # A folder cannot be renamed over a full one: the old one steps aside first.
        old = path.with_name(f".{path.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


@contextmanager
def written_together(folder: str | Path) -> Iterator[Path]:
    """Yield a temporary folder in ``folder`` (created if missing). On success the files in it, also in folders of
    theirs, take their places in ``folder`` in the order in which they were written; on an error none does.

    Raises OSError if a folder is in a file's place, or a file in a folder's.
    """
    folder = Path(folder)
    created = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / _temporary_name(Path(os.path.abspath(folder)))
    try:
        temporary.mkdir()
        yield temporary
        files = sorted(filter(Path.is_file, temporary.rglob("*")), key=lambda file: file.stat().st_mtime_ns)
        places = {file: folder / file.relative_to(temporary) for file in files}
        for path in places.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        for file, path in places.items():
            os.replace(file, path)
    except BaseException as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if isinstance(error, OSError) and str(error.filename).startswith(str(temporary)):
            error.filename = str(folder / Path(error.filename).relative_to(temporary))
        if created and not any(folder.iterdir()):
            folder.rmdir()
        raise
    shutil.rmtree(temporary)
    sync_folder(folder)


def _temporary_name(path: Path) -> str:
    return f".{path.name}.{secrets.token_hex(4)}.tmp"


def share_with(readers: Literal["owner", "group"]) -> int:
    """Let only the ``owner`` read what this process writes from now on, or their ``group`` too.

    Return the umask before. What it forbids to everybody else stays forbidden.
    """
    before = os.umask(0o077)
    os.umask(before | 0o077 if readers == "owner" else (before | 0o027) & ~0o050)
    return before


def sync_folder(path: Path) -> None:
    """fsync a folder, so that a rename inside it survives a power cut (a no-op where folders cannot be opened)."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


_HELD: dict[Path, int] = {}
"""Descriptors of held files: they stay open as long as the process lives."""


def hold(path: Path) -> bool:
    """Lock ``path`` (creating it) until this process ends; return False if another process has it. On a system
    without file locks, always return True."""
    path = Path(os.path.abspath(path))
    if holds(path):
        return True
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return False
    except (ImportError, OSError):  # no locks on this system, or on this file system
        pass
    _HELD[path] = handle
    return True


def holds(path: Path) -> bool:
    """Return whether this process has locked ``path``."""
    return Path(os.path.abspath(path)) in _HELD


# Inside <script> a parser ends at "</script", wavers at "<!--"; old ones end a line at U+2028 and U+2029.
ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}


def script_json(value: object) -> str:
    """Return ``value`` as JSON for a ``<script type="application/json">`` element."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.translate(ESCAPES)
