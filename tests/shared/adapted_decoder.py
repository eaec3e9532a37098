"""A small decoder with an adapter and random values everywhere, packs for it, and gradients to compare."""

from dataclasses import replace

import numpy as np
import torch
from tiny_architecture import TINY

from cbtrain.model.adapters.methods import inject
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.loss import loss_sum

EVERYTHING = replace(TINY, qk_norm=True, qkv_bias=True, out_bias=True, mlp_bias=True, sliding_window=100, layers=3)


def adapted(architecture, config, dtype=torch.float32):
    decoder = Decoder(architecture)
    initialize(decoder, 0)
    generator = torch.Generator().manual_seed(1)
    for parameter in decoder.parameters():
        if parameter.dim() == 1:  # norms and biases of a model are not all ones and zeros
            parameter.data.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    inject(decoder.to(dtype), config)
    for parameter in decoder.adapter.parameters().values():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=dtype) * 0.1
    return decoder.train()


def pack_of(*lengths, seed=0):
    random = np.random.default_rng(seed)
    documents = []
    for number, length in enumerate(lengths):
        weights = (random.random(length) < 0.5).astype(np.float32)
        weights[0] = 0
        ids = random.integers(0, TINY.vocabulary, length).astype(np.int32)
        documents.append(Document(f"document {number}", ids, weights))
    return build_pack(documents)


def gradients(decoder, pack):
    for parameter in decoder.trainable_parameters().values():
        parameter.grad = None
    if decoder.adapter:
        decoder.adapter.prepare(0, pack.names, pack.cu_seqlens)
    loss = loss_sum(decoder, pack)
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in decoder.trainable_parameters().items()}


def errors(found, wanted):
    """By the norm of each gradient; of very small ones (those of keys nearly cancel) by a share of the whole's."""
    norms = {n: float(g.double().norm()) for n, g in wanted.items()}
    least = 0.03 * sum(norm**2 for norm in norms.values()) ** 0.5
    return {n: float((found[n] - wanted[n]).double().norm()) / max(norms[n], least) for n in wanted}
