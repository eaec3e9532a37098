"""``cbtrain serve``: serve a model over the OpenAI chat protocol."""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import secrets
import socket
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cbtrain.cli.adapters import adapters_of
from cbtrain.cli.local_model import add_local_model_arguments, load_local_model
from cbtrain.cli.model import model_of
from cbtrain.cli.parser import ALIASES, Commands, add_command, add_study_arguments, leading_console, study_of
from cbtrain.cli.system_option import add_system_option, system_text
from cbtrain.environment import usable_cores
from cbtrain.errors import UserError
from cbtrain.serving.address import bind
from cbtrain.stopping import ignore_signals

if TYPE_CHECKING:
    from cbtrain.config.schema import StudyConfig
    from cbtrain.serving.guards.access import Access
    from cbtrain.serving.models import ServedModels

KEY_VARIABLE = "CBTRAIN_SERVE_KEY"
KEY = re.compile(r"[!-~]+")
DEVICE = re.compile(r"cpu|cuda|(?:cuda:)?\d{1,3}")
ORIGIN = re.compile(r"https?://[^/\s?#@]+")
SHOWN = 80
"""Characters of a system prompt that a line shows."""


def add(commands: Commands) -> None:
    text = "serve a model, and adapters of it, over the OpenAI protocol"
    example = "model.path=DIR model.weights=nf4"
    more = (
        f"For programs on this machine: other machines need a key. E.g. `cbtrain serve {example} --adapter DIR`, or "
        f"`cbtrain serve --model DIR --adapter kind=DIR --adapter brief=DIR`. {ALIASES} It serves a language model for "
        "research; it is not care."
    )
    serve = add_command(commands, "serve", _serve, text, more)
    add_study_arguments(serve, example)
    text = "adapter folder (PEFT format), and the name that clients ask for; without one it has the --name. Repeat it"
    serve.add_argument("--adapter", action="append", default=[], metavar="NAME=DIR", help=text)
    text = "name that clients ask for: of the model, or of an adapter without a name (the base is then called base)"
    serve.add_argument("--name", default="cbtrain", help=text)
    serve.add_argument("--host", default="127.0.0.1", help=f"address; others than this machine's need {KEY_VARIABLE}")
    serve.add_argument("--port", type=int, default=8000, help="port; 0: a free one, which is printed")
    add_system_option(serve, "for chats without a system message")
    add_local_model_arguments(serve, "prompt plus answer")
    text = "one process on each of these, behind one port: GPUs (0,1) or cpu,cpu. A conversation stays with one of them"
    serve.add_argument("--devices", metavar="LIST", help=text)
    serve.add_alias("--slots", "evaluation.engine.slots", type=int, help="conversations kept in the cache")
    text = "answers that may be asked for at a time; others get status 429"
    serve.add_argument("--queue", type=int, default=1024, metavar="N", help=text)
    text = "another name of this server, which requests may have as their Host. Repeat it"
    serve.add_argument("--allow-host", action="append", default=[], metavar="NAME", help=text)
    text = "web pages that may use this server, such as http://localhost:3000. Repeat it"
    serve.add_argument("--allow-origin", action="append", default=[], metavar="URL", help=text)
    text = "let clients load and unload adapters, from any folder that this process can read"
    serve.add_argument("--load-adapters", action="store_true", help=text)
    serve.add_argument("--quiet", action="store_true", help="no line for each request on standard error")
    serve.add_argument("--with-parent", action="store_true", help=argparse.SUPPRESS)  # end when standard input ends


