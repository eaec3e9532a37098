"""How APIs word the failures that are classified by their words, in lower case. Add an API's own wording here."""

from __future__ import annotations

OVERFLOWS = (
    "maximum context length",  # OpenAI, DeepSeek, Mistral, OpenRouter, vLLM
    "context_length_exceeded",  # OpenAI's and OpenRouter's code
    "context window",  # OpenAI's Responses, MiniMax, llama-cpp-python
    "reduce the length of the messages",  # OpenAI, Groq
    "input tokens exceed the configured limit",  # OpenAI
    "prompt is too long",  # Anthropic
    "exceed context limit",  # Anthropic: "input length and `max_tokens` exceed context limit: 189136 + 20000 > 200000"
    "exceeds the maximum number of tokens",  # Google
    "input is too long",  # Amazon Bedrock
    "maximum prompt length",  # xAI
    "exceeded model token limit",  # Moonshot
    "range of input length should be",  # Alibaba
    "longer than the model's context length",  # SGLang
    "exceeds the available context size",  # llama.cpp, with status 400 or 500
    "exceed_context_size_error",  # llama.cpp's type
    "greater than the context length",  # LM Studio
    "`inputs` tokens + `max_new_tokens` must be",  # Hugging Face
)
"""The prompt is too long."""

FILTERS = (
    "content_filter",  # OpenAI, Azure
    "content management policy",  # Azure
    "responsibleaipolicyviolation",
    "content policy",  # OpenAI
    "content_policy_violation",  # OpenAI's and OpenRouter's code
    "safety system",  # OpenAI
    "invalid_prompt",  # OpenAI's code: "your prompt was flagged as potentially violating our usage policy"
    "violating our usage policy",
    "content filtering policy",  # Anthropic: "Output blocked by content filtering policy"
    "prohibited_content",  # Google
    "content exists risk",  # DeepSeek
    "flagged_input",  # OpenRouter's moderation: a key of its metadata
    "input was flagged",
    "content violates usage guidelines",  # xAI
    "inappropriate content",  # Alibaba
    "data_inspection_failed",
    "datainspectionfailed",
    "considered high risk",  # Moonshot
    "new_sensitive",  # MiniMax
    "敏感内容",  # Zhipu
)
"""A filter has stopped the prompt or the answer."""

SPOKEN = ("flagged_input",)
"""Fields of a failure that repeat what a speaker said: no words of the API."""
