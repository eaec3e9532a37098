"""The engine's thread as asyncio sees it: streams, cancellation, slow readers, jobs between steps."""

import asyncio
from contextlib import aclosing

import pytest
from random_model import random_model
from schedules import random_adapter

from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.generation.request import BadRequest, Completion, Request
from cbtrain.generation.thread import EngineFailed
from cbtrain.model.adapters.methods import save_adapter
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.dialogue import Message

ASK = [Message("user", "I feel low.")]
SAMPLING = SamplingConfig(temperature=1.0, max_tokens=40)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = random_model(tmp_path_factory.mktemp("model"), "llama")
    decoder = load_decoder(str(folder))
    random_adapter(decoder, LoraConfig(rank=4), 1)
    save_adapter(decoder, folder / "tuned", base=str(folder))
    return folder


def local(folder, **adapters):
    return LocalModel(str(folder), adapters, EngineConfig(slots=4, context_tokens=256))


async def test_pieces_make_the_answer_and_a_slow_reader_gets_longer_ones(folder):
    async with local(folder, tuned=folder / "tuned") as model:
        for seed, adapter in enumerate((None, "tuned")):
            whole = await model.answer(ASK, SAMPLING, seed=seed, adapter=adapter)
            for pause in (0, 0.02):
                pieces = []
                async for piece in model.stream(await model.chat(ASK, SAMPLING, seed=seed, adapter=adapter)):
                    pieces.append(piece)
                    await asyncio.sleep(pause)
                *parts, last = pieces
                assert isinstance(last, Completion)
                assert (last.ids, last.text) == (whole.ids, whole.text)
                assert "".join(part.text for part in parts) == whole.text
                assert [token for part in parts for token in part.ids] == whole.ids
                assert len(parts) > 1
        assert not any(slot.busy for slot in model.engine.cache.slots)


async def test_who_leaves_a_stream_frees_its_slot(folder):
    endless = SamplingConfig(temperature=1.0, max_tokens=10_000)
    async with local(folder) as model:
        for _ in range(6):
            async with aclosing(model.stream(await model.chat(ASK, endless, seed=1))) as stream:
                async for _ in stream:
                    break
        waiting = asyncio.create_task(model.answer(ASK, endless, seed=2))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await model.answer(ASK, SAMPLING, seed=3)
        assert await model._thread.call(lambda: [slot.busy for slot in model.engine.cache.slots]) == [False] * 4


async def test_adapters_come_and_go_while_others_answer(folder):
    async with local(folder) as model:
        alone = await model.answer(ASK, SAMPLING, seed=1)
        running = [asyncio.create_task(model.answer(ASK, SAMPLING, seed=1)) for _ in range(3)]
        await model.mount("tuned", folder / "tuned")
        with pytest.raises(UserError, match="mounted already"):
            await model.mount("tuned", folder / "tuned")
        tuned = await model.answer(ASK, SAMPLING, seed=1, adapter="tuned")
        await model.drop("tuned")
        with pytest.raises(BadRequest, match="no adapter 'tuned'"):
            await model.answer(ASK, SAMPLING, seed=1, adapter="tuned")
        assert [(await task).ids for task in running] == [alone.ids] * 3
        assert tuned.ids != alone.ids
        with pytest.raises(ZeroDivisionError):
            await model._thread.call(lambda: 1 / 0)


async def test_a_model_that_is_closed_ends_what_waits(folder):
    endless = SamplingConfig(temperature=1.0, max_tokens=10_000)
    async with local(folder) as model:
        waiting = [asyncio.create_task(model.answer(ASK, endless, seed=seed)) for seed in range(8)]
        await asyncio.sleep(0.05)
    with pytest.raises(asyncio.CancelledError):
        await asyncio.gather(*waiting)
    for closed in (model, local(folder)):  # the other one has not been entered
        with pytest.raises(EngineFailed):
            await closed.complete(Request([1, 2], SAMPLING, 0))


async def test_a_model_reads_its_own_tokens_as_it_wrote_them(folder):
    """A turn's tokens are kept, also where the tokenizer would make other ones of its text."""
    async with local(folder) as model:
        renderer, messages, retokenized = model.voice.renderer, list(ASK), 0
        for seed in range(8):
            messages = messages[-4:] if len(messages) > 8 else messages
            done = await model.answer(messages, SamplingConfig(max_tokens=9), seed=seed)
            if not done.text.strip():
                continue
            messages += [Message("assistant", done.text.strip(), ids=tuple(done.ids)), Message("user", "Go on.")]
            kept, plain = renderer.prompt(messages), renderer.prompt([Message(m.role, m.content) for m in messages])
            retokenized += kept != plain
            begin = [i for i in range(len(kept)) if kept[i : i + len(done.ids)] == done.ids]
            plain_ids = not set(done.ids) & set(renderer.tokenizer.all_special_ids)
            assert bool(begin) >= plain_ids, "its tokens are in the prompt as they were drawn"
            if not plain_ids:  # special tokens would open or end turns: its words are read
                assert kept == plain
                continue
            again = await model.answer(messages, SamplingConfig(max_tokens=2), seed=0)
            # All but the last drawn token and the words that are new.
            assert again.prompt_tokens - again.cached_tokens <= 16
        assert retokenized > 3