def _serve(parsed: argparse.Namespace) -> None:
    if parsed.with_parent:
        ignore_signals()
    if not 0 <= parsed.port <= 65_535:
        raise UserError(f"{parsed.port} is no port", where="--port", hint="From 1 to 65535, or 0 for a free one.")
    if parsed.queue < 1:
        raise UserError(f"{parsed.queue} is too small", where="--queue", hint="At least 1.")
    system = system_text(parsed.system)
    access = _access(parsed)
    folders = adapters_of(parsed.adapter, lambda folder: parsed.name)
    base = "base" if parsed.name in folders else parsed.name
    if base in folders:
        problem = f"an adapter has the name of the base, {base!r}"
        raise UserError(problem, where="--adapter", hint="Give it another one: --adapter NAME=DIR.")
    config = study_of(parsed)
    name = model_of(config, "serve")
    bound = bind(parsed.host, parsed.port)
    devices = _devices(parsed)
    if len(devices) > 1:
        asyncio.run(_serve_on_several(parsed, bound, config, devices, access, folders))
        return
    if devices:
        config = config.model_copy(update={"model": config.model.model_copy(update={"device": devices[0]})})

    from cbtrain.serving.app import ModelServer
    from cbtrain.serving.models import ServedModels
    from cbtrain.serving.request_log import RequestLog
    from cbtrain.serving.run import serve

    model, notes = load_local_model(parsed, config, name, folders, leading_console())
    models = ServedModels(model, base, system, trained_prompts=parsed.system == "trained")
    access_note = "" if parsed.with_parent else _access_note(access, parsed.host)  # the parent says it
    cache, size = model.engine.cache, f"{model.engine.context:,} tokens"
    served = f"models: {', '.join(models.names)}; context {size}, {len(cache.slots)} conversations in the cache"
    for note in filter(None, (served, *notes, *_system_notes(models, parsed.system), access_note)):
        print(note, file=sys.stderr, flush=True)
    log = RequestLog(requests=not parsed.quiet)
    server = ModelServer(models, access, most_answers=parsed.queue, load_adapters=parsed.load_adapters, log=log)
    serving = serve(server.app(), bound, parsed.host, close=server.close, until_stdin_closes=parsed.with_parent)
    try:
        asyncio.run(serving)
    finally:
        log.close()


def _devices(parsed: argparse.Namespace) -> list[str]:
    """Return the devices of ``--devices``. Raises UserError on others than GPUs and CPUs."""
    if parsed.devices is None:
        return []
    names = [name.strip() for name in parsed.devices.split(",")]
    wrong = [name for name in names if not DEVICE.fullmatch(name)]
    if wrong:
        problem = f"{wrong[0]!r} is no device"
        raise UserError(problem, where="--devices", hint="Such as 0,1 (GPUs), cuda:0,cuda:1 or cpu,cpu.")
    if parsed.device is not None:
        raise UserError("--device and --devices are both there", where="--devices", hint="Leave one of them out.")
    return [f"cuda:{name}" if name.isdecimal() else name for name in names]


