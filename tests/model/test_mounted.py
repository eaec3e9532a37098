"""Several adapters in one forward pass: each row equals the one that its adapter alone gives."""

import itertools

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from cbtrain.errors import UserError
from cbtrain.model.adapters.methods import inject, load_adapter, save_adapter
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.adapters.row_groups import BULK_ROWS
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.weights.loading import load_decoder

METHODS = {
    "lora": LoraConfig(rank=4, alpha=6),
    "two-linears": LoraConfig(rank=3, alpha=5, targets=["v_proj", "layers.1.mlp.up_proj"]),
    "patterns": LoraConfig(rank=2, alpha=6, rank_pattern={"down_proj": 6}, alpha_pattern={"v_proj": 11}),
    "rslora": LoraConfig(rank=5, alpha=6, rslora=True),
    "dora": LoraConfig(rank=4, alpha=6, dora=True),
    "embeddings": LoraConfig(rank=4, alpha=6, modules_to_save=["embed_tokens"]),
    "head": LoraConfig(rank=4, alpha=6, modules_to_save=["lm_head"], ensure_weight_tying=False),
    "both-dora": LoraConfig(rank=4, alpha=6, modules_to_save=["embed_tokens", "lm_head"], dora=True),
    "full": FullConfig(),
}
SIZES = {
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "attention_bias": True,
}


def model(folder, tied=False, seed=0):
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=tied)).save_pretrained(folder)
    return folder


def adapter_of(base, folder, config, seed=1):
    """Save an adapter of ``config`` with random values to ``folder`` and return it."""
    decoder = load_decoder(str(base))
    adapter = inject(decoder, config, seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter.parameters().values():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    save_adapter(decoder, folder, base=str(base))
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["untied", "tied"])
def saved(request, tmp_path_factory):
    """A base, and an adapter of every method by name."""
    folder = tmp_path_factory.mktemp("saved")
    base = model(folder / "base", tied=request.param)
    return base, {
        name: adapter_of(base, folder / name, config, seed) for seed, (name, config) in enumerate(METHODS.items())
    }


@torch.inference_mode()
def forward(decoder, documents, rows=None, mounted=None):
    """Logits of ``documents``, token ids each; with the groups ``rows`` of ``mounted``."""
    ids = torch.cat(documents)
    cu_seqlens = [0, *itertools.accumulate(map(len, documents))]
    positions = torch.cat([torch.arange(len(document)) for document in documents])
    if mounted is None:
        return decoder.logits(decoder(ids, positions, decoder.packed(cu_seqlens)))
    with mounted.rows(rows):
        hidden = decoder(ids, positions, decoder.packed(cu_seqlens))
    with mounted.rows(rows):
        return decoder.logits(hidden)


def documents_of(*lengths):
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(0, 97, (length,), generator=generator) for length in lengths]


def alone(base, folder, weights="auto"):
    """A decoder with one adapter, or none, loaded as ever."""
    decoder = load_decoder(str(base), weights=weights).eval()
    if folder is not None:
        load_adapter(decoder, folder)
    return decoder


def relative(a, b):
    return ((a.double() - b.double()).norm(dim=-1) / b.double().norm(dim=-1)).max().item()


def check(base, adapters, order, lengths, *, weights="auto", within=1e-5, stacked=True):
    """Each document of a mixed batch against a decoder with its adapter alone."""
    decoder = load_decoder(str(base), weights=weights).eval()
    plain = dict(decoder.named_modules())
    mounted = MountedAdapters(decoder, stacked=stacked)
    for name, folder in adapters.items():
        mounted.mount(name, folder)
    documents = documents_of(*lengths)
    rows = [(name, len(document)) for name, document in zip(order, documents, strict=True)]
    together = forward(decoder, documents, rows, mounted).split(lengths)
    for name in {*order}:
        single = alone(base, adapters.get(name), weights)
        for other, document, logits in zip(order, documents, together, strict=True):
            if other == name:
                expected = forward(single, [document])
                assert logits.dtype == expected.dtype or single.dtype != torch.float32
                assert relative(logits, expected) < within, name
    for path, module in decoder.named_modules():
        assert plain[path] is module
    return relative(torch.cat([forward(decoder, [d]) for d in documents]), torch.cat(together))


EVERYONE = [*METHODS, None]


