"""On a GPU: cached attention in one launch, and the engine's tokens and draws, against the CPU."""

import random

import pytest
import torch
from random_model import random_model
from schedules import alone, engine_maker, play, sessions

from cbtrain.generation.config import SamplingConfig
from cbtrain.generation.sampling.draw import Draw, draw
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.attention.cached import CachedAttention, Chunk
from cbtrain.model.attention.torch_varlen import slots_obstacle
from cbtrain.model.weights.loading import load_decoder

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("context", [512, 500])
def test_chunks_and_single_tokens_over_slots(window, context):
    """With 512 tokens a slot is a page of FlashAttention; with 500 keys are gathered."""
    torch.manual_seed(0)
    layers, slots, kv_heads, heads, head_dim = 1, 7, 2, 8, 64
    shape = (layers, slots, context, kv_heads, head_dim)
    keys, values = (torch.randn(shape, dtype=torch.bfloat16, device="cuda").transpose(2, 3) for _ in range(2))
    drawn = random.Random(0)
    chunks = [Chunk(slot, drawn.randrange(300), drawn.choice([1, 1, 40])) for slot in drawn.sample(range(slots), 5)]
    rows = sum(chunk.length for chunk in chunks)
    q = torch.randn(rows, heads, head_dim, dtype=torch.bfloat16, device="cuda")
    k, v = (torch.randn(rows, kv_heads, head_dim, dtype=torch.bfloat16, device="cuda") for _ in range(2))
    attend = CachedAttention(keys, values, chunks, window)
    if context % 256:
        assert not attend.in_one_launch
    elif slots_obstacle(keys.device, keys.dtype, head_dim, context) is None:
        assert attend.in_one_launch
    out = attend(0, q, k, v)
    on_cpu = [tensor.double().cpu() for tensor in (keys, values, q, k, v)]
    exact = CachedAttention(*on_cpu[:2], chunks, window, by_row=True)(0, *on_cpu[2:])
    assert (out.double().cpu() - exact).abs().max() < 0.02 * exact.abs().max()


def test_sessions_on_a_gpu_are_the_same_in_any_schedule(tmp_path):
    folder = random_model(tmp_path, "llama")
    decoder = load_decoder(str(folder), device="cuda")
    make = engine_maker(decoder, MountedAdapters(decoder))
    pool = [session for session in sessions(24, vocabulary=300) if session.adapter is None]
    expected = {session.number: alone(make, session) for session in pool}
    on_cpu = load_decoder(str(folder))
    make_on_cpu = engine_maker(on_cpu, MountedAdapters(on_cpu))
    assert expected == {session.number: alone(make_on_cpu, session) for session in pool}
    for seed in range(20):
        answers, _ = play(make, pool, seed)
        assert answers == {number: expected[number] for number in answers}


def test_draws_are_those_of_the_cpu():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(64, 32_000, generator=generator) * 3
    settings = [SamplingConfig(), SamplingConfig(top_p=1.0), SamplingConfig(top_k=50, min_p=0.02)]
    drawn = {}
    for device in ("cpu", "cuda"):
        rows = [Draw(settings[row % 3], row, [1, 2]) for row in range(64)]
        drawn[device] = [one.token for one in draw(logits.to(device), rows, [None] * 64)]
    assert drawn["cpu"] == drawn["cuda"]
