"""Every attention back-end says what the reference says, and what is handed to each is what its release takes."""

import ast
import inspect
import io
import itertools
import os
import subprocess
import sys
import tarfile

import pytest
import torch
from varlen_reference import flash_attn_2_8, plainly, torch_2_11, torch_2_12

from cbtrain.errors import UserError
from cbtrain.model.attention import flash, sdpa, torch_varlen
from cbtrain.model.attention.branches import BranchedAttention
from cbtrain.model.attention.cu_seqlens import CuSeqlens
from cbtrain.model.attention.packed import BACKENDS, choose_backend, packed_attention
from cbtrain.model.decoder import PackedAttention

SELF = [0, 1, 14, 40]
PREFIX = [0, 9, 22, 70]  # more keys than queries in each document
CASES = list(itertools.product([None, 1, 5], [SELF, PREFIX]))


def tensors(cu_seqlens_k, seed=0, kv_heads=2):
    generator = torch.Generator().manual_seed(seed)
    shapes = ((SELF[-1], 6, 16), (cu_seqlens_k[-1], kv_heads, 16), (cu_seqlens_k[-1], kv_heads, 16))
    return [torch.randn(shape, generator=generator) for shape in shapes]


@pytest.mark.parametrize(("window", "cu_seqlens_k"), CASES)
def test_the_reference_is_softmax_attention_inside_each_document(window, cu_seqlens_k):
    q, k, v = (t.double().requires_grad_() for t in tensors(cu_seqlens_k))
    actual = packed_attention(
        q, k, v, cu_seqlens_q=CuSeqlens(SELF), cu_seqlens_k=CuSeqlens(cu_seqlens_k), window=window
    )
    limits = (-1, 0) if window is None else (window - 1, 0)
    cu_q, cu_k = (torch.tensor(c, dtype=torch.int32) for c in (SELF, cu_seqlens_k))
    max_seqlen = (CuSeqlens(SELF).max_seqlen, CuSeqlens(cu_seqlens_k).max_seqlen)
    expected = plainly(q, k, v, cu_q, cu_k, *max_seqlen, limits)
    torch.testing.assert_close(actual, expected, atol=1e-12, rtol=1e-12)
    weights = torch.randn(actual.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    ours = torch.autograd.grad((actual * weights).sum(), (q, k, v))
    theirs = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("kv_heads", [2, 6], ids=["grouped", "equal"])
@pytest.mark.parametrize(("window", "cu_seqlens_k"), CASES)
@pytest.mark.parametrize(
    ("module", "release"),
    [(torch_varlen, torch_2_11), (torch_varlen, torch_2_12), (flash, flash_attn_2_8)],
    ids=["torch-2.11", "torch-2.12-to-2.15", "flash-attn-2.8"],
)
def test_kernels_are_asked_for_what_the_reference_computes(
    module, release, window, cu_seqlens_k, kv_heads, monkeypatch
):
    monkeypatch.setattr(module, "_function", lambda: release)
    q, k, v = tensors(cu_seqlens_k, kv_heads=kv_heads)
    cu_seqlens = {"cu_seqlens_q": CuSeqlens(SELF), "cu_seqlens_k": CuSeqlens(cu_seqlens_k)}
    actual = module.attend(q, k, v, **cu_seqlens, window=window)
    expected = sdpa.attend(q, k, v, **cu_seqlens, window=window)
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=1e-5)


def test_the_installed_torch_has_one_of_the_signatures_that_are_tested():
    from torch.nn.attention.varlen import varlen_attn

    def parameters(function):
        return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]

    assert parameters(varlen_attn) in (parameters(torch_2_11), parameters(torch_2_12))


@pytest.mark.parametrize("window", [None, 5])
def test_the_installed_torch_takes_the_call(window):
    # No CUDA here, but the operator's shape rules run without a device.
    q, k, v = (t.to("meta", torch.bfloat16) for t in tensors(PREFIX))
    out = torch_varlen.attend(q, k, v, cu_seqlens_q=CuSeqlens(SELF), cu_seqlens_k=CuSeqlens(PREFIX), window=window)
    assert (out.shape, out.dtype) == (q.shape, torch.bfloat16)


