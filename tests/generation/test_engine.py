"""The engine against ``transformers.generate``, and against itself under batching, reuse and cancellation."""

import pytest
import torch
from adapter_values import lora_modules
from transformers import AutoModelForCausalLM

from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import ContextOverflow, GenerationEngine, Request
from cbtrain.generation.sampler import sample
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.tokenizer import load_tokenizer

GREEDY = SamplingConfig(temperature=0, max_tokens=24)


def make(folder, *, slots=3, context=256, adapter=False, prefill=64):
    decoder, tokenizer = load_decoder(str(folder)), load_tokenizer(folder)
    if adapter:
        inject(decoder, LoraConfig(rank=4, alpha=8))
        generator = torch.Generator().manual_seed(3)
        for module in lora_modules(decoder).values():
            module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.3)
    config = EngineConfig(slots=slots, context_tokens=context, prefill_tokens=prefill)
    return GenerationEngine(decoder, config, stop_ids=frozenset({tokenizer.eos_token_id}), decode=tokenizer.decode)


def prompts(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 60, (n,), generator=generator).tolist()
    return [torch.randint(6, 300, (length,), generator=generator).tolist() for length in lengths]


def reference(folder, prompt, max_tokens=24):
    model = AutoModelForCausalLM.from_pretrained(folder)
    ids = torch.tensor([prompt])
    # Without a mask, `generate` would take generated pad tokens in the prompt for padding.
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=max_tokens, do_sample=False)
    out = out[0, len(prompt) :].tolist()
    eos = model.config.eos_token_id
    return out[: out.index(eos)] if eos in out else out


def test_greedy_equals_transformers_generate(folder):
    asked = prompts(8)
    answers = make(folder).generate([Request(p, GREEDY, 0) for p in asked])
    expected = [reference(folder, p) for p in asked]
    assert [a.ids for a in answers] == expected
    assert [a.finish_reason for a in answers] == ["length" if len(e) == 24 else "stop" for e in expected]
    assert len({tuple(e) for e in expected}) > 4


def test_a_conversation_keeps_its_keys_and_values_between_turns(folder):
    engine = make(folder, slots=2)
    histories = prompts(2, seed=1)
    for turn in range(4):
        answers = engine.generate([Request(h, GREEDY, 0) for h in histories])
        for history, answer in zip(histories, answers, strict=True):
            assert answer.ids == reference(folder, history)
            assert (answer.cached_tokens > 0) == (turn > 0)
            if turn:
                assert answer.prompt_tokens - answer.cached_tokens <= 8
            history += answer.ids + prompts(1, seed=turn)[0][:5]


def test_seeds_decide_whatever_else_is_in_the_batch(folder):
    sampling = SamplingConfig(temperature=1.0, max_tokens=20)
    asked = prompts(6, seed=2)
    together = make(folder).generate([Request(p, sampling, seed) for seed, p in enumerate(asked)])
    alone = [make(folder).generate([Request(p, sampling, seed)])[0] for seed, p in enumerate(asked)]
    assert [a.ids for a in together] == [a.ids for a in alone]
    assert make(folder).generate([Request(asked[0], sampling, 99)])[0].ids != alone[0].ids


def test_base_and_adapter_share_an_engine_but_no_cache(folder):
    engine = make(folder, adapter=True)
    prompt = [token for part in prompts(3, seed=3) for token in part]
    assert len(prompt) > GREEDY.max_tokens
    tuned, base, again = (engine.generate([Request(prompt, GREEDY, 0, adapter=on)])[0] for on in (True, False, True))
    mixed = engine.generate([Request(prompt, GREEDY, 0, adapter=on) for on in (False, True, False)])
    assert base.ids == reference(folder, prompt)
    assert tuned.ids == again.ids != base.ids
    assert base.cached_tokens == 0 < again.cached_tokens
    assert [m.ids for m in mixed] == [base.ids, tuned.ids, base.ids]


def test_stop_strings_and_limits(folder):
    engine = make(folder, context=64)
    prompt = prompts(1, seed=5)[0][:20]
    whole = engine.generate([Request(prompt, GREEDY, 0)])[0]
    middle = whole.text[len(whole.text) // 2]
    cut = engine.generate([Request(prompt, GREEDY, 0, stop=(middle,))])[0]
    assert (cut.finish_reason, cut.text) == ("stop", whole.text[: whole.text.index(middle)])
    many = SamplingConfig(temperature=1.0, max_tokens=10_000)
    endless = engine.generate([Request(prompt, many, seed) for seed in range(8)])
    assert max(len(e.ids) for e in endless) <= 64 - len(prompt)
    with pytest.raises(ContextOverflow, match="64 prompt tokens leave no room in 64"):
        engine.submit(Request([7] * 64, GREEDY, 0))


def test_cancelled_requests_free_their_slots(folder):
    engine = make(folder, slots=2)
    long = SamplingConfig(temperature=1.0, max_tokens=200)
    futures = [engine.submit(Request(p, long, 1)) for p in prompts(4, seed=6)]
    engine.step()
    for future in futures:
        future.cancel()
    engine.step()
    assert engine.idle
    assert not any(slot.busy for slot in engine.cache.slots)
    prompt = prompts(1, seed=7)[0]
    assert engine.generate([Request(prompt, GREEDY, 0)])[0].ids == reference(folder, prompt)


def test_sampler_keeps_to_top_p_top_k_and_the_distribution():
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    generator = torch.Generator().manual_seed(0)

    def frequencies(**settings):
        config = SamplingConfig(**({"temperature": 1.0, "top_p": 1.0} | settings))
        drawn = torch.tensor([sample(logits, config, generator) for _ in range(4000)])
        return torch.bincount(drawn, minlength=4) / 4000

    torch.testing.assert_close(frequencies(), torch.tensor([0.5, 0.3, 0.15, 0.05]), atol=0.03, rtol=0)
    torch.testing.assert_close(frequencies(top_k=2), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    torch.testing.assert_close(frequencies(top_p=0.75), torch.tensor([0.625, 0.375, 0, 0]), atol=0.03, rtol=0)
    assert sample(logits, SamplingConfig(temperature=0), generator) == 0
    assert frequencies(temperature=0.05)[0] > 0.99
