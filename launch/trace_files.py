"""Count the files of cbtrain that a training run passes through between reading the corpus and the first gradient.

``python launch/trace_files.py [--out DIR] [run --config quick]`` starts that command, records each function of cbtrain
when it is first called, on any thread, from ``load_corpus`` to the first call of ``backward``, and ends the run there.
It prints the functions in the order of their first call and the totals by package: how much a reader has to open who
follows a training run. Fewer files are easier to follow.

A function is a code object of a ``def``, a method or a lambda; comprehensions and generator expressions belong to the
function around them. A change of file is counted if a function is in another file than the one first called before it.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType

PACKAGES = ("cbtrain", "eval", "kernels")
NO_FUNCTIONS = ("<module>", "<listcomp>", "<setcomp>", "<dictcomp>", "<genexpr>")


class FirstGradient(BaseException):
    """The program has called ``backward``; not an Exception, so that nothing in the program handles it."""


class Trace:
    """The functions in ``root`` that ``program`` calls, from ``start`` (FILE:FUNCTION) to the first ``backward``.

    ``functions`` are (path relative to ``root``, name), in the order of the first call.
    """

    def __init__(self, root: Path, start: str) -> None:
        self.root, self.start = f"{root}{os.sep}", start
        self.functions: list[tuple[str, str]] = []
        self._seen: set[CodeType] = set()
        self._started = self._ended = False

    def run(self, program: Callable[[], object]) -> None:
        """Call ``program`` and record until it ends or calls ``backward``. Raises what ``program`` raises."""
        threading.setprofile(self._record)
        sys.setprofile(self._record)
        try:
            with contextlib.suppress(FirstGradient):
                program()
        finally:
            sys.setprofile(None)
            threading.setprofile(None)  # type: ignore[arg-type]  # None is documented

    def _record(self, frame: FrameType, event: str, argument: object) -> None:
        if event != "call" or self._ended or frame.f_code in self._seen:
            return
        code = frame.f_code
        if code.co_name == "backward" and f"{os.sep}torch{os.sep}" in code.co_filename and self._started:
            self._ended = True
            raise FirstGradient
        if not code.co_filename.startswith(self.root) or code.co_name in NO_FUNCTIONS:
            return
        path = code.co_filename.removeprefix(self.root)
        if path.split(os.sep)[0] not in PACKAGES:
            return
        self._started = self._started or f"{path}:{code.co_name}" == self.start
        if self._started:
            self._seen.add(code)
            self.functions.append((path, code.co_name))


def files_of(functions: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    """Return the functions of each file, both in the order of the first call."""
    files: dict[str, list[str]] = {}
    for path, name in functions:
        files.setdefault(path, []).append(name)
    return files


def summary(functions: list[tuple[str, str]]) -> str:
    """Return the totals: functions, files, changes of file and folders, and files and functions by package."""
    paths = [path for path, _ in functions]
    changes = sum(before != path for before, path in pairwise(paths))
    folders = {os.path.dirname(path) for path in paths}
    by_package = Counter(_package(path) for path in files_of(functions))
    functions_by_package = Counter(map(_package, paths))
    lines = [f"{'package':28} {'files':>5} {'functions':>9}"]
    lines += [f"{name:28} {count:5} {functions_by_package[name]:9}" for name, count in by_package.most_common()]
    total = f"{len(functions)} functions in {len(set(paths))} files, {changes} changes of file, {len(folders)} folders"
    return "\n".join([*lines, total])


def _package(path: str) -> str:
    return os.sep.join(path.split(os.sep)[:2]) if path.count(os.sep) > 1 else f"{os.path.dirname(path)}{os.sep}*.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="run folder (default: a temporary one)")
    parser.add_argument(
        "--start",
        default="cbtrain/study/corpus.py:load_corpus",
        metavar="FILE:FUNCTION",
        help="record from the first call of this function (default: %(default)s)",
    )
    parser.add_argument("command", nargs=argparse.REMAINDER, help="arguments of cbtrain (default: run --config quick)")
    parsed = parser.parse_args()
    command = parsed.command or ["run", "--config", "quick"]

    import cbtrain

    try:
        from cbtrain.cli.main import entry
    except ImportError:  # an older layout, to compare with
        from cbtrain.cli import entry

    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CBTRAIN_CACHE"] = f"{temporary}/cache"  # nothing may be taken from an earlier run
        trace = Trace(Path(cbtrain.__file__).resolve().parents[1], parsed.start)
        trace.run(lambda: entry([*command, "--out", str(parsed.out or f"{temporary}/run")]))
    for path, names in files_of(trace.functions).items():
        print(f"{path}: {', '.join(names)}")
    print(summary(trace.functions))


if __name__ == "__main__":
    main()