@pytest.mark.parametrize("stacked", [True, False], ids=["stacked", "generic"])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("single_tokens", [True, False], ids=["tokens", "documents"])
def test_each_row_of_a_mixed_batch_is_that_of_its_adapter_alone(saved, seed, single_tokens, stacked):
    base, adapters = saved
    generator = torch.Generator().manual_seed(seed)
    order = [EVERYONE[i] for i in torch.randperm(len(EVERYONE), generator=generator)]
    order += [None, *order[:3], None]
    lengths = [1 if single_tokens else int(n) for n in torch.randint(1, 9, (len(order),), generator=generator)]
    assert check(base, adapters, order, lengths, stacked=stacked) > 0.05  # the adapters matter


@pytest.mark.parametrize(
    ("order", "lengths"),
    [
        (["lora"], [7]),
        ([None, "lora", None], [3, 4, 2]),
        (["lora", "rslora", "lora", "rslora", "patterns"], [1, 1, 1, 1, 1]),
        (["lora", "rslora", "patterns", "lora"], [BULK_ROWS, 3, 2, BULK_ROWS + 5]),
        (["rslora", None, "patterns", "two-linears"], [2, BULK_ROWS, 2, 2]),
        (["full", None, "full", "head"], [2, 3, 4, 1]),
        (["full", "embeddings"], [2, 3]),
    ],
    ids=str,
)
def test_groups_in_any_order_and_size(saved, order, lengths):
    base, adapters = saved
    check(base, {name: folder for name, folder in adapters.items() if name in order}, order, lengths)


def test_few_of_many_adapters_do_not_compute_the_ranks_of_all(saved, tmp_path):
    base, _ = saved
    adapters = {str(i): adapter_of(base, tmp_path / str(i), METHODS["lora"], seed=i) for i in range(7)}
    check(base, adapters, ["0", "6", None, "3", "2"], [2, 2, 2, 1, 1])
    check(base, adapters, ["0", "6"], [2, 2])


@pytest.mark.parametrize("weights", ["nf4", "bf16"])
def test_other_formats_of_the_base(saved, weights):
    base, adapters = saved
    order = ["lora", None, "dora", "rslora", "both-dora", "head"] + (["full"] if weights == "bf16" else [])
    # bf16 rounds each product of a stack once, and those of an adapter alone three times.
    within = 0.1 if weights == "bf16" else 1e-5
    chosen = {name: adapters[name] for name in order if name is not None}
    assert check(base, chosen, order, [4] * len(order), weights=weights, within=within) > 2 * within


def test_peft_computes_the_same(saved):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    mounted = MountedAdapters(decoder)
    order = ["patterns", "lora", "rslora", "dora"]
    for name in order:
        mounted.mount(name, adapters[name])
    documents = documents_of(3, 6, 2, 4)
    together = forward(decoder, documents, list(zip(order, [3, 6, 2, 4], strict=True)), mounted).split([3, 6, 2, 4])
    for name, document, logits in zip(order, documents, together, strict=True):
        peft = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), adapters[name]
        )
        with torch.no_grad():
            assert relative(logits, peft(document[None]).logits[0]) < 1e-5, name


def test_the_base_is_bit_by_bit_the_base(saved):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    documents = documents_of(5, 2)
    before = forward(decoder, documents)
    mounted = MountedAdapters(decoder)
    for name, folder in adapters.items():
        mounted.mount(name, folder)
    assert torch.equal(forward(decoder, documents), before)
    assert torch.equal(forward(decoder, documents, [(None, 7)], mounted), before)
    assert torch.equal(forward(decoder, documents, [(None, -1)], mounted), before)
    assert torch.equal(
        forward(decoder, documents, [("dora", 7)], mounted), forward(decoder, documents, [("dora", -1)], mounted)
    )
    for name in adapters:
        mounted.drop(name)
    assert torch.equal(forward(decoder, documents), before)
    assert mounted.names == ()
    assert decoder.adapter is None


@pytest.mark.parametrize("method", ["lora", "dora", "embeddings", "full"])
def test_an_adapter_that_is_replaced_leaves_nothing_behind(saved, method, tmp_path):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    mounted = MountedAdapters(decoder)
    mounted.mount("other", adapters["rslora"])
    first = mounted.mount("a", adapters[method])
    documents, rows = documents_of(3, 4), [("a", 3), ("other", 4)]
    old = forward(decoder, documents, rows, mounted)
    mounted.drop("a")
    with pytest.raises(UserError, match="unknown adapter 'a'"):
        forward(decoder, documents, rows, mounted)
    changed = adapter_of(base, tmp_path / "changed", METHODS[method], seed=77)
    second = mounted.mount("a", changed)
    assert first != second
    assert mounted.digest("a") == second
    new = forward(decoder, documents, rows, mounted)
    assert relative(new[:3], forward(alone(base, changed), documents[:1])) < 1e-5
    assert relative(new[:3], old[:3]) > 0.01
    assert relative(new[3:], old[3:]) < 1e-5


