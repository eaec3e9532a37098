"""Write a corpus: many courses at once, the sessions of a course in order. Every part is in the journal before the
next is paid for."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from hashlib import blake2s
from itertools import pairwise
from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.journal import Journal, Shape, is_count, is_section, is_text
from cbtrain.journal import read as read_journal
from cbtrain.providers.costs import ledger
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.providers import Providers
from cbtrain.providers.structured import cut_short
from cbtrain.providers.summary import status
from cbtrain.providers.types import ChatRequest
from cbtrain.stopping import StopRequest
from cbtrain.synthesis.config import SynthesisConfig
from cbtrain.synthesis.prompts import PARTS, part_request
from cbtrain.text.thinking import without_thinking
from cbtrain.transcripts.cleaning import RESIDUE
from cbtrain.transcripts.labels import parse_labelled
from cbtrain.transcripts.profile import Profile
from cbtrain.transcripts.types import Corpus, Course, Session
from cbtrain.transcripts.writing import write_canonical

SUMMARY = "Session Summary:"
FENCE = "```"
SHOWN = 120
"""Characters of a refusal that are shown."""

SHAPES: dict[str, Shape] = {
    "started": {"config": is_section, "profiles": is_text},
    "part": {"course": is_text, "session": is_count, "part": is_count, "text": is_text, "problem": is_text},
    **ledger.SHAPES,
}
"""The fields of a journal's records on which a run is continued."""

Key = tuple[str, int, int]
"""Course, session (1-based), part (0-based)."""


@dataclass(frozen=True, slots=True)
class Written:
    """``corpus`` holds the complete courses; ``failed`` maps each other course to the reason why it stopped."""

    corpus: Corpus
    failed: dict[str, str]


