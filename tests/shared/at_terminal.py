"""The ``cbtrain`` command at a terminal of its own: Ctrl-C and a closed window reach it as they reach a person's."""

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import time

import forked


def main(arguments):
    """Runs in the process: its standard input becomes its terminal."""
    from cbtrain.cli.main import entry

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    # As a person's shell starts it; tests in the background have Ctrl-C ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    entry(arguments)


class AtTerminal:
    """``cbtrain`` with ``arguments``. ``shown`` is all that it has printed."""

    def __init__(self, *arguments, columns=80, cwd="."):
        self._screen, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
        with os.fdopen(terminal) as end:
            streams = {"stdin": terminal, "stdout": end, "stderr": end}
            self.process = forked.Forked("at_terminal:main", *arguments, cwd=cwd, env={"TERM": "xterm"}, **streams)
        self.shown, self._seen = "", 0

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.__exit__()
        self.close()

    def type(self, text):
        os.write(self._screen, text.encode())

    def press_ctrl_c(self, expected):
        """Press Ctrl-C until ``expected`` is printed: readline does not see one that comes while it handles a key."""
        if not any(self._press_once(expected) for _ in range(10)):
            raise AssertionError(self.shown)

    def wait_for(self, text):
        """Read until ``text`` has been printed, after what was waited for before."""
        assert self._reads(text, 60), self.shown

    def close(self):
        """Close the window."""
        if self._screen is not None:
            os.close(self._screen)
            self._screen = None

    def _press_once(self, expected):
        self.type("\x03")
        return self._reads(expected, 3)

    def _reads(self, text, seconds):
        deadline = time.monotonic() + seconds
        while (begin := self.shown.find(text, self._seen)) < 0:
            if time.monotonic() > deadline:
                return False
            if select.select([self._screen], [], [], 0.5)[0]:
                try:
                    self.shown += os.read(self._screen, 1 << 16).decode(errors="replace")
                except OSError:  # it has ended
                    raise AssertionError(self.shown) from None
        self._seen = begin + len(text)
        return True
