"""A process that has imported what is slow to import, and forks itself for each that a test wants.

Run by :mod:`forked`, with the path of its socket. Each connection asks for one process: a line of JSON with ``target``
(``module:function``), ``arguments``, ``cwd`` and ``environment``, and three descriptors for its standard streams. It is
answered with the process's id, and when that has ended with its status as ``os.waitpid`` gives it.
"""

import atexit
import contextlib
import importlib
import importlib.util
import json
import os
import select
import signal
import socket
import sys
import threading
import traceback


def serve(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    woken, waker = os.pipe()
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    print("ready", flush=True)
    running = {}
    while True:
        ready, _, _ = select.select([listener, woken, sys.stdin], [], [])
        if sys.stdin in ready:  # whoever started it has ended
            for pid in running:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return
        if listener in ready:
            connection, _ = listener.accept()
            pid = fork(connection, listener)
            if pid is None:
                connection.close()
                continue
            running[pid] = connection
            with contextlib.suppress(OSError):
                connection.sendall(f"{pid}\n".encode())
        if woken in ready:
            os.read(woken, 4096)
        for pid in list(running):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                connection = running.pop(pid)
                with contextlib.suppress(OSError):
                    connection.sendall(f"{status}\n".encode())
                connection.close()


def fork(connection, listener):
    text, streams, _, _ = socket.recv_fds(connection, 1 << 20, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(1 << 20)
        if not more:  # whoever asked has ended
            for stream in streams:
                os.close(stream)
            return None
        text += more
    pid = os.fork()
    if pid:
        for stream in streams:
            os.close(stream)
        return pid
    status = 1
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
            os.close(stream)
        listener.close()
        connection.close()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        status = run(json.loads(text))
        threading._shutdown()  # as an interpreter ends: threads that are no daemons, then what is registered
        atexit._run_exitfuncs()
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.flush()
        os._exit(status)


def run(wanted):
    os.setsid()
    os.chdir(wanted["cwd"])
    os.environ.clear()
    os.environ.update(wanted["environment"])
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, buffering=1, closefd=False) for number, mode in ((0, "r"), (1, "w"), (2, "w"))
    )
    module, _, function = wanted["target"].partition(":")
    sys.argv = [module, *wanted["arguments"]]
    try:
        return getattr(importlib.import_module(module), function)(wanted["arguments"]) or 0
    except SystemExit as ended:
        if ended.code is None or isinstance(ended.code, int):
            return ended.code or 0
        print(ended.code, file=sys.stderr)
        return 1


def execute(arguments):
    """A ``target``: the program in the first argument."""
    exec(compile(arguments[0], "<test>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    with contextlib.redirect_stdout(sys.stderr):  # deepspeed says which accelerator it has
        for name in sys.argv[2:]:
            if importlib.util.find_spec(name):  # some are for Linux only
                importlib.import_module(name)
    serve(sys.argv[1])
