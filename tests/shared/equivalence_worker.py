"""One rank of an equivalence test: train a tiny decoder on fixed packs and write down every number.

Arguments: runs by name in JSON, each with its settings (engine, stage, optimizer, layout, …), and the file to write.
"""

import json

import numpy as np
import torch
from batches import micro_batches
from pair_documents import pairs
from tiny_architecture import TINY

from cbtrain.model import head
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.fused.savings import Savings
from cbtrain.model.kernel_choice import choose_kernels
from cbtrain.model.method_settings import SparseConfig
from cbtrain.tokens.document import Document
from cbtrain.tokens.pack import build_pack
from cbtrain.training import distributed
from cbtrain.training.config import RuntimeConfig, StageConfig
from cbtrain.training.stage import make_engine
from cbtrain.training.step import train_step

SUPERVISED = (0.9, 0.05, 0.5, 0.0, 1.0, 0.2, 0.0)
"""Very unequal shares: a document without any supervised token among them."""


def documents(step):
    random = np.random.default_rng(step)
    made = []
    for place, share in enumerate(SUPERVISED):
        length = int(random.integers(6, 40))
        weights = (random.random(length) < share).astype(np.float32) * random.choice([1.0, 0.5])
        made.append(Document(f"s{step}d{place}", random.integers(0, 61, length).astype(np.int32), weights))
    return made


def packs(step, layout, objective="sft"):
    """The same documents as one pack, or as several: accumulated, spread over ranks, one of them all masked. For another
    objective they are pairs of answers."""
    own = documents(step) if objective == "sft" else pairs(np.random.default_rng(step), 61, 7)
    if layout == "one":
        return [build_pack(own)]
    if layout == "masked first":
        return [build_pack(own[3:4]), build_pack(own[0:2]), build_pack([own[2], own[4]]), build_pack(own[5:])]
    return [build_pack(own[0:2]), build_pack(own[3:4]), build_pack([own[2], own[4]]), build_pack(own[5:])]


def decoder(method, *, weights="fp32", level="none", device="cpu", dropout=0.1):
    shape = TINY
    if weights == "nf4":
        from cbtrain.model.linears.formats import choose_weight_format

        dense = decoder_of(shape)
        made = Decoder(shape, choose_weight_format("nf4", "cpu").linear())
        for path, linear in made.linears.items():
            linear.load_weight(dense.linears[path].weight.detach(), torch.float32)
        state = {k: v for k, v in dense.state_dict().items() if k in made.state_dict()}
        made.load_state_dict(state, strict=False)
    else:
        made = decoder_of(shape).to(torch.bfloat16 if weights == "bf16" else torch.float32)
    made = made.to(device)
    # Rank 3: some tensors have an odd number of entries and cannot be shared evenly by two ranks.
    if isinstance(method, dict):
        inject(made, SparseConfig(**method), seed=1)
    else:
        inject(made, LoraConfig(rank=3, alpha=6, dropout=dropout) if method == "lora" else FullConfig(), seed=1)
    if method == "lora":
        generator = torch.Generator().manual_seed(2)
        for name, parameter in made.trainable_parameters().items():
            if name.endswith("lora_B.weight"):
                parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    made.activation_checkpointing = level
    return made.train()


def decoder_of(shape):
    made = Decoder(shape)
    initialize(made, 0)
    return made


def train(settings):
    """Every number of one short run; None on ranks other than the leading one."""
    made = decoder(
        settings.get("method", "lora"),  # or the settings of sparse deltas
        weights=settings.get("weights", "fp32"),
        level=settings.get("activation_checkpointing", "none"),
        device=settings.get("device", "cpu"),
        dropout=settings.get("dropout", 0.1),  # with dropout, layers are left to autograd
    )
    made.savings = Savings(fused=not settings.get("plain"))
    made.kernels = choose_kernels(settings.get("kernels", "off"), made.device)
    torch.use_deterministic_algorithms(settings.get("deterministic", False))
    decay = settings.get("decay", 0.01)
    objective = settings.get("objective", "sft")
    preference = {"reference": "live"} if objective == "dpo" else {}
    config = StageConfig(
        optimizer=settings["optimizer"],
        clip_norm=settings["clip"],
        weight_decay=decay,
        objective=objective,
        preference=preference,
    )
    runtime = RuntimeConfig(engine=settings["engine"], zero_stage=settings.get("stage", 1))
    engine = make_engine(made, config, runtime)
    head.LOGITS_AT_ONCE = {"cpu": settings.get("logits", 2**22)}
    head.FEWEST_ROWS = 1
    poisoned = []
    made.norm.register_forward_hook(lambda module, inputs, out: out * float("nan") if poisoned else out)
    first = engine.parameters()
    begin, results, after_one = 0, [], {}
    if settings.get("load"):
        state = torch.load(settings["load"], weights_only=True)
        engine.load(state["parameters"], state["optimizer"])
        begin = state["step"]
    for step in range(begin, settings["steps"]):
        batches = micro_batches(packs(step, settings["layout"], objective), engine.rank, engine.world)
        if step == settings.get("poison"):
            poisoned.append(step)
        results.append(train_step(made, engine, batches, settings["rate"], step=step))
        if not results[-1].skipped:
            engine.advance((step + 1) / settings["steps"])
        poisoned.clear()
        if step == 0:
            after_one = engine.parameters()
    last, optimizer, held = engine.parameters(), engine.optimizer_state(), engine.static_memory()
    engine.close()
    return {
        "loss": [r.loss for r in results],
        "norm": [r.grad_norm for r in results],
        "skipped": [r.skipped for r in results],
        "pairs": [dict(r.pairs) for r in results],
        # An update of SGD is the gradient times the rate, which is high here so that nothing is rounded away.
        "gradients": {n: (first[n] - after_one[n]) / settings["rate"] for n in after_one},
        "first": first,
        "parameters": last,
        "optimizer": optimizer,
        "step": settings["steps"],
        "world": engine.world,
        "alike": all_alike({**made.trainable_parameters(), **engine.fixed()}),
        "held": (held.gradients, held.optimizer),
    }


def all_alike(tensors):
    """Whether they are the same on every rank."""
    found = distributed.gathered([tensor.detach() for tensor in tensors.values()])
    return all(torch.equal(one, two) for other in found for one, two in zip(found[0], other, strict=True))


def main(arguments):
    runs, out = json.loads(arguments[0]), arguments[1]
    torch.set_num_threads(1)
    distributed.join(5)
    found = {name: train(settings) for name, settings in runs.items()}
    if distributed.rank() == 0:
        torch.save(found, out)
    distributed.leave()
