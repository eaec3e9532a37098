"""Processes of their own that start at once: forked from one that has imported torch (:mod:`zygote`).

They are real: they have ids, are killed, get signals, exit with a status. A new interpreter for each takes seconds, most
of them for imports; the few tests that are about the interpreter itself start one.
"""

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from functools import cache

from places import SHARED

from cbtrain.environment import quiet_openmp

IMPORTED = (
    *("torch", "transformers", "deepspeed", "bitsandbytes", "scipy.stats", "matplotlib.figure", "aiohttp"),
    *("cbtrain.cli.main", "cbtrain.study.pipeline", "cbtrain.study.evaluation.evaluate", "cbtrain.generation.server"),
)
PIPE, STDOUT, DEVNULL = subprocess.PIPE, subprocess.STDOUT, subprocess.DEVNULL


class Forked:
    """As :class:`subprocess.Popen`, in a session of its own: runs ``target`` (``module:function``, which gets
    ``arguments`` and gives the exit status). ``env`` is set beside the environment of the tests."""

    def __init__(self, target, *arguments, cwd=".", env=None, stdin=None, stdout=PIPE, stderr=PIPE):
        self.args, self.returncode = [target, *map(str, arguments)], None
        self.stdin = self.stdout = self.stderr = None
        given = []

        if stdin == PIPE:
            read_end, write_end = os.pipe()
            given.append(read_end)
            self.stdin = os.fdopen(write_end, "w", encoding="utf-8")
        else:
            given.append(os.open(os.devnull, os.O_RDONLY) if stdin is None else os.dup(stdin))
        for name, wanted in (("stdout", stdout), ("stderr", stderr)):
            if wanted == PIPE:
                read_end, write_end = os.pipe()
                given.append(write_end)
                setattr(self, name, os.fdopen(read_end, encoding="utf-8"))
            elif wanted == STDOUT:
                given.append(os.dup(given[1]))
            else:
                given.append(os.open(os.devnull, os.O_WRONLY) if wanted == DEVNULL else os.dup(wanted.fileno()))
        wanted = {"target": target, "arguments": self.args[1:], "cwd": os.path.abspath(cwd)}
        environment = {name: str(value) for name, value in {**os.environ, **(env or {})}.items()}
        request = json.dumps({**wanted, "environment": environment}).encode() + b"\n"
        self._connection = socket.socket(socket.AF_UNIX)
        self._connection.connect(_zygote())
        socket.send_fds(self._connection, [request], given)
        for descriptor in given:
            os.close(descriptor)
        # Unbuffered: what is read ahead of a line could not be seen by `poll`.
        self._answers = self._connection.makefile("rb", buffering=0)
        self._connection.settimeout(60)
        self.pid = int(self._answers.readline())
        self._connection.settimeout(None)

    def poll(self):
        if self.returncode is None:
            self._connection.setblocking(False)
            try:
                if not self._connection.recv(1, socket.MSG_PEEK):
                    raise AssertionError("the zygote has ended")
            except BlockingIOError:
                return None
            finally:
                self._connection.setblocking(True)
            self.returncode = os.waitstatus_to_exitcode(int(self._answers.readline()))
            self._connection.close()
        return self.returncode

    def wait(self, timeout=120):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(self.args, timeout)
            time.sleep(0.002)
        return self.returncode

    def send_signal(self, number):
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has ended since
                os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout=120):
        """Standard output and error, once it has ended."""
        if self.stdin:
            self.stdin.close()
        out, error = _read((self.stdout, self.stderr), timeout, self.args)
        self.wait(timeout)
        return out, error

    def __enter__(self):
        return self

    def __exit__(self, *error):
        with contextlib.suppress(ProcessLookupError):
            self.kill()
        self.wait()
        for stream in filter(None, (self.stdin, self.stdout, self.stderr)):
            stream.close()


def _read(streams, timeout, args):
    import selectors

    texts, deadline = {stream: [] for stream in streams if stream}, time.monotonic() + timeout
    with selectors.DefaultSelector() as ready:
        for stream in texts:
            ready.register(stream, selectors.EVENT_READ)
        while ready.get_map():
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired(args, timeout)
            for key, _ in ready.select(0.5):
                part = os.read(key.fd, 1 << 16)
                texts[key.fileobj].append(part)
                if not part:
                    ready.unregister(key.fileobj)
    return tuple(b"".join(texts[stream]).decode() if stream else None for stream in streams)


def run(target, *arguments, timeout=900, **options):
    """As :func:`subprocess.run` with text captured."""
    process = Forked(target, *arguments, **options)
    try:
        out, error = process.communicate(timeout)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, error)


class Ranks:
    """Processes that train together, as ``torchrun`` starts them; the first one's output is kept. ``torchrun`` itself,
    which imports torch once more, is started where its own part in signals is tested. ``own``: more arguments of each
    rank."""

    def __init__(self, world, target, *arguments, env=None, own=(), **options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        self.processes = []
        for rank in range(world):
            place = {**shared, "RANK": rank, "LOCAL_RANK": rank}
            kept = {} if rank == 0 else {"stdout": DEVNULL, "stderr": DEVNULL}
            environment = {**(env or {}), **{name: str(value) for name, value in place.items()}}
            more = own[rank] if own else ()
            self.processes.append(Forked(target, *arguments, *more, env=environment, **(options | kept)))
        self.stdout, self.pid = self.processes[0].stdout, self.processes[0].pid

    def poll(self):
        """The first status that is not 0 once all have ended, 0 where all have ended well, None while one runs. Where
        one has failed the others, which wait for it, are ended."""
        found = [process.poll() for process in self.processes]
        failed = next((status for status in found if status), 0)
        if failed and None in found:
            for process in self.processes:
                process.kill()
        return None if None in found else failed

    def kill(self):
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()

    def wait(self, timeout=180):
        deadline = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("ranks", timeout)
            time.sleep(0.01)
        return self.poll()

    def communicate(self, timeout=180):
        told = self.processes[0].communicate(timeout)
        self.wait(timeout)
        return told

    @property
    def returncode(self):
        return self.poll()


def run_ranks(world, target, *arguments, timeout=300, **options):
    """As :func:`run`, on ``world`` processes."""
    together = Ranks(world, target, *arguments, **options)
    try:
        out, error = together.communicate(timeout)
        status = together.poll()
    finally:
        together.kill()
    return subprocess.CompletedProcess([target, *arguments], status, out, error)


@cache
def _zygote():
    """The path of the socket of this process's zygote, which ends with it."""
    folder = tempfile.TemporaryDirectory(prefix="cbtrain-zygote-")
    path = os.path.join(folder.name, "socket")
    command = [sys.executable, SHARED / "zygote.py", path, *IMPORTED]
    # As the command sets it before torch is imported. No GPU: a process that has used one cannot be forked, so tests of
    # GPUs start interpreters of their own.
    environment = {**os.environ, **quiet_openmp(os.environ), "CUDA_VISIBLE_DEVICES": ""}
    process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, text=True, env=environment, start_new_session=True)
    while (line := process.stdout.readline()) != "ready\n":
        assert line, "the zygote has not come to life"

    def end():
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
        folder.cleanup()

    atexit.register(end)
    return path
