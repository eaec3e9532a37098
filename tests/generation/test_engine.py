"""The engine against ``transformers.generate``, what it keeps between turns, and what it refuses."""

import json
import random
from dataclasses import replace

import pytest
import torch
from schedules import engine_maker, random_adapter
from transformers import AutoModelForCausalLM

from cbtrain.errors import UserError
from cbtrain.generation.cache import common_prefix
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.engine import GenerationEngine
from cbtrain.generation.request import BadRequest, ContextOverflow, Request, RequestFailed
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.tokenizer import load_tokenizer

GREEDY = SamplingConfig(temperature=0, max_tokens=24)


def make(folder, *, slots=3, context=256, adapter=False, prefill=64):
    decoder, tokenizer = load_decoder(str(folder)), load_tokenizer(folder)
    adapters = MountedAdapters(decoder)
    if adapter:
        adapters.add("tuned", random_adapter(decoder, LoraConfig(rank=4, alpha=8), 3))
    config = EngineConfig(slots=slots, context_tokens=context, prefill_tokens=prefill)
    stop_ids = frozenset({tokenizer.eos_token_id})
    return GenerationEngine(decoder, config, stop_ids=stop_ids, tokenizer=tokenizer, adapters=adapters)


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


def test_a_shared_beginning_is_read_once(folder):
    engine = make(folder, slots=4)
    system = prompts(1, seed=11)[0] + prompts(1, seed=12)[0]
    asked = [[*system, *words] for words in prompts(6, seed=13)]
    read = []
    forward = engine.decoder.forward
    engine.decoder.forward = lambda ids, *rest: read.append(len(ids)) or forward(ids, *rest)
    answers = engine.generate([Request(prompt, GREEDY, 0) for prompt in asked])
    assert [a.ids for a in answers] == [reference(folder, prompt) for prompt in asked]
    assert [a.cached_tokens >= len(system) for a in answers] == [False, True, True, True, True, True]
    answered = sum(len(a.ids) for a in answers)
    assert sum(read) <= len(system) + sum(len(prompt) - len(system) for prompt in asked) + answered


def test_base_and_adapter_share_an_engine_but_no_cache(folder):
    engine = make(folder, adapter=True)
    prompt = [token for part in prompts(3, seed=3) for token in part]
    assert len(prompt) > GREEDY.max_tokens
    names = ("tuned", None, "tuned")
    tuned, base, again = (engine.generate([Request(prompt, GREEDY, 0, adapter=name)])[0] for name in names)
    mixed = engine.generate([Request(prompt, GREEDY, 0, adapter=name) for name in (None, "tuned", None)])
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
    assert (cut.finish_reason, cut.text, cut.stopped_by) == ("stop", whole.text[: whole.text.index(middle)], middle)
    stopped = engine.generate([Request(prompt, GREEDY, 0, stop_ids=frozenset({whole.ids[3]}))])[0]
    assert (stopped.ids, stopped.stopped_by) == (whole.ids[: whole.ids.index(whole.ids[3])], whole.ids[3])
    many = SamplingConfig(temperature=1.0, max_tokens=10_000)
    endless = engine.generate([Request(prompt, many, seed) for seed in range(8)])
    assert max(len(e.ids) for e in endless) <= 64 - len(prompt)


def test_json_answers_follow_their_schema_beside_free_ones(folder):
    engine = make(folder)
    schema = {"type": "object", "properties": {"score": {"type": "integer", "minimum": 0, "maximum": 6}}}
    schema |= {"required": ["score"], "additionalProperties": False}
    sampling = SamplingConfig(temperature=1.0, max_tokens=120)
    prompt = prompts(1, seed=9)[0]
    free, guided = (Request(prompt, sampling, 4), Request(prompt, sampling, 4, schema=schema))
    together = engine.generate([free, guided])
    assert 0 <= json.loads(together[1].text)["score"] <= 6
    assert [a.ids for a in together] == [engine.generate([request])[0].ids for request in (free, guided)]


@pytest.mark.fault("F2")
def test_what_is_wrong_with_one_request_is_its_failure_alone(folder, monkeypatch):
    engine = make(folder, context=64, adapter=True)
    prompt = prompts(1, seed=7)[0][:30]
    expected = engine.generate([Request(prompt, GREEDY, 0)])[0].ids
    good = Request(prompt, GREEDY, 0)
    for bad, problem in (
        (replace(good, prompt=[7] * 64), "64 prompt tokens leave no room in 64"),
        (replace(good, prompt=[]), "the prompt is empty"),
        (replace(good, prompt=[5, 10_000]), "token ids must be from 0 to"),
        (replace(good, adapter="tunde"), "there is no adapter 'tunde'; mounted: 'tuned'"),
        (replace(good, stop=("",)), "a stop string is empty"),
        (replace(good, schema={"type": "nonsense"}), "schema"),
        (replace(good, logit_bias={-1: 2.0}), "logit_bias"),
        (replace(good, logit_bias={1: float("nan")}), "logit_bias must be from"),
        (replace(good, logprobs=-1), "logprobs must be from 0 to"),
    ):
        with pytest.raises(BadRequest, match=problem):
            engine.submit(bad)
    with pytest.raises(ContextOverflow):
        engine.submit(replace(good, prompt=[7] * 64))
    # Defects while others are under way: in the forward pass, in drawing, and in what comes after.
    forward = engine.decoder.forward

    def breaking(ids, *rest):
        if 299 in ids.tolist():
            raise RuntimeError("out of luck")
        return forward(ids, *rest)

    monkeypatch.setattr(engine.decoder, "forward", breaking)
    futures = [engine.submit(request) for request in (good, replace(good, prompt=[*prompt, 299]), good)]
    unlistened = engine.submit(good, lambda piece: 1 / 0)
    while not engine.idle:
        engine.step()
    assert [futures[0].result().ids, futures[2].result().ids] == [expected, expected]
    for failed, cause in ((futures[1], "RuntimeError: out of luck"), (unlistened, "ZeroDivisionError")):
        with pytest.raises(RequestFailed, match=cause):
            failed.result()
    assert not any(slot.busy for slot in engine.cache.slots)


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


