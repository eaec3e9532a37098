"""On a GPU: every attention back-end that is installed against the reference, by its error relative to fp32."""

import pytest
import torch

from cbtrain.model.attention import sdpa
from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.packed import BACKENDS, packed_attention

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")

SELF = [0, 1, 130, 700, 1500]
PREFIX = [0, 65, 300, 1000, 2100]


@pytest.mark.parametrize("kv_heads", [2, 8], ids=["grouped", "equal"])
@pytest.mark.parametrize("cu_seqlens_k", [SELF, PREFIX], ids=["self", "prefix"])
@pytest.mark.parametrize("window", [None, 100])
@pytest.mark.parametrize("backend", ["flash-attn", "torch-varlen"])
def test_a_kernel_equals_the_reference(backend, window, cu_seqlens_k, kv_heads):
    device = torch.device("cuda")
    reason = BACKENDS[backend].obstacle(device, torch.bfloat16, 128)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    generator = torch.Generator(device).manual_seed(0)

    def random(*shape):
        return torch.randn(*shape, device=device, generator=generator).to(torch.bfloat16)

    inputs = random(SELF[-1], 8, 128), random(cu_seqlens_k[-1], kv_heads, 128), random(cu_seqlens_k[-1], kv_heads, 128)
    weights = random(SELF[-1], 8, 128)
    cu_seqlens = {"cu_seqlens_q": CuSeqlens(SELF), "cu_seqlens_k": CuSeqlens(cu_seqlens_k), "window": window}

    def run(attend, dtype, **more):
        tensors = [t.detach().to(dtype).requires_grad_() for t in inputs]
        out = attend(*tensors, **cu_seqlens, **more)
        return [t.float() for t in (out.detach(), *torch.autograd.grad((out * weights.to(dtype)).sum(), tensors))]

    exact = run(sdpa.attend, torch.float32)
    plain = run(sdpa.attend, torch.bfloat16)
    ours = run(packed_attention, torch.bfloat16, backend=backend)
    for e, p, o in zip(exact, plain, ours, strict=True):
        assert (o - e).abs().max() <= 2 * (p - e).abs().max() + 1e-5


@pytest.mark.parametrize("backend", ["flash-attn", "torch-varlen"])
def test_documents_are_bitwise_independent(backend):
    device = torch.device("cuda")
    reason = BACKENDS[backend].obstacle(device, torch.bfloat16, 64)
    if reason:
        pytest.skip(f"{backend}: {reason}")
    q, k, v = (torch.randn(SELF[-1], 4, 64, device=device, dtype=torch.bfloat16) for _ in range(3))
    changed = [t.clone() for t in (q, k, v)]
    for tensor in changed:
        tensor[130:700] *= 2

    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        results = []
        for tensors in ((q, k, v), changed):
            leaves = [t.detach().requires_grad_() for t in tensors]
            out = packed_attention(
                *leaves, cu_seqlens_q=CuSeqlens(SELF), cu_seqlens_k=CuSeqlens(SELF), window=None, backend=backend
            )
            results.append([out.detach(), *torch.autograd.grad(out.float().square().sum(), leaves)])
    finally:
        torch.use_deterministic_algorithms(False)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one[:130], other[:130])
        assert torch.equal(one[700:], other[700:])
        assert not torch.equal(one[130:700], other[130:700])
