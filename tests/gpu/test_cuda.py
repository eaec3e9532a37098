"""On a GPU: the decoder's logits and gradients, against the CPU."""

import pytest
import torch
from random_model import random_model

from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.tokens.prefetch import Prefetcher
from cbtrain.tokens.stream import PackStream
from cbtrain.training.loss import loss_sum

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


def test_prefetched_packs_are_page_locked():
    document = Document("a", torch.arange(9).to(torch.int32).numpy(), torch.ones(9).numpy())
    with Prefetcher(PackStream([document], 16, 0), pin=True) as ahead:
        pack = ahead.step()[0].pack
    tensors = (pack.input_ids, pack.labels, pack.loss_weights, pack.position_ids, pack.target_positions)
    assert all(tensor.is_pinned() for tensor in tensors)
    assert pack.input_ids.to("cuda", non_blocking=True).tolist() == list(range(9))


@pytest.mark.parametrize("kind", ["llama", "mistral-window"])
def test_decoder_equals_the_cpu(kind, tmp_path):
    random_model(tmp_path, kind)
    ids = torch.arange(90).remainder(300).to(torch.int32).numpy()
    weights = (ids % 3 == 0).astype("float32")
    pack = build_pack([Document("a", ids[:50], weights[:50]), Document("b", ids[50:], weights[50:])])
    results = {}
    for device in ("cpu", "cuda"):
        decoder = load_decoder(str(tmp_path), device=device)
        inject(decoder, LoraConfig(rank=4), seed=0)
        loss = loss_sum(decoder, pack)
        loss.backward()
        results[device] = [loss.detach().cpu(), *(p.grad.cpu() for p in decoder.trainable_parameters().values())]
    for a, b in zip(results["cpu"], results["cuda"], strict=True):
        torch.testing.assert_close(b, a, rtol=1e-3, atol=1e-4)