async def write_corpus(
    config: SynthesisConfig,
    profiles: Sequence[Profile],
    folder: Path,
    progress: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> Written:
    """Write a course for every profile into ``folder/corpus`` and return the corpus. An interrupted run continues where
    it stopped (``folder/events.jsonl``). ``progress(text)`` is called after each part, also for those of earlier
    processes, with the state of the API; ``warn(text)`` once per problem.

    Raises UserError if the folder holds a run with other settings, or if the API refuses for good; Stopped after a
    signal, once the parts under way are recorded.
    """
    limit_s = config.providers.stop_wait_s
    with StopRequest(limit_s, warn) as stop, Journal(folder / "events.jsonl") as journal:
        events = list(read_journal(journal.path, SHAPES))
        parts = _resume(journal, events, config, profiles)
        tries = Counter(_key_of(event) for event in events if event["kind"] == "part")
        async with Providers(
            config.providers, events=journal, earlier_events=events, stop=stop, warn=warn
        ) as providers:
            provider = await providers.open(config.provider, "writer")
            whole, done = len(profiles) * config.sessions * len(PARTS), itertools.count(1)

            def advance() -> None:
                progress(status(providers, "writer", next(done) / whole))

            writer = _Writer(config, provider, journal, parts, tries, advance)
            permits = asyncio.Semaphore(config.courses_in_flight)

            async def write_course(profile: Profile) -> Course | str:
                async with AsyncExitStack() as permit:
                    with stop.interruptible():
                        await permit.enter_async_context(permits)
                    return await writer.course(profile)

            results = await stop.together(map(write_course, profiles), lambda: f"{len(parts)} of {whole} parts written")
            if provider.thoughts:
                warn(f"thinking was removed from {provider.thoughts:,} of {provider.answers:,} answers of the writer")
    courses = tuple(result for result in results if isinstance(result, Course))
    failed = {p.course: r for p, r in zip(profiles, results, strict=True) if isinstance(r, str)}
    corpus = Corpus(str(folder / "corpus"), "cbtrain", courses)
    if courses:
        write_canonical(corpus, folder / "corpus")
    return Written(corpus, failed)


class _Writer:
    def __init__(
        self,
        config: SynthesisConfig,
        provider: Provider,
        journal: Journal,
        parts: dict[Key, str],
        tries: Mapping[Key, int],
        progress: Callable[[], None],
    ) -> None:
        self.config, self.provider, self.journal = config, provider, journal
        self.parts, self.tries, self.progress = parts, tries, progress

    async def course(self, profile: Profile) -> Course | str:
        """Return the complete course, or the reason why it stopped."""
        sessions, summary = [], ""
        for number in range(1, self.config.sessions + 1):
            texts: list[str] = []
            for part in range(len(PARTS)):
                try:
                    texts.append(await self._part((profile.course, number, part), profile, texts, summary))
                except ProviderError as error:
                    if error.status in (401, 403) and error.kind == "permanent":
                        raise UserError(
                            str(error), where=self.config.provider.base_url, hint="Check the API key and its rights."
                        ) from None
                    return f"session {number}, part {part + 1}: {error}"
                except _Unusable as error:
                    return f"session {number}, part {part + 1}: {error}"
                self.progress()
            whole = "\n\n".join(texts)
            summary = whole[whole.rindex(SUMMARY) + len(SUMMARY) :].strip()
            sessions.append(Session(profile.course, number, parse_labelled(whole)[1]))
        return Course(profile.course, tuple(sessions), profile)

    async def _part(self, key: Key, profile: Profile, before: Sequence[str], summary: str) -> str:
        if key in self.parts:
            return self.parts[key]
        course, number, part = key
        problem = ""
        # Attempts of earlier processes are on disk: with their seeds the same answers would come again.
        first = self.tries.get(key, 0) + 1
        for attempt in range(first, first + self.config.attempts):
            request = ChatRequest(
                part_request(profile, number, part, before, summary),
                max_tokens=self.config.max_tokens,
                temperature=self.config.temperature,
                seed=_seed(self.config.seed, key, attempt),
            )
            response = await self.provider.chat(request, sample=request.seed or 0)
            text = part_text(response.text)
            problem = part_problem(text, part, response.finish_reason)
            if not response.text.strip() or response.finish_reason == "length":
                problem = f"{cut_short(request, response)}; raise max_tokens, or have the model think less"
            elif response.finish_reason == "refusal":
                problem = f"the model refused: {' '.join(response.text.split())[:SHOWN]!r}"
            thinking: dict[str, Any] = {"thinking_removed": response.thinking} if response.thinking else {}
            self.journal.append(
                "part",
                course=course,
                session=number,
                part=part,
                attempt=attempt,
                text=text,
                problem=problem,
                model=response.model,
                prompt_tokens=response.usage.prompt_tokens,
                completion_tokens=response.usage.completion_tokens,
                **thinking,
            )
            if not problem:
                self.parts[key] = text
                return text
        raise _Unusable(f"{problem}, {self.config.attempts} times")


class _Unusable(Exception):
    pass


def part_text(answer: str) -> str:
    """Return what an answer holds of a part: without thinking, a code fence around it, and lines about parts."""
    text = without_thinking(answer)[0]
    first, _, rest = text.strip().partition("\n")
    if first.startswith(FENCE) and " " not in first.strip() and rest.endswith(FENCE):
        text = rest.removesuffix(FENCE)
    return RESIDUE.sub("", text).strip()


def part_problem(text: str, part: int, finish_reason: str = "stop") -> str:
    """Return why a part cannot be used, or an empty text if it can."""
    if finish_reason != "stop":
        return f"the answer ended with {finish_reason!r}"
    preamble, turns = parse_labelled(text)
    if {turn.role for turn in turns} != {"patient", "therapist"}:
        return "not a dialogue of Patient: and Therapist:"
    if preamble:
        return "text before the first speaker"
    if any(a.role == b.role for a, b in pairwise(turns)):
        return "one speaker twice in a row"
    closed = SUMMARY in text
    if part == len(PARTS) - 1:
        if turns[-1].role != "therapist" or SUMMARY not in turns[-1].text:
            return "no summary in the therapist's last turn"
    elif closed:
        return "a summary before the last part"
    if FENCE in text:
        return "a code fence"
    return "asterisks" if "*" in text else ""


def _resume(
    journal: Journal, events: Sequence[dict[str, Any]], config: SynthesisConfig, profiles: Sequence[Profile]
) -> dict[Key, str]:
    """Return the parts of an earlier run in the same folder that are usable by today's rules. Raises UserError if its
    settings differ."""
    words = config.model_dump(mode="json", exclude={"courses_in_flight", "provider", "providers"})
    settings: dict[str, Any] = {
        # How patiently the API is asked, and at what cost, changes no word.
        "config": words | {"provider": config.provider.identity()},
        "profiles": blake2s("\n".join(p.model_dump_json() for p in profiles).encode()).hexdigest(),
    }
    parts: dict[Key, str] = {}
    started = None
    for record in events:
        if record["kind"] == "started":
            started = {name: record[name] for name in settings}
        elif record["kind"] == "part" and not record["problem"]:
            # Older versions let thinking and code fences pass.
            text = part_text(record["text"])
            if not part_problem(text, record["part"]):
                parts[_key_of(record)] = text
    if started is None:
        journal.append("started", **settings)
    elif started != settings:
        raise UserError(
            "holds a run with other settings or profiles", where=journal.path.parent, hint="Choose another --out."
        )
    return parts


def _key_of(event: Mapping[str, Any]) -> Key:
    return event["course"], event["session"], event["part"]


def _seed(seed: int, key: Key, attempt: int) -> int:
    return int.from_bytes(blake2s(f"{seed}|{key}|{attempt}".encode(), digest_size=4).digest(), "big") >> 1
