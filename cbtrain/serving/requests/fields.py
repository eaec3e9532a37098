"""Fields of requests that are not served: ignored where they change nothing, refused by name where they would.

``docs/serving.md`` shows this table beside vLLM's.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cbtrain.serving.errors import Refused

IGNORED = frozenset(
    "user metadata store service_tier safety_identifier request_id "
    "prompt_cache_key prompt_cache_options prompt_cache_retention".split()
)
"""Fields that say nothing about the answer, whatever their value."""

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    # OpenAI
    "audio": (),
    "best_of": (1,),
    "echo": (False,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "reasoning_effort": ("none",),
    "suffix": ("",),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "verbosity": ("medium",),
    "web_search_options": (),
    # vLLM and SGLang
    "add_generation_prompt": (True,),
    "allowed_token_ids": (),
    "bad_words": ([],),
    "cache_salt": (),
    "chat_template": (),
    "chat_template_kwargs": ({},),
    "continue_final_message": (False,),
    "documents": ([],),
    "ebnf": (),
    "guided_choice": (),
    "guided_grammar": (),
    "guided_json": (),
    "guided_regex": (),
    "ignore_eos": (False,),
    "include_reasoning": (True, False),
    "include_stop_str_in_output": (False,),
    "json_schema": (),
    "kv_transfer_params": (),
    "length_penalty": (1, 1.0),
    "logits_processors": ([],),
    "lora_path": (),
    "mm_processor_kwargs": ({},),
    "priority": (0,),
    "prompt_embeds": (),
    "prompt_logprobs": (),
    "regex": (),
    "return_token_ids": (False,),
    "return_tokens_as_token_ids": (False,),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True,),
    "structural_tag": (),
    "structured_outputs": (),
    "thinking": (),
    "truncate_prompt_tokens": (),
    "use_beam_search": (False,),
    "vllm_xargs": (),
}
"""Fields that would change the answer and are not served: the values, besides null, at which they change nothing."""

NEUTRAL_IN_CHATS: Mapping[str, tuple[Any, ...]] = {"add_special_tokens": (False,)}
NEUTRAL_IN_TEXTS: Mapping[str, tuple[Any, ...]] = {
    "add_special_tokens": (True,),
    "max_completion_tokens": (),
    "messages": (),
    "top_logprobs": (),
}

NEUTRAL_IN_MESSAGES: Mapping[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "reasoning": ("",),
    "reasoning_content": ("",),
    "refusal": (),
    "tool_call_id": (),
    "tool_calls": ([],),
}
"""Such fields of a message: clients send back the messages that they got."""


def served_fields(
    body: Mapping[str, Any], served: Iterable[str], neutral: Mapping[str, tuple[Any, ...]], where: str = ""
) -> dict[str, Any]:
    """Return the fields of ``body`` that are ``served``. Raises Refused (400) on others, by name, unless their value is
    null, ``neutral`` or ignored; ``where`` stands before the names in messages."""
    served = set(served)
    for name, value in body.items():
        if name in served or value is None or (not where and name in IGNORED):
            continue
        shown = f"{where}{name[:100]}"
        if name not in neutral:
            close = difflib.get_close_matches(name[:100], served, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise Refused(400, f"{shown}: this server knows no such field{hint}", code="unknown_field", param=shown)
        if not any(type(value) is type(allowed) and value == allowed for allowed in neutral[name]):
            allowed = " or ".join(["null", *map(json.dumps, neutral[name])])
            problem = f"{shown}: not served here; leave it out (or send {allowed})"
            raise Refused(400, problem, code="unsupported_field", param=shown)
    return {name: value for name, value in body.items() if name in served}