def test_a_digest_is_of_content_and_not_of_names(saved, tmp_path):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    mounted = MountedAdapters(decoder)
    digests = [mounted.mount(name, folder) for name, folder in adapters.items()]
    assert len({*digests}) == len(METHODS)
    again = [mounted.mount(f"again-{name}", folder) for name, folder in adapters.items()]
    assert again == digests
    assert mounted.digest(None) == ""
    # One value, or the scale alone.
    scaled = adapter_of(base, tmp_path / "scaled", LoraConfig(rank=4, alpha=7), seed=0)
    assert mounted.mount("scaled", scaled) not in digests
    load_adapter(decoder, adapters["lora"])
    with torch.no_grad():
        next(iter(decoder.adapter.parameters().values()))[0, 0] += 1e-6
    assert mounted.add("nudged", decoder.adapter) not in digests


def test_what_cannot_be_mounted_changes_nothing(saved, tmp_path):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    mounted = MountedAdapters(decoder)
    mounted.mount("a", adapters["lora"])
    documents, rows = documents_of(3, 4), [("a", 3), (None, 4)]
    before = forward(decoder, documents, rows, mounted)
    with pytest.raises(UserError, match="'a' is mounted already"):
        mounted.mount("a", adapters["dora"])
    sister = model(tmp_path / "sister", seed=9)
    with pytest.raises(UserError, match=r"another base model|differs from the base's|shape"):
        mounted.mount("b", adapter_of(sister, tmp_path / "b", METHODS["lora"]))
    adapter = inject(decoder, METHODS["lora"])
    with pytest.raises(RuntimeError, match="adapter of its own"), mounted.rows([(None, 7)]):
        pass
    with torch.no_grad():
        adapter.modules["layers.1.mlp.up_proj"].lora_B[2, 1] = float("nan")
    with pytest.raises(UserError, match=r"adapter 'b': 'layers\.1\.mlp\.up_proj' holds NaN"):
        mounted.add("b", adapter)
    assert mounted.names == ("a",)
    assert torch.equal(forward(decoder, documents, rows, mounted), before)


def test_an_overflow_of_a_foreign_adapter_stays_there(saved):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    mounted = MountedAdapters(decoder)
    mounted.mount("a", adapters["lora"])
    huge = inject(decoder, METHODS["lora"])
    with torch.no_grad():
        for module in huge.modules.values():
            module.lora_A.fill_(3e38)
            module.lora_B.fill_(1.0)
    mounted.add("huge", huge)
    documents = documents_of(3, 4)
    logits = forward(decoder, documents, [("a", 3), ("huge", 4)], mounted)
    assert relative(logits[:3], forward(alone(base, adapters["lora"]), documents[:1])) < 1e-5
    assert not logits[3:].isfinite().any()


def test_rows_that_mean_nothing_are_refused(saved):
    base, adapters = saved
    decoder = load_decoder(str(base)).eval()
    mounted = MountedAdapters(decoder)
    mounted.mount("therapist", adapters["lora"])
    documents = documents_of(3, 4)
    before = forward(decoder, documents)
    for rows, error, problem in [
        ([("therapst", 7)], UserError, "unknown adapter 'therapst'. Did you mean 'therapist'"),
        ([("therapist", 3), (None, 3)], ValueError, "groups of 6 rows in all, but layers.0.self_attn.q_proj has 7"),
        ([("therapist", -1), (None, 3)], ValueError, "a group of -1 rows"),
    ]:
        with pytest.raises(error, match=problem):
            forward(decoder, documents, rows, mounted)
        assert torch.equal(forward(decoder, documents), before)
    with mounted.rows([("therapist", 7)]), pytest.raises(RuntimeError, match="a forward pass with adapters runs"):
        mounted.drop("therapist")
    with pytest.raises(UserError, match="unknown adapter 'b'"):
        mounted.drop("b")
    with pytest.raises(UserError, match="unknown adapter 'b'"):
        mounted.digest("b")