async def _serve_on_several(
    parsed: argparse.Namespace,
    bound: socket.socket,
    config: StudyConfig,
    devices: Sequence[str],
    access: Access,
    folders: Mapping[str, Path],
) -> None:
    """Serve with one process for each of ``devices``, each with the adapters ``folders``."""
    from cbtrain.config.loading import dump_config
    from cbtrain.serving.balancer.front import Front
    from cbtrain.serving.balancer.worker import Worker
    from cbtrain.serving.request_log import RequestLog
    from cbtrain.serving.run import serve

    log = RequestLog(requests=not parsed.quiet)
    key = secrets.token_urlsafe(32)  # only this process may ask the others
    with tempfile.TemporaryDirectory() as folder:
        workers = []
        for index, device in enumerate(devices):
            threads = config.threads or (max(1, usable_cores() // len(devices)) if device == "cpu" else None)
            model = config.model.model_copy(update={"device": device})
            device_config = config.model_copy(update={"model": model, "threads": threads})
            path = Path(folder) / f"{index}.yaml"
            path.write_text(dump_config(device_config), encoding="utf-8")
            name = device if devices.count(device) == 1 else f"{device} ({index + 1})"
            arguments = ["serve", "--config", str(path), *_passed_on(parsed), "--port", "0", "--quiet", "--with-parent"]
            environment = {KEY_VARIABLE: key}
            workers.append(Worker(name, arguments, environment, log.add, talkative=index == 0))
        names = ", ".join(worker.name for worker in workers)
        print(f"starting {len(workers)} processes: {names}", file=sys.stderr, flush=True)
        print(_access_note(access, parsed.host), file=sys.stderr, flush=True)
        context = config.evaluation.engine.context_tokens
        front = Front(workers, key, access, context=context, adapters=folders, log=log)
        try:
            await serve(front.app(), bound, parsed.host, close=front.close, until_stdin_closes=parsed.with_parent)
        finally:
            log.close()


def _passed_on(parsed: argparse.Namespace) -> list[str]:
    """Return the options, besides settings, that each process needs."""
    options = ["--name", parsed.name, "--system", parsed.system, "--queue", str(parsed.queue)]
    for adapter in parsed.adapter:
        options += ["--adapter", adapter]
    options += ["--load-adapters"] if parsed.load_adapters else []
    return options + (["--force"] if parsed.force else [])


def _access(parsed: argparse.Namespace) -> Access:
    """Return who may use the server. Raises UserError if other machines could without a key."""
    from cbtrain.serving.guards.access import LOCAL_NAMES, Access, is_loopback

    key = os.environ.get(KEY_VARIABLE)
    if key is not None and not KEY.fullmatch(key):
        problem = "the key is empty, or has spaces or other than ASCII characters, which clients cannot send"
        raise UserError(problem, where=KEY_VARIABLE, hint="Set another one, or unset it.")
    local = is_loopback(parsed.host)
    if key is None and not local:
        problem = f"other machines can reach {parsed.host}, and anybody there could use this server"
        hint = f"Set a key in the environment variable {KEY_VARIABLE}, which clients must send, or use 127.0.0.1."
        raise UserError(problem, where="--host", hint=hint)
    for origin in parsed.allow_origin:
        if not ORIGIN.fullmatch(origin):
            hint = "Such as http://localhost:3000: scheme, name and port, without a path."
            raise UserError(f"{origin!r} is not the origin of a page", where="--allow-origin", hint=hint)
    names = {name.lower() for name in parsed.allow_host}
    hosts = frozenset({*LOCAL_NAMES, f"[{parsed.host}]" if ":" in parsed.host else parsed.host.lower(), *names})
    return Access(hosts if local or names else None, frozenset(parsed.allow_origin), key)


def _access_note(access: Access, host: str) -> str:
    from cbtrain.serving.guards.access import is_loopback

    who = "programs on this machine" if is_loopback(host) else f"every machine that reaches {host}"
    key = f", with the key in {KEY_VARIABLE}" if access.key else ""
    clear = "" if is_loopback(host) else "; HTTP is not encrypted, so put a server with TLS before it"
    return f"Open to {who}{key}{clear}. Research software: what it answers is not care."


def _system_notes(models: ServedModels, option: str) -> list[str]:
    """Return for each model which system prompt is added to chats without one, or why none is; nothing of a model that
    says nothing of one."""
    notes: dict[str, list[str]] = {}
    for name in models.names:
        note = _system_note(models, models.adapter(name), option)
        notes.setdefault(note, []).append(name)
    several = len(models.names) > 1
    return [f"{', '.join(names)}: {note}" if several else note for note, names in notes.items() if note]


def _system_note(models: ServedModels, adapter: str | None, option: str) -> str:
    voice, system = models.model.voice_of(adapter), models.system_prompt(adapter)
    if system:
        source = "as trained; --system none leaves it out" if option == "trained" else option
        return f"system prompt of chats without one: {_shortened(system)} ({source})"
    trained = voice.trained_prompt
    if trained is None and option == "trained":
        return ""
    reason = "--system none" if trained is None or option == "none" else trained.note
    written = voice.renderer.own_system_text
    template = f"; the chat template writes its own: {_shortened(written)}" if written else ""
    return f"chats without a system prompt get none ({reason}){template}"


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text
