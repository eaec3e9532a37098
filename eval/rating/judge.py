"""An LLM judge behind a provider: blind to the arm, structured answers, nothing imputed."""

from __future__ import annotations

import functools
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model

from cbtrain.eval.rating.config import JudgeConfig
from cbtrain.eval.rating.ratable import RESIDUE, why_unratable
from cbtrain.eval.rating.rubric import Domain, Rubric
from cbtrain.eval.rating.scores import Score, Status
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.providers.errors import ProviderError
from cbtrain.providers.provider import Provider
from cbtrain.providers.structured import ask
from cbtrain.providers.types import ChatRequest, ChatResponse, Message
from cbtrain.transcripts.types import Turn

MORE_TOKENS = "raise evaluation.judging.judge.max_tokens, or have the judge think less (its extra_body)"

MANY = 1_000_000
"""More repeats than anybody asks for."""


class _Stop(Exception):
    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status: Status = status


async def judge_session(
    provider: Provider,
    rubric: Rubric,
    session: SimulatedSession,
    config: JudgeConfig,
    *,
    repeat: int,
    tries: Mapping[str, int] | None = None,
) -> Score:
    """Return the rating number ``repeat`` of one session. The judge reads the numbered turns and the rubric, never ids
    or arms. ``tries`` counts earlier answers without a rating, by the first domain of the call: for each of them
    another answer is asked for, not the kept one.

    An answer that is still invalid after the re-asks leaves the score empty with the status ``invalid``. A session in
    which a speaker says nothing is not sent: it is ``unratable``.
    """
    turns = session.turns
    score = Score.empty(session, provider.model, repeat, rubric)
    if why := why_unratable(turns, session.labels_seen):
        score.reason["error"] = why
        return score
    groups = [[domain] for domain in rubric.domains] if config.per_domain else [rubric.domains]
    for group in groups:
        try:
            sample = repeat + MANY * (tries or {}).get(group[0].id, 0)
            chat = functools.partial(_noted, provider, sample, score.requests)
            ratings = await _ask(chat, rubric, group, turns, config, repeat)
        except _Stop as stop:
            score.status, score.stopped_at = stop.status, group[0].id
            score.reason["error"] = str(stop)
            return score
        for domain in group:
            rating = ratings[domain.id]
            score.domains[domain.id] = None if rating["score"] is None else float(rating["score"])
            score.evidence[domain.id] = [i - 1 for i in rating["evidence"] if 1 <= i <= len(turns)]
            score.reason[domain.id] = rating["reason"]
    score.status = "unratable" if None in score.domains.values() else "ok"
    return score


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


async def _ask(
    chat: Callable[[ChatRequest], Awaitable[ChatResponse]],
    rubric: Rubric,
    domains: Sequence[Domain],
    turns: Sequence[Turn],
    config: JudgeConfig,
    repeat: int,
) -> dict[str, Any]:
    """Return the validated ratings by domain id. Raises _Stop with the status that tells why there are none."""
    request = ChatRequest(
        (Message("system", judge_instructions(rubric, domains)), Message("user", _transcript(turns))),
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        seed=repeat,
        json_schema=_schema(rubric, domains),
    )
    try:
        structured = await ask(chat, request, _answer_shape(rubric, domains), config.max_reasks)
    except ProviderError as error:
        raise _Stop("refused" if error.kind == "content_filter" else "error", str(error)) from None
    if structured.status == "ok":
        assert structured.value is not None
        return structured.value.model_dump()
    if structured.status == "truncated":
        raise _Stop("truncated", f"{structured.problem}; {MORE_TOKENS}")
    refused = structured.status == "refused"
    raise _Stop(structured.status, f"the judge {structured.problem}" if refused else structured.problem)


def judge_instructions(rubric: Rubric, domains: Sequence[Domain]) -> str:
    """Return the system prompt of a judge: how to rate, and the domains with their anchors."""
    parts = [
        "You rate the therapist in a transcript of a therapy session. Read it whole, then rate each domain below from "
        f"{rubric.minimum} to {rubric.maximum} by its anchors. Name the numbers of the turns your rating rests on, "
        "give the reason before the score, and rate what was said, not how long or polished it is. If a domain cannot "
        "be rated from this transcript, its score is null. Answer with one JSON object: a key for each domain, with "
        '"evidence" (turn numbers), "reason" (one or two sentences) and "score".'
    ]
    for domain in domains:
        anchors = "\n".join(f"  {point}: {text}" for point, text in sorted(domain.anchors.items()))
        parts.append(f"{domain.id} ({domain.name}): {domain.description}\n{anchors}")
    return "\n\n".join(parts)


def _transcript(turns: Sequence[Turn]) -> str:
    return "\n\n".join(
        f"[{number}] {turn.role.capitalize()}: {RESIDUE.sub('', turn.text).strip()}"
        for number, turn in enumerate(turns, 1)
    )


def _answer_shape(rubric: Rubric, domains: Sequence[Domain]) -> type[BaseModel]:
    # Keys that nobody asked for change no score; neither does 3.0 in place of 3.
    strict = ConfigDict(extra="ignore", strict=True)
    bounded = Field(ge=rubric.minimum, le=rubric.maximum)
    number: Any = Annotated[int, BeforeValidator(_whole)]
    rating = create_model(
        "Rating", __config__=strict, evidence=(list[number], ...), reason=(str, ...), score=(number | None, bounded)
    )
    fields: dict[str, Any] = {domain.id: (rating, ...) for domain in domains}
    return create_model("Answer", __config__=strict, **fields)


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _schema(rubric: Rubric, domains: Sequence[Domain]) -> dict[str, Any]:
    """JSON schema with enums: some providers drop numeric bounds."""
    points = [*range(rubric.minimum, rubric.maximum + 1), None]
    rating = {
        "type": "object",
        "properties": {
            "evidence": {"type": "array", "items": {"type": "integer"}},
            "reason": {"type": "string"},
            "score": {"enum": points},
        },
        "required": ["evidence", "reason", "score"],
        "additionalProperties": False,
    }
    ids = [domain.id for domain in domains]
    schema = {
        "type": "object",
        "properties": dict.fromkeys(ids, rating),
        "required": ids,
        "additionalProperties": False,
    }
    return dict(json.loads(json.dumps(schema)))
