"""One session's words are the same whatever else happens in the engine: alone, in a batch, after evictions, resumed."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from peft import PeftModel
from random_model import KINDS, random_model
from schedules import GREEDY, SAMPLINGS, alone, engine_maker, play, random_adapter, sessions
from transformers import AutoModelForCausalLM

from cbtrain.generation.request import Request
from cbtrain.model.adapters.methods import save_adapter
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.architecture import parse_architecture
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.weights.loading import load_decoder

SCHEDULES, DEEP = 40, 1000
"""Of each kind of model."""

CONFIGS = {
    "a": LoraConfig(rank=4, alpha=8),
    "b": LoraConfig(rank=3, alpha=6, targets=["q_proj", "v_proj", "down_proj"], dora=True),
}


ALWAYS = ("mistral-window", "qwen3")
"""Families of every run of CI; between them they have a window, norms of queries and keys, and plain layers."""


@pytest.fixture(
    scope="module", params=[pytest.param(kind, marks=[] if kind in ALWAYS else pytest.mark.deep) for kind in KINDS]
)
def model(request, tmp_path_factory):
    """A folder with a model and two adapters, what makes engines of them, a pool of sessions and their answers alone."""
    folder = random_model(tmp_path_factory.mktemp(request.param), request.param)
    for number, (name, config) in enumerate(CONFIGS.items()):
        decoder = load_decoder(str(folder))
        random_adapter(decoder, config, number)
        save_adapter(decoder, folder / name, base=str(folder))
    make = engine_maker(*mounted(folder))
    pool = sessions(24, vocabulary=300)
    return folder, make, pool, {session.number: alone(make, session) for session in pool}


def mounted(folder):
    decoder = load_decoder(str(folder))
    adapters = MountedAdapters(decoder)
    for name in CONFIGS:
        adapters.mount(name, folder / name)
    return decoder, adapters


def differing(make, pool, expected, seeds):
    """Which turns of random schedules differ from those of sessions alone; how often things happened."""
    wrong, happened = [], Counter()
    for seed in seeds:
        answers, counts = play(make, pool, seed)
        happened.update(counts)
        wrong += [(seed, number, answers[number]) for number in answers if answers[number] != expected[number]]
    return wrong, happened


@pytest.mark.fault("C1")
def test_random_schedules_change_no_token(model):
    _, make, pool, expected = model
    wrong, happened = differing(make, pool, expected, range(SCHEDULES))
    assert wrong == []
    assert min(happened["cancelled"], happened["resumed"]) > SCHEDULES / 4, happened
    assert happened["cached"] > 50 * SCHEDULES, happened
    assert len({tuple(answer) for answers in expected.values() for answer in answers}) > 60


@pytest.mark.deep
def test_thousands_of_random_schedules_change_no_token(model):
    _, make, pool, expected = model
    assert differing(make, pool, expected, range(SCHEDULES, SCHEDULES + DEEP))[0] == []


@pytest.mark.fault("F14")
def test_deterministic_engines_give_the_same_logits_to_the_last_bit(model):
    folder, _, pool, _ = model
    decoder, adapters = mounted(folder)
    make = engine_maker(decoder, adapters, deterministic=True)
    asked = [session.request([]) for session in pool[:6]]
    asked = [replace(request, logprobs=5) for request in asked]
    cold = [make(slots=1).generate([request])[0] for request in asked]
    engine = make(slots=8, prefill=16)
    for _ in range(2):  # the second time with a warm cache
        for one, other in zip(engine.generate(asked), cold, strict=True):
            assert (one.ids, one.logprobs) == (other.ids, other.logprobs)
    assert any(completion.cached_tokens > 0 for completion in engine.generate(asked))


def test_determinism_is_tried_with_the_adapters_too():
    """Wide enough, and with threads enough, that products of small ranks depend on the number of rows."""
    sizes = {"vocab_size": 320, "hidden_size": 512, "intermediate_size": 512, "num_hidden_layers": 1}
    sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 256, "rms_norm_eps": 1e-5}
    sizes |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu"}
    sizes |= {"tie_word_embeddings": True, "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0}}
    decoder = Decoder(parse_architecture(sizes, "test"))
    initialize(decoder, 0)
    adapters = MountedAdapters(decoder)
    for rank in (8, 6):
        adapters.add(f"rank {rank}", random_adapter(decoder, LoraConfig(rank=rank), rank))
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        make = engine_maker(decoder, adapters, deterministic=True)
        asked = [
            Request(list(range(6 + 3 * n, 40 + 5 * n)), settings, n, adapters.names[n % 2], logprobs=3)
            for n, settings in enumerate(s.model_copy(update={"max_tokens": 6}) for s in (*SAMPLINGS, GREEDY, GREEDY))
        ]
        cold = [make(slots=1).generate([request])[0] for request in asked]
        together = make(slots=6).generate(asked)
    finally:
        torch.set_num_threads(before)
    assert [(a.ids, a.logprobs) for a in together] == [(a.ids, a.logprobs) for a in cold]


def test_greedy_answers_equal_transformers_and_peft(model):
    folder, _, pool, expected = model
    near = 0
    for session in (s for s in pool if s.sampling is GREEDY):
        # Anew for each: peft changes the model that it is given.
        reference = AutoModelForCausalLM.from_pretrained(folder)
        if session.adapter:
            reference = PeftModel.from_pretrained(reference, str(folder / session.adapter))
        answers = expected[session.number]
        for turn, answer in enumerate(answers):
            request = session.request(answers[:turn])
            ids = torch.tensor([[*request.prompt, *answer]])
            with torch.no_grad():
                logits = reference(ids).logits[0, len(request.prompt) - 1 : -1]
            for token, row in zip(answer, logits, strict=True):
                if token != int(row.argmax()):
                    best = row.topk(2).values
                    assert best[0] - best[1] < 1e-4, (session, turn)
                    near += 1
    assert near <= 1


def test_a_replaced_adapter_never_uses_what_the_old_one_has_read(model):
    folder, make, pool, expected = model
    decoder, adapters = mounted(folder)
    engine = engine_maker(decoder, adapters)(slots=2)
    session = next(s for s in pool if s.adapter == "a")
    request = session.request([])
    assert engine.generate([request])[0].ids == expected[session.number][0]
    engine.drop_adapter("a")
    adapters.mount("a", folder / "b")  # another adapter under the old name
    swapped = engine.generate([request])[0]
    other = make(slots=1).generate([replace(request, adapter="b")])[0]
    assert (swapped.ids, swapped.cached_tokens) == (other.ids, 0)
    engine.drop_adapter("a")
    adapters.mount("a", folder / "a")
    again = engine.generate([request])[0]
    assert again.ids == expected[session.number][0]
    assert again.cached_tokens > 0, "what the same weights have read may be used"
