"""Which keys of a model's ``config.json`` are used, which do not affect the computation, and which are refused.

No key is ignored in silence: a key whose value cbtrain would compute differently is refused by name, and an unknown key
is reported (:func:`unused_keys`).
"""

from __future__ import annotations

from typing import Any

from cbtrain.errors import UserError
from cbtrain.model.rope_keys import unused_rope_keys

MODEL_TYPES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
}

USED = frozenset(
    "architectures model_type vocab_size hidden_size num_hidden_layers num_attention_heads num_key_value_heads "
    "head_dim intermediate_size max_position_embeddings original_max_position_embeddings rms_norm_eps "
    "tie_word_embeddings attention_bias mlp_bias hidden_act sliding_window use_sliding_window layer_types eos_token_id "
    "rope_theta rope_scaling rope_parameters partial_rotary_factor quantization_config auto_map".split()
)

HARMLESS = frozenset(
    "transformers_version _name_or_path name_or_path dtype torch_dtype initializer_range use_cache pad_token_id "
    "bos_token_id pretraining_tp max_window_layers chunk_size_feed_forward id2label label2id num_labels problem_type "
    "return_dict return_dict_in_generate output_hidden_states output_attentions output_scores torchscript use_bfloat16 "
    "task_specific_params finetuning_task tokenizer_class prefix attn_implementation _attn_implementation "
    "_attn_implementation_autoset _attn_implementation_internal _flash_attn_2_enabled use_flash_attn use_flash_attn_v2 "
    "max_length min_length do_sample temperature top_k top_p typical_p repetition_penalty length_penalty num_beams "
    "num_beam_groups num_return_sequences diversity_penalty encoder_no_repeat_ngram_size no_repeat_ngram_size "
    "early_stopping bad_words_ids suppress_tokens begin_suppress_tokens forced_bos_token_id forced_eos_token_id "
    "remove_invalid_values exponential_decay_length_penalty decoder_start_token_id sep_token_id model_max_length "
    "max_sequence_length seq_length unsloth_version unsloth_fixed".split()
)
"""Keys about storage, training from scratch and sampling; logits do not depend on them."""

NEUTRAL: dict[str, tuple[Any, ...]] = {
    "is_encoder_decoder": (False,),
    "is_decoder": (True, False),
    "add_cross_attention": (False,),
    "cross_attention_hidden_size": (None,),
    "tie_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "use_mrope": (False,),
    "rope_interleaved": (False,),
    "rope_interleave": (False,),
    "no_rope_layers": ([],),
    "no_rope_layer_interval": (0,),
    "use_qk_norm": (False,),
    "qk_layernorm": (False,),
    "clip_qkv": (None,),
    "attn_logit_softcapping": (None,),
    "final_logit_softcapping": (None,),
    "logit_scale": (1,),
    "logits_scaling": (1,),
    "embedding_multiplier": (1,),
    "attention_multiplier": (),
    "query_pre_attn_scalar": (),
    "residual_multiplier": (1,),
    "attention_chunk_size": (None,),
    "attn_temperature_tuning": (False, 0),
    "num_experts": (0,),
    "num_local_experts": (0,),
    "parallel_residual": (False,),
    "use_parallel_residual": (False,),
    "alibi": (False,),
    "compression_config": ({},),
}
"""Keys of other architectures that change the logits, with the values besides null at which they do not."""


def refuse_other_computation(config: dict[str, Any], name: str, where: object) -> None:
    """Raise UserError if ``config`` asks for a computation that the decoder ``name`` does not do, or says that its
    weights are quantized."""
    model_type = config.get("model_type")
    if model_type not in (None, MODEL_TYPES[name]):
        problem = f"model_type {model_type!r} and architectures {name!r} are two different models"
        raise UserError(problem, where=where, hint="Restore the file that the model was published with.")
    quantized = config.get("quantization_config") or config.get("compression_config")
    if quantized:
        kind = quantized.get("quant_method", "unknown") if isinstance(quantized, dict) else "unknown"
        hint = "Name the model as its makers published it; cbtrain quantizes with model.weights=nf4."
        raise UserError(f"its weights are already quantized ({kind})", where=where, hint=hint)
    _refuse_layer_types(config, name, where)
    for key, neutral in NEUTRAL.items():
        value = config.get(key)
        if value is not None and value not in neutral:
            problem = f"{key}={value!r} changes what the model computes and is not supported"
            raise UserError(problem, where=where, hint="Use a model of a supported architecture.")


def _refuse_layer_types(config: dict[str, Any], name: str, where: object) -> None:
    kinds, layers = config.get("layer_types"), config.get("num_hidden_layers")
    if kinds is None:
        return
    unsupported = sorted({str(kind) for kind in kinds} - {"full_attention"}) if isinstance(kinds, list) else [kinds]
    if unsupported:
        hint = "Only layers of type full_attention are supported."
        raise UserError(f"layers of the type {unsupported[0]!r} are not supported", where=where, hint=hint)
    if len(kinds) != layers:
        problem = f"layer_types has {len(kinds)} entries and num_hidden_layers is {layers}"
        raise UserError(problem, where=where, hint="Restore the file that the model was published with.")
    # transformers masks by the window, and keeps keys and values by layer_types: versions differ in what counts.
    if name == "MistralForCausalLM" and config.get("sliding_window", 4096) is not None:
        problem = "layer_types says full_attention and sliding_window sets a window: they contradict each other"
        raise UserError(problem, where=where, hint="Set sliding_window to null, or remove layer_types.")


def unused_keys(config: dict[str, Any]) -> list[str]:
    """Return a short text for each key of ``config`` that is not used and may matter."""
    notes = []
    if config.get("auto_map"):
        notes.append("auto_map (the model's own Python code is never run)")
    if config.get("attention_dropout"):
        notes.append(f"attention_dropout={config['attention_dropout']!r} (attention is trained without dropout)")
    notes += unused_rope_keys(config)
    known_keys = USED | HARMLESS | NEUTRAL.keys() | {"attention_dropout"}
    empty: tuple[Any, ...] = (None, False, "", [], {})
    notes += [f"{key} (unknown)" for key in sorted(config.keys() - known_keys) if config[key] not in empty]
    return notes
