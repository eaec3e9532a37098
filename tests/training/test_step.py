"""The loss is one number however the packs are spread; the first step moves every adapter."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from adapter_values import lora_modules
from batches import micro_batches

from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training.config import StageConfig
from cbtrain.training.engines.torch_engine import TorchEngine
from cbtrain.training.loss import loss_sum
from cbtrain.training.progress import learning_rate
from cbtrain.training.step import train_step
from cbtrain.training.validation import measure_loss


def adapted(tiny, *, random_b=False):
    decoder = tiny()
    inject(decoder, LoraConfig(rank=3, alpha=6), seed=1)
    if random_b:
        generator = torch.Generator().manual_seed(2)
        for module in lora_modules(decoder).values():
            module.lora_B.data.copy_(torch.randn(module.lora_B.shape, generator=generator) * 0.2)
    return decoder


class Recorder(TorchEngine):
    """A real engine that keeps the gradients of the step for comparison."""

    def step(self, learning_rate):
        self.gradients = [p.grad.clone() for p in self.live.values()]
        return super().step(learning_rate)


def gradients(tiny, packs):
    decoder = adapted(tiny, random_b=True)
    engine = Recorder(decoder, StageConfig())
    result = train_step(decoder, engine, micro_batches(packs), 1e-3)
    return result, engine.gradients


def test_loss_sum_equals_token_by_token_cross_entropy(tiny, documents):
    decoder = tiny()
    expected = torch.zeros(())
    for document in documents:
        ids = torch.from_numpy(document.ids.astype(np.int64))
        attend = decoder.packed([0, len(ids)])
        logits = decoder.logits(decoder(ids, torch.arange(len(ids)), attend))
        for t in range(1, len(ids)):
            if document.supervised[t]:
                expected = expected + F.cross_entropy(logits[t - 1], ids[t])
    torch.testing.assert_close(loss_sum(decoder, build_pack(documents)), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("split", [[12], [1, 11], [3, 4, 5], [1] * 12])
def test_gradients_do_not_depend_on_how_documents_are_packed_or_accumulated(tiny, documents, split):
    reference, expected = gradients(tiny, [build_pack(documents)])
    rest, packs = list(documents), []
    for size in split:
        packs.append(build_pack(rest[:size]))
        rest = rest[size:]
    unsupervised = Document("silent", np.zeros(7, np.int32), np.zeros(7, np.float32))
    result, actual = gradients(tiny, [build_pack([unsupervised]), *packs])
    assert result.supervised == reference.supervised == sum(int(d.supervised[1:].sum()) for d in documents)
    assert result.loss == pytest.approx(reference.loss, rel=1e-5)
    assert result.grad_norm == pytest.approx(reference.grad_norm, rel=1e-5)
    for a, b in zip(actual, expected, strict=True):
        assert (a - b).norm() <= 1e-5 * b.norm()


def test_after_one_step_every_lora_b_has_moved_and_the_base_has_not(tiny, documents):
    decoder = adapted(tiny)
    before = {n: p.clone() for n, p in decoder.named_parameters() if not p.requires_grad}
    config = StageConfig()
    batch = micro_batches([build_pack(documents)])
    train_step(decoder, TorchEngine(decoder, config), batch, learning_rate(0.0, config))
    assert len(lora_modules(decoder)) == 14
    for name, module in lora_modules(decoder).items():
        assert module.lora_B.norm() > 0, name
    for name, parameter in decoder.named_parameters():
        if name in before:
            assert torch.equal(parameter, before[name]), name


def test_a_step_with_nothing_supervised_is_skipped(tiny):
    decoder = adapted(tiny)
    pack = build_pack([Document("silent", np.zeros(9, np.int32), np.zeros(9, np.float32))])
    before = [p.clone() for p in decoder.trainable_parameters().values()]
    result = train_step(decoder, TorchEngine(decoder, StageConfig()), micro_batches([pack]), 1e-2)
    assert result.skipped
    assert all(torch.equal(a, b) for a, b in zip(before, decoder.trainable_parameters().values(), strict=True))


def test_a_non_finite_gradient_changes_nothing(tiny, documents):
    decoder = adapted(tiny)
    decoder.norm.weight.data[0] = float("inf")
    before = [p.clone() for p in decoder.trainable_parameters().values()]
    engine = TorchEngine(decoder, StageConfig())
    result = train_step(decoder, engine, micro_batches([build_pack(documents)]), 1e-2)
    assert result.skipped
    assert all(torch.equal(a, b) for a, b in zip(before, decoder.trainable_parameters().values(), strict=True))
    assert not engine.optimizer.state


def test_validation_equals_the_training_loss(tiny, documents):
    decoder = tiny()
    whole = measure_loss(decoder, documents, 10_000)
    assert measure_loss(decoder, documents, 50).mean == pytest.approx(whole.mean, rel=1e-5)
    assert whole.total == pytest.approx(loss_sum(decoder, build_pack(documents)).item(), rel=1e-5)


def test_schedule():
    config = StageConfig(learning_rate=1.0, warmup=0.1, schedule="linear")
    assert 0 < learning_rate(0.0, config) < 0.05
    assert learning_rate(0.05, config) == pytest.approx(0.5)
    assert learning_rate(0.1, config) == pytest.approx(1.0)
    assert learning_rate(0.55, config) == pytest.approx(0.5)
    assert learning_rate(1.0, config) == pytest.approx(0.0)
    cosine = config.model_copy(update={"schedule": "cosine"})
    assert learning_rate(0.55, cosine) == pytest.approx(0.5)
    assert learning_rate(0.3, config.model_copy(update={"schedule": "constant"})) == 1.0
