"""On a GPU: every Triton kernel against its reference in fp64, by PyTorch's own error; training with and without."""

import json
import subprocess
import sys

import pytest
import torch
from places import LAUNCH, SHARED

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
sys.path.insert(0, str(LAUNCH))

from benchmarks.kernel_cases import Sizes, cases  # noqa: E402

from cbtrain.kernels.cross_entropy import cross_entropy, cross_entropy_reference  # noqa: E402
from cbtrain.kernels.swiglu import swiglu, swiglu_reference  # noqa: E402
from cbtrain.model.head import Head  # noqa: E402
from cbtrain.model.linears.nf4 import Nf4Linear  # noqa: E402

CUDA = torch.device("cuda")
CASES = [case for model in ("llama-8b", "qwen-7b") for case in cases(Sizes(model, 77))]
NAMED = {"argvalues": CASES, "ids": [f"{case.kernel}: {case.what}, {case.model}" for case in CASES]}


@pytest.fixture(autouse=True)
def poisoned(monkeypatch):
    """Fill what is allocated with NaN: an unwritten output shows."""
    for name in ("empty", "empty_like"):
        make = getattr(torch, name)

        def made(*args, make=make, **options):
            tensor = make(*args, **options)
            return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

        monkeypatch.setattr(torch, name, made)


def copied(given, dtype=None):
    """The case's inputs again, with their strides, in ``dtype`` if one is given."""
    return tuple(
        torch.empty_strided(one.shape, one.stride(), dtype=dtype or one.dtype, device=one.device).copy_(one)
        if isinstance(one, torch.Tensor) and one.is_floating_point()
        else one
        for one in given
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", **NAMED)
def test_errors_are_at_most_twice_those_of_pytorch(case, dtype):
    given = case.make(CUDA, dtype)
    if case.kernel == "nf4":  # the bits of bitsandbytes
        (ours,), (plain,) = case.ours(*given), case.plain(*given)
        assert torch.equal(ours, plain)
        return
    reference = case.reference or case.plain
    exact, plain = reference(*copied(given, torch.float64)), reference(*copied(given))
    ours, again = case.ours(*copied(given)), case.ours(*copied(given))
    for e, p, o, a in zip(exact, plain, ours, again, strict=True):
        assert torch.equal(o, a)
        scale = float(e.abs().max())
        assert (o.double() - e).abs().max() <= 2 * (p.double() - e).abs().max() + 2e-6 * scale


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_frozen_head_has_the_losses_and_gradients_of_fp64(dtype):
    torch.manual_seed(0)
    weight, hidden = 0.02 * torch.randn(128_256, 1024, device=CUDA), torch.randn(700, 1024, device=CUDA)
    labels, weights = torch.randint(128_256, (700,), device=CUDA), torch.rand(700, device=CUDA)
    runs = []
    for kind, kernel in ((torch.float64, False), (dtype, False), (dtype, True)):
        with torch.device(CUDA):
            head = Head(1024, 128_256, bias=False).requires_grad_(False).to(kind)
        head.weight.copy_(weight.to(dtype))
        head.kernel, x = kernel, hidden.to(dtype).to(kind).requires_grad_()
        losses = head.token_losses(x, labels)
        (gradient,) = torch.autograd.grad((losses * weights.to(losses.dtype)).sum(), x)
        runs.append((losses.detach().double(), gradient.double()))
    for e, p, o in zip(*runs, strict=True):
        assert (o - e).abs().max() <= 2 * (p - e).abs().max() + 1e-6 * e.abs().max()


def test_nothing_waits_for_the_device():
    logits, labels = torch.randn(64, 32_000, device=CUDA), torch.randint(32_000, (64,), device=CUDA)
    cross_entropy(logits, labels, logits)  # compiled
    linear = Nf4Linear(256, 512, bias=False)
    linear.load_weight(torch.randn(512, 256, device=CUDA), torch.bfloat16)
    linear.kernel = True
    linear.matrix()
    torch.cuda.set_sync_debug_mode("error")
    try:
        cross_entropy(logits, labels, logits)
        linear.matrix()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_offsets_beyond_2_to_the_31():
    if torch.cuda.mem_get_info()[0] < 24e9:
        pytest.skip("needs 24 GB")
    logits = torch.randn(16_800, 128_256, device=CUDA, dtype=torch.bfloat16)
    labels = torch.randint(128_256, (16_800,), device=CUDA)
    last, slopes = logits[-2:].clone(), torch.zeros(2, 128_256, device=CUDA)
    expected = cross_entropy_reference(last, labels[-2:], slopes)
    torch.testing.assert_close(cross_entropy(logits, labels, logits)[-2:], expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(logits[-2:].float(), slopes, atol=1e-6, rtol=2**-7)
    del logits
    gate, up = torch.randn(75_000, 2 * 14_336, device=CUDA, dtype=torch.bfloat16).chunk(2, -1)
    torch.testing.assert_close(swiglu(gate, up)[-2:], swiglu_reference(gate[-2:], up[-2:]), atol=1e-2, rtol=2**-7)


@pytest.mark.parametrize(("weights", "tolerance"), [("fp32", 1e-5), ("bf16", 1e-2), ("nf4", 1e-5)])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["by hand", "by autograd"])
def test_training_with_kernels_learns_what_it_does_without(tmp_path, weights, tolerance, dropout):
    once = {"engine": "torch", "optimizer": "adamw", "rate": 3e-3, "clip": 0.2, "steps": 10, "layout": "several"}
    once |= {"device": "cuda", "weights": weights, "dropout": dropout}
    runs = json.dumps({choice: {**once, "kernels": choice} for choice in ("off", "on")})
    program = "import sys; sys.path.insert(0, sys.argv[1]); import equivalence_worker as w; w.main(sys.argv[2:])"
    command = [sys.executable, "-c", program, SHARED, runs, tmp_path / "o.pt"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    found = torch.load(tmp_path / "o.pt", weights_only=True)
    assert found["on"]["loss"] == pytest.approx(found["off"]["loss"], rel=tolerance)
    assert found["on"]["norm"] == pytest.approx(found["off"]["norm"], rel=10 * tolerance)
    assert found["on"]["loss"][-1] != found["on"]["loss"][0]


def test_the_benchmark_runs(tmp_path):
    file = tmp_path / "rows.json"
    command = [sys.executable, LAUNCH / "benchmark.py", "kernels", "--only", "rope,nf4", "--json", file]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(file.read_text())
    assert len(rows) == 6
    assert all(row["ms"][1] >= 0.5 * row["limit_ms"] for row in rows)
