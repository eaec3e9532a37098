"""An LLM judge behind a provider: blind to the arm, structured answers, nothing imputed."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import BaseModel

from cbtrain.eval.rating.config import JudgeConfig
from cbtrain.eval.rating.judge_answer import schema_of, shape_of, why_absent
from cbtrain.eval.rating.judge_prompt import JudgePrompt
from cbtrain.eval.rating.ratable import why_unratable
from cbtrain.eval.rating.rubric import Domain, Rubric
from cbtrain.eval.rating.scores import Score, Status
from cbtrain.eval.rating.transcript_form import transcript_of
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.structured import Structured, ask, shaped
from cbtrain.providers.types import ChatRequest, ChatResponse
from cbtrain.transcripts.types import Turn

MORE_TOKENS = "raise max_tokens of this judge, or have it think less (its provider's extra_body)"

UNFOUNDED = "(cbtrain: evidence that it names is not in the session)"

MANY = 1_000_000
"""More repeats than anybody asks for."""


@dataclass(frozen=True)
class Asking:
    """How an LLM judge called ``judge`` is asked: by which instrument, with which prompt and settings."""

    judge: str
    rubric: Rubric
    prompt: JudgePrompt
    config: JudgeConfig

    @property
    def calls(self) -> list[list[Domain]]:
        """The domains of each call."""
        return [[domain] for domain in self.rubric.domains] if self.config.per_domain else [self.rubric.domains]

    def request(self, domains: Sequence[Domain], transcript: str, repeat: int) -> ChatRequest:
        """Return what is sent to rate ``domains`` of a session in its form."""
        return ChatRequest(
            self.prompt.messages(self.rubric, domains, transcript),
            max_tokens=self.config.max_tokens,
            temperature=self.config.temperature,
            seed=repeat,
            json_schema=schema_of(self.rubric, domains),
        )


class _Stop(Exception):
    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


async def judge_session(
    provider: Provider,
    asking: Asking,
    session: SimulatedSession,
    *,
    repeat: int,
    tries: Mapping[str, int] | None = None,
) -> Score:
    """Return the rating number ``repeat`` of one session. The judge reads the turns and the rubric, never ids or arms.
    ``tries`` counts earlier answers without a rating, by the first domain of the call: for each of them another answer
    is asked for, not the kept one.

    An answer that is still invalid after the re-asks leaves the score empty with the status ``invalid``; one whose
    evidence alone is not in the session keeps its scores, and the domains are named as ``unfounded``. A session in
    which a speaker says nothing is not sent: it is ``unratable``.
    """
    score = Score.empty(session, asking.judge, repeat, asking.rubric)
    if why := why_unratable(session.turns, session.labels_seen):
        score.reason["error"] = why
        return score
    transcript = transcript_of(session.turns)
    for domains in asking.calls:
        sample = repeat + MANY * (tries or {}).get(domains[0].id, 0)
        chat = functools.partial(_noted, provider, sample, score.requests)
        request = asking.request(domains, transcript, repeat)
        try:
            answer = await _answered(chat, request, asking, domains, session.turns)
        except _Stop as stop:
            score.status, score.stopped_at = stop.status, domains[0].id
            score.reason["error"] = str(stop)
            return score
        for domain in domains:
            _take(getattr(answer, domain.id), domain.id, score, session.turns)
    score.status = "unratable" if None in score.domains.values() else "ok"
    return score


def _take(rating: BaseModel, domain: str, score: Score, turns: Sequence[Turn]) -> None:
    """Put what was answered on one domain into ``score``."""
    values = dict(rating)
    score.domains[domain] = None if values["score"] is None else float(values["score"])
    founded = [one for one in values["evidence"] if not why_absent(one, turns)]
    score.evidence[domain] = list(dict.fromkeys(one.turn - 1 for one in founded))
    score.reason[domain] = values["reason"]
    if len(founded) < len(values["evidence"]):
        score.unfounded.append(domain)
        score.reason[domain] = f"{values['reason']} {UNFOUNDED}".strip()


async def _noted(provider: Provider, sample: int, requests: list[str], request: ChatRequest) -> ChatResponse:
    """Ask, and add the name of the request to ``requests``. A judge without a seed is asked for another answer all the
    same."""
    try:
        response = await provider.chat(request, sample=sample)
    except ProviderError as error:
        requests += [error.request] if error.request else []
        raise
    requests.append(response.request)
    return response


async def _answered(
    chat: Callable[[ChatRequest], Awaitable[ChatResponse]],
    request: ChatRequest,
    asking: Asking,
    domains: Sequence[Domain],
    turns: Sequence[Turn],
) -> BaseModel:
    """Return the valid answer to ``request``. Raises _Stop with the status that tells why there is none."""
    try:
        structured = await ask(chat, request, shape_of(asking.rubric, domains, turns), asking.config.max_reasks)
    except ProviderError as error:
        raise _Stop("refused" if error.kind == "content_filter" else "error", str(error)) from None
    if structured.status == "invalid" and (answer := _without_evidence(structured, asking.rubric, domains)):
        return answer
    if structured.status == "ok":
        assert structured.value is not None
        return structured.value
    if structured.status == "truncated":
        raise _Stop("truncated", f"{structured.problem}; {MORE_TOKENS}")
    refused = structured.status == "refused"
    raise _Stop(structured.status, f"the judge {structured.problem}" if refused else structured.problem)


def _without_evidence(structured: Structured[BaseModel], rubric: Rubric, domains: Sequence[Domain]) -> BaseModel | None:
    """Return the last answer if nothing is wrong with it but its evidence."""
    answer, _ = shaped(structured.responses[-1].text, shape_of(rubric, domains, None))
    return answer