def test_an_adapter_is_dropped_while_it_answers(folder):
    engine = make(folder, adapter=True)
    prompt = prompts(1, seed=8)[0]
    ended, kept = engine.submit(Request(prompt, GREEDY, 0, "tuned")), engine.submit(Request(prompt, GREEDY, 0))
    engine.step()
    engine.drop_adapter("tuned")
    with pytest.raises(BadRequest, match="the adapter 'tuned' has been dropped"):
        ended.result()
    while not engine.idle:
        engine.step()
    assert kept.result().ids == reference(folder, prompt)


def test_the_cache_takes_what_memory_is_given(folder):
    decoder = load_decoder(str(folder))
    bytes_per_slot = 256 * engine_maker(decoder, None)(slots=1).cache.bytes_per_token
    config = EngineConfig(context_tokens=256, memory_gb=5.5 * bytes_per_slot / 1e9)
    assert len(GenerationEngine(decoder, config, stop_ids=frozenset()).cache.slots) == 5
    for changes, problem in (
        ({"memory_gb": bytes_per_slot / 2e9}, "one conversation of 256 tokens takes"),
        ({"slots": 6}, "6 slots do not fit into .* but 5 do"),
    ):
        with pytest.raises(UserError, match=problem):
            GenerationEngine(decoder, config.model_copy(update=changes), stop_ids=frozenset())


def test_a_common_beginning_is_counted():
    drawn = random.Random(0)
    for _ in range(300):
        a, b = ([drawn.randrange(2) for _ in range(drawn.randrange(12))] for _ in range(2))
        expected = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        assert common_prefix(a, b) == expected


def test_what_a_failed_request_has_read_reaches_nobody(folder):
    decoder = load_decoder(str(folder))
    adapters = MountedAdapters(decoder)
    adapter = random_adapter(decoder, LoraConfig(rank=4), 3)
    for name, parameter in adapter.parameters().items():
        if name.endswith("lora_B.weight"):
            parameter.data.fill_(1e37)  # finite, but what it gives is not
    adapters.add("broken", adapter)
    engine = engine_maker(decoder, adapters)(slots=2)
    long, short = prompts(1, seed=1)[0] * 2, [7, 8, 9]
    expected = [engine.generate([Request(prompt, GREEDY, 0)])[0].ids for prompt in (long, short)]
    for _ in range(2):
        failing = [engine.submit(Request(prompt, GREEDY, 0, "broken")) for prompt in (long, long)]
        while not engine.idle:
            engine.step()
        for future in failing:
            with pytest.raises(RequestFailed, match="LogitsNotFinite"):
                future.result()
    assert [a.ids for a in engine.generate([Request(prompt, GREEDY, 0) for prompt in (long, short)])] == expected


def test_conversations_keep_their_slots_while_others_are_free(folder):
    engine = make(folder, slots=8)
    system = prompts(1, seed=21)[0] * 2
    histories = [[*system, *words[:5]] for words in prompts(6, seed=22)]
    for turn in range(3):
        for history in histories:  # one after the other: none runs beside another
            answer = engine.generate([Request(history, SamplingConfig(temperature=0, max_tokens=6), 0)])[0]
            if turn:
                assert answer.prompt_tokens - answer.cached_tokens <= 4
            history += [*answer.ids, 9, 10]
    assert sum(bool(slot.tokens) for slot in engine.cache.slots) == 6


def test_a_request_has_the_guide_of_its_own_stop_tokens(folder):
    engine = make(folder)
    prompt, sampling = prompts(1, seed=9)[0], SamplingConfig(temperature=1.0, max_tokens=100)
    schema = {"type": "object", "properties": {"s": {"type": "integer"}}, "required": ["s"]}
    schema |= {"additionalProperties": False}
    stop = frozenset(engine.tokenizer.convert_tokens_to_ids(["a", "3"]))
    engine.generate([Request(prompt, sampling, 1, schema=schema, stop_ids=stop)])
    for seed in range(6):
        answer = engine.generate([Request(prompt, sampling, seed, schema=schema)])[0]
        assert answer.finish_reason == "length" or isinstance(json.loads(answer.text)["s"], int)


def test_a_waiting_request_is_not_lost_by_a_defect(folder, monkeypatch):
    engine = make(folder)
    prompt = prompts(1, seed=4)[0]
    waiting = engine.submit(Request(prompt, GREEDY, 0))
    monkeypatch.setattr(engine.cache, "acquire", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        engine.step()
    engine.fail_all(ZeroDivisionError("acquire"))
    with pytest.raises(RequestFailed, match="ZeroDivisionError"):
        waiting.result()
    assert engine.idle
