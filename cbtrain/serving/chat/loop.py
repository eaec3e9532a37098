"""The loop of a chat: read a line, carry out its command or let the therapist answer it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path

from cbtrain.errors import UserError, nearest, system_problem
from cbtrain.files import exists, expanded
from cbtrain.generation.request import BadRequest, ContextOverflow, RequestFailed
from cbtrain.generation.thread import EngineFailed
from cbtrain.serving.chat.commands import COMMANDS, Call, parse
from cbtrain.serving.chat.conversation import BASE, Answer, Conversation
from cbtrain.serving.chat.crisis_words import mentions_crisis
from cbtrain.serving.chat.notice import CRISIS, CRISIS_LINE, CRISIS_TITLE, LEAVING, NOTICE, TITLE
from cbtrain.serving.chat.terminal import Terminal
from cbtrain.serving.chat.therapist import Heard, Therapist
from cbtrain.stopping import ignore_signals
from cbtrain.transcripts.writing import write_sessions

FULL = "/undo takes back the last exchange, /new starts a new conversation, /save writes this one."
SHOWN = 60
"""Characters of a text of which a line shows the beginning."""


class Chat:
    """One person and one therapist. ``system`` is the system prompt of all therapists: a text, ``none``, or
    ``trained``, each adapter's own one of its training. ``facts`` are saved with each conversation."""

    def __init__(
        self, therapist: Therapist, terminal: Terminal, *, system: str, seed: int, facts: Mapping[str, str]
    ) -> None:
        self.therapist, self.terminal, self.system, self.seed, self.facts = therapist, terminal, system, seed, facts
        self.model = therapist.model
        self.adapters = tuple(self.model.adapters.names)
        self.adapter = next(iter(self.adapters), None)
        self.conversation = Conversation(seed)
        self._last = Heard()
        self._written: set[Path] = set()
        self._could_not_save = False
        self._commands: dict[str, Callable[[str], None]] = {
            "help": self._help,
            "crisis": self._crisis,
            "save": self._save,
            "switch": self._switch,
            "regenerate": self._regenerate,
            "undo": self._undo,
            "system": self._system,
            "new": self._new,
            "stats": self._stats,
        }

    def run(self) -> None:
        """Talk until the person leaves. Raises UserError if the engine ends, Stopped on a signal; a conversation on a
        terminal that is not saved is saved then."""
        self.terminal.panel(TITLE, f"{NOTICE}\n\n{CRISIS}")
        self._introduce()
        try:
            while not self._turn():
                pass
        except BaseException as error:
            if self.terminal.asks and self.conversation.unsaved:
                self._save_without_asking()
            if isinstance(error, EngineFailed):
                raise UserError(str(error), where="chat") from error
            raise
        finally:
            with contextlib.suppress(OSError):  # the terminal may be gone
                self.terminal.note(LEAVING)

    def _turn(self) -> bool:
        """Do what the person types next. Return whether it was to leave."""
        try:
            line = self._read()
            call = Call("quit") if line is None else parse(line)
            if isinstance(call, str):
                if call:
                    self._say(call)
            elif call.name == "quit":
                return self._may_drop()
            else:
                self._commands[call.name](call.argument)
        except ContextOverflow as error:
            self.terminal.problem(f"The context is full: {error}. {FULL}")
        except RequestFailed as error:
            self.terminal.problem(f"{error}. /regenerate asks again.")
        except (UserError, BadRequest) as error:
            self.terminal.problem(str(error))
        except KeyboardInterrupt:
            self.terminal.end_line()
        return False

    def _read(self) -> str | None:
        """Return the next line, None to leave: at the end of the input, and on Ctrl-C twice in an empty line."""
        warned = False
        while True:
            try:
                return self.terminal.read()
            except EOFError:
                if self.terminal.asks:
                    self.terminal.end_line()
                return None
            except KeyboardInterrupt:
                self.terminal.end_line()
                if self.terminal.dropped:
                    self.terminal.note("Not sent. Arrow up brings the line back.")
                elif warned:
                    return None
                else:
                    self.terminal.note("Ctrl-C again, Ctrl-D or /quit leaves.")
                warned = not self.terminal.dropped

    def _say(self, words: str) -> None:
        try:
            words.encode()
        except UnicodeEncodeError:
            raise UserError("your words are not sent: they are not UTF-8 text") from None
        if mentions_crisis(words):
            if self.conversation.crisis_help_shown:
                self.terminal.problem(CRISIS_LINE)
            else:
                self._crisis("")
            self.conversation.crisis_help_shown = True
        exchanges = list(self.conversation.exchanges)
        self.conversation.say(words)
        try:
            self._answer()
        except UserError as error:  # they contain a special token, or the chat format refuses them
            self.conversation.exchanges = exchanges
            raise UserError(f"your words are not sent: {error.what}", hint=error.hint) from None

    def _answer(self) -> None:
        """Let the therapist answer the last words. If nothing comes, they keep the answer that they had."""
        heard, seed = Heard(), self.conversation.next_seed()
        messages = self.conversation.messages(self._system_text(), self.adapter)
        lines = self.terminal.answer(f"Therapist ({self._name})" if self.adapters else "Therapist")
        try:
            self.therapist.answer(messages, self.adapter, seed, heard, lines.add)
        finally:
            text, ids = self.therapist.spoken(heard, self.adapter)
            if text:
                self.conversation.set_answer(Answer(text, self.adapter, seed, ids, stopped=heard.completion is None))
                self._last = heard
            lines.finish()
            self.terminal.end_line()
        self._remark(heard, text)

    def _remark(self, heard: Heard, text: str) -> None:
        """Say what is unusual about an answer."""
        if thinking := heard.thinking:
            self.terminal.note(f"{thinking:,} characters of thinking are not part of the answer.")
        if not text:
            what = "No words came" if heard.completion else "Stopped before the first word"
            self.terminal.note(f"{what}. /regenerate asks again, /undo takes your words back.")
        elif heard.completion is None:
            self.terminal.note("Stopped: the answer ends here.")
        elif heard.tokens >= self.model.engine.context:
            self.terminal.problem(f"The context is full: {heard.tokens:,} tokens. {FULL}")
        elif heard.completion.finish_reason == "length":
            self.terminal.note(f"Cut after {len(heard.ids):,} tokens (--max-tokens).")

    def _introduce(self) -> None:
        others = f"; others: {', '.join(name for name in self._names if name != self._name)}" if self.adapters else ""
        self.terminal.note(f"Therapist: {self._name}{others}. {self._system_note()}")
        self.terminal.note("/help lists the commands, Ctrl-D leaves.")

    def _help(self, _: str) -> None:
        signatures = {f"/{command.name} {command.argument}".strip(): command.about for command in COMMANDS.values()}
        self.terminal.table(signatures)
        self.terminal.note("A backslash at the end of a line continues it in the next one. Ctrl-C stops an answer.")

    def _crisis(self, _: str) -> None:
        self.terminal.panel(CRISIS_TITLE, CRISIS)

    def _save(self, name: str) -> None:
        if not self.conversation.exchanges:
            raise UserError("there is nothing to save yet")
        path = expanded(name) if name else Path(f"{self.conversation.name}.jsonl")
        replaces = path.absolute() in self._written
        if exists(path) and not replaces:
            raise UserError("exists already and is not replaced", where=path, hint="Name another file: /save FILE")
        facts = {"system": self._system_text() or "", **self.facts}
        try:
            write_sessions([self.conversation.session(facts)], [], path)
        except OSError as error:
            raise UserError(system_problem(error) or str(error), where="/save") from None
        self.conversation.mark_saved()
        self._written.add(path.absolute())
        self.terminal.note(f"Saved to {path}{', in place of what was saved before' if replaces else ''}.")

    def _save_without_asking(self) -> None:
        ignore_signals()  # a closed terminal fails first, and sends one then
        with contextlib.suppress(UserError, OSError):  # the error that ends the program is shown
            self._save("")

    def _may_drop(self) -> bool:
        """Return whether the conversation may end: it is saved, or the person does not want it to be."""
        if not self.conversation.unsaved or not self.terminal.asks:
            return True
        if self.terminal.confirm(f"Save this conversation to {self.conversation.name}.jsonl?"):
            try:
                self._save("")
            except UserError as error:
                if self._could_not_save:  # and the person leaves all the same
                    return True
                self._could_not_save = True
                raise UserError(str(error), hint="/save FILE saves elsewhere; leaving again loses the words") from None
        return True

    def _switch(self, name: str) -> None:
        if not name:
            self.terminal.note(f"Therapist: {self._name}. All: {', '.join(self._names)}.")
            return
        if name not in self._names:
            raise UserError(f"there is no adapter {name!r}", hint=nearest(name, self._names))
        self.adapter = None if name == BASE else name
        self.terminal.note(f"Therapist: {name}. {self._system_note()}")

    def _regenerate(self, _: str) -> None:
        if not self.conversation.exchanges:
            raise UserError("there is nothing to answer yet")
        self.terminal.note(f"Seed {self.conversation.seed}:")
        self._answer()

    def _undo(self, _: str) -> None:
        if not self.conversation.exchanges:
            raise UserError("there is nothing to take back")
        words = self.conversation.undo().words
        count = len(self.conversation.exchanges)
        left = f"{count} exchange{'s' if count != 1 else ''} left"
        self.terminal.note(f"Taken back: {_shortened(words)} ({left})")

    def _system(self, text: str) -> None:
        if text:
            self.system = text
            self.terminal.note(self._system_note())
        else:
            self.terminal.note(self._system_text() or self._system_note())

    def _new(self, _: str) -> None:
        if self._may_drop():
            self.conversation, self._last = Conversation(self.seed), Heard()
            self.terminal.note("A new conversation.")

    def _stats(self, _: str) -> None:
        last, context = self._last, self.model.engine.context
        sampling = self.therapist.sampling
        rows = {
            "therapist": self._name,
            "sampling": f"temperature {sampling.temperature:g}, top-p {sampling.top_p:g}, "
            f"at most {sampling.max_tokens:,} tokens",
            "seed": f"{self.conversation.first_seed}; of the next answer {self.conversation.seed}",
            "exchanges": str(len(self.conversation.exchanges)),
        }
        if last.ids:
            cached = f", {last.completion.cached_tokens:,} of them cached" if last.completion else ""
            rows |= {
                "last prompt": f"{last.prompt_tokens:,} tokens{cached}",
                "last answer": f"{len(last.ids):,} tokens, the first after {last.first_s:.2f} s"
                + (f", then {last.per_second:,.1f} tokens/s" if last.per_second else ""),
                "context": f"{last.tokens:,} of {context:,} tokens ({last.tokens / context:.0%})",
            }
        self.terminal.table(rows)

    @property
    def _name(self) -> str:
        return self.adapter or BASE

    @property
    def _names(self) -> tuple[str, ...]:
        return (*self.adapters, BASE)

    def _system_text(self) -> str | None:
        """Return the system prompt of the next answer. With ``trained``, the base is told what the first adapter is."""
        if self.system != "trained":
            return None if self.system == "none" else self.system
        voices = [self.model.voice_of(self.adapter), *([] if self.adapter else [self.model.voice])]
        return next((voice.trained_prompt.text for voice in voices if voice.trained_prompt), None)

    def _system_note(self) -> str:
        text = self._system_text()
        return f"System prompt: {_shortened(text)} (/system shows it)" if text else "No system prompt."


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return f"{text[:SHOWN]}…" if len(text) > SHOWN else text
