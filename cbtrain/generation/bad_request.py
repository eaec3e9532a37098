"""What is wrong with a request, found before it is queued."""

from __future__ import annotations

from collections.abc import Collection

from cbtrain.generation.request import AdapterDropped, BadRequest, ContextOverflow, Request

LARGEST_BIAS = 1000.0


def check_request(
    request: Request, context: int, vocabulary: int, adapters: Collection[str], *, has_text: bool
) -> None:
    """Raise ContextOverflow if no token of an answer would fit into ``context`` tokens, and BadRequest on anything else
    that cannot be done with ``vocabulary`` token ids and the mounted ``adapters``. ``has_text``: there is a
    tokenizer."""
    prompt, ids = request.prompt, f"token ids must be from 0 to {vocabulary - 1:,}"
    if not prompt:
        raise BadRequest("the prompt is empty", "prompt")
    if len(prompt) >= context:
        raise ContextOverflow(f"{len(prompt):,} prompt tokens leave no room in {context:,}", "prompt")
    if not 0 <= min(prompt) <= max(prompt) < vocabulary:
        raise BadRequest(ids, "prompt")
    if not isinstance(request.seed, int):
        raise BadRequest(f"the seed must be a whole number, not {request.seed!r}", "seed")
    if any(not 0 <= token < vocabulary for token in request.logit_bias):
        raise BadRequest(f"logit_bias: {ids}", "logit_bias")
    if any(not 0 <= token < vocabulary for token in request.stop_ids):
        raise BadRequest(f"stop tokens: {ids}", "stop_ids")
    if not all(abs(bias) <= LARGEST_BIAS or bias == float("-inf") for bias in request.logit_bias.values()):
        problem = f"logit_bias must be from -{LARGEST_BIAS:g} to {LARGEST_BIAS:g}, or minus infinity"
        raise BadRequest(problem, "logit_bias")
    if request.adapter is not None and request.adapter not in adapters:
        names = ", ".join(map(repr, adapters)) or "none"
        raise AdapterDropped(f"there is no adapter {request.adapter!r}; mounted: {names}", "adapter")
    if not has_text and (request.stop or request.schema):
        raise BadRequest("stop strings and schemas need an engine with a tokenizer")
    if request.logprobs is not None and not 0 <= request.logprobs <= vocabulary:
        raise BadRequest(f"logprobs must be from 0 to {vocabulary:,}", "logprobs")
