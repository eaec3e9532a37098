"""``cbtrain show``: the sessions of a run, and every request and reply of one of them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.parser import Commands, add_command
from cbtrain.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from cbtrain.study.session_log.sessions import LoggedSession


def add(commands: Commands) -> None:
    text = "print the sessions of a run, or one with the facts, requests and replies of each turn"
    more = "Reads the run's files only, also while it is running."
    parser = add_command(commands, "show", _show, text, more)
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of an evaluation")
    parser.add_argument("session", nargs="?", metavar="SESSION", help="its id or a part of it; left out: a list")
    parser.add_argument("--turn", type=int, metavar="N", help="this turn only, from 1")
    parser.add_argument(
        "--raw", action="store_true", help="each request as it was sent and each reply as it came, failed ones too"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def _show(parsed: argparse.Namespace) -> None:
    from rich.console import Console

    from cbtrain.console import plain
    from cbtrain.serving.chat.terminal import visible
    from cbtrain.study.session_log.sessions import find_session, read_requests, read_sessions
    from cbtrain.study.session_log.text import session_json, session_text, summary_json

    console = Console()
    sessions = read_sessions(parsed.run_folder)
    if parsed.session is None:
        if parsed.turn is not None or parsed.raw:
            raise UserError("--turn and --raw are of one session", where="show", hint="Name a session.")
        if parsed.json:
            _print_json([summary_json(session) for session in sessions.values()])
        else:
            _print_list(list(sessions.values()), console)
        return
    session = find_session(sessions, parsed.session, parsed.run_folder)
    if parsed.turn is not None and not 1 <= parsed.turn <= len(session.turns):
        hint = f"It has turns 1 to {len(session.turns)}." if session.turns else "It has no turn."
        raise UserError(f"no turn {parsed.turn}", where=session.id, hint=hint)
    requests = read_requests(parsed.run_folder, session.requests) if parsed.raw else None
    if parsed.json:
        _print_json(session_json(session, requests, parsed.turn))
        return
    for text, style in session_text(session, requests, parsed.turn):
        plain(console, visible(text), style)


def _print_json(value: object) -> None:
    print(json.dumps(value, ensure_ascii=False, indent=1))


def _print_list(sessions: list[LoggedSession], console: Console) -> None:
    from cbtrain.console import plain

    if not sessions:
        plain(console, "no session has begun")
        return
    rows = [("session", "therapist", "patient", "seed", "turns", "ending")]
    for session in sessions:
        seed = "" if session.seed is None else str(session.seed)
        ending = (session.ending or "not ended").replace("_", " ")
        rows.append((session.id, session.arm, session.patient, seed, str(len(session.turns)), ending))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for number, row in enumerate(rows):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        plain(console, "  ".join(cells).rstrip(), None if number else "bold")