@pytest.mark.slow
def test_the_published_source_of_flash_attn_has_the_signature_that_is_tested(tmp_path):
    """The package has no wheels for current torch; its source distribution is read, not built."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--no-build-isolation"]
    environment = {**os.environ, "FLASH_ATTENTION_SKIP_CUDA_BUILD": "TRUE"}
    done = subprocess.run(
        [*command, "-q", "-d", tmp_path, "flash-attn>=2.8,<3"], capture_output=True, text=True, env=environment
    )
    archives = list(tmp_path.glob("flash_attn-*.tar.gz"))
    if not archives:
        pytest.skip(f"the source of flash-attn could not be downloaded: {done.stderr[-300:]}")
    with tarfile.open(archives[0]) as archive:
        name = next(n for n in archive.getnames() if n.count("/") == 2 and n.endswith("flash_attn_interface.py"))
        source = io.TextIOWrapper(archive.extractfile(name), "utf-8").read()
    published = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.name == "flash_attn_varlen_func"
    )
    ours = ast.parse(inspect.getsource(flash_attn_2_8)).body[0]
    assert ast.unparse(published.args) == ast.unparse(ours.args)


def test_the_choice_and_its_reasons():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert choose_backend("auto", cpu, torch.bfloat16, 64) == "sdpa"
    assert choose_backend("sdpa", cpu, torch.float32, 64) == "sdpa"
    for name in ("torch-varlen", "flash-attn"):
        with pytest.raises(UserError, match=rf"'{name}' cannot be used: (it needs a CUDA device|the package)"):
            choose_backend(name, cpu, torch.bfloat16, 64)
    with pytest.raises(UserError, match="unknown attention back-end 'flash'.*'flash-attn'"):
        choose_backend("flash", cpu, torch.bfloat16, 64)
    assert tuple(BACKENDS) == ("flash-attn", "torch-varlen", "sdpa")
    assert "not in float32" in with_capability((9, 0), cuda, torch.float32, 64)
    assert "these have 12" in with_capability((9, 0), cuda, torch.bfloat16, 12)
    assert "Ampere" in with_capability((7, 5), cuda, torch.bfloat16, 64)
    assert with_capability((8, 0), cuda, torch.bfloat16, 64) is None


def with_capability(capability, *facts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
        return flash.unsuited(*facts)


def test_a_varlen_of_another_shape_is_not_used(monkeypatch):
    def torch_2_10(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, is_causal=False, return_aux=None):
        raise AssertionError("called")

    monkeypatch.setattr(torch_varlen, "_function", lambda: torch_2_10)
    assert "takes no window_size" in torch_varlen.obstacle(torch.device("cpu"), torch.bfloat16, 64)


def test_cu_seqlens_are_one_tensor_object():
    cu_seqlens = CuSeqlens(SELF)
    assert cu_seqlens.on(torch.device("cpu")) is cu_seqlens.on(torch.device("cpu"))
    assert cu_seqlens.on(torch.device("cpu")).tolist() == SELF
    assert cu_seqlens.on(torch.device("cpu")).dtype == torch.int32
    assert cu_seqlens.max_seqlen == 26


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize(
    ("module", "release"), [(sdpa, None), (torch_varlen, torch_2_12), (flash, flash_attn_2_8)], ids=lambda one: ""
)
def test_branches_see_their_beginning_and_not_each_other(module, release, window, monkeypatch):
    name = next(name for name, backend in BACKENDS.items() if backend is module)
    if release is not None:
        monkeypatch.setattr(module, "_function", lambda: release)
        monkeypatch.setattr(module, "obstacle", lambda *_: None)
    choose_backend.cache_clear()
    cu_seqlens, borders = [0, 7, 30, 41], [(7, 17, 22, 30)]
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(41, heads, 16, generator=generator).requires_grad_() for heads in (6, 2, 2))
    weights = torch.randn(41, 6, 16, generator=generator)
    found = BranchedAttention(cu_seqlens, borders, window, name)(0, q, k, v)
    # The same as three documents and one more: the beginning once again, with the second branch.
    rows = torch.cat([torch.arange(7, 17), torch.arange(22, 30)])
    alone = PackedAttention([0, 7, 22, 33], window)
    first = torch.cat([torch.arange(22), torch.arange(30, 41)])
    expected = torch.empty_like(found)
    expected[first] = alone(0, q[first], k[first], v[first])
    expected[22:30] = PackedAttention([0, 18], window)(0, q[rows], k[rows], v[rows])[10:]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    ours = torch.autograd.grad((found * weights).sum(), (q, k, v))
    theirs = torch.autograd.grad((expected * weights).sum(), (q, k, v))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(BranchedAttention(cu_seqlens, borders, window, name)(0, q, k, v), found)
    choose_backend.cache_clear()
