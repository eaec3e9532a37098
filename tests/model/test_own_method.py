"""A method of another package: the documented example is attached, trained, saved, loaded, merged and served."""

import json
import sys

import pytest
import torch
from own_package import install_example
from peft import IA3Config, get_peft_model
from random_model import random_model
from transformers import AutoModelForCausalLM

from cbtrain.errors import UserError
from cbtrain.model import methods
from cbtrain.model.adapters.merge import merge
from cbtrain.model.adapters.methods import check_adapter, inject, load_adapter, save_adapter
from cbtrain.model.adapters.mounted import MountedAdapters
from cbtrain.model.methods import method_named
from cbtrain.model.weights.loading import load_decoder
from cbtrain.training.config import StageConfig

IDS = torch.arange(20, 60)


def logits(decoder):
    return decoder.logits(decoder(IDS, torch.arange(40), decoder.packed([0, 40])))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(install_example(site))
    methods.known_methods.cache_clear()
    yield site
    methods.known_methods.cache_clear()
    sys.modules.pop("ia3", None)


def test_the_example_is_what_peft_computes_and_goes_all_the_way(installed, tmp_path):
    base = random_model(tmp_path / "base", "qwen2")  # query, key and value have biases
    settings = StageConfig(method="ia3").adapter
    assert settings.model_dump() == {"attention": True, "mlp": True}
    decoder = load_decoder(str(base))
    untouched = logits(decoder).detach()
    adapter = inject(decoder, settings)
    assert torch.equal(logits(decoder), untouched)
    values = {name: 1 + 0.3 * torch.randn_like(p) for name, p in adapter.parameters().items()}
    with torch.no_grad():
        for name, parameter in adapter.parameters().items():
            parameter.copy_(values[name])
    found = logits(decoder)

    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    reference = get_peft_model(
        reference, IA3Config(target_modules=["k_proj", "v_proj", "down_proj"], feedforward_modules=["down_proj"])
    )
    theirs = {name: p for name, p in reference.named_parameters() if "ia3_l" in name}
    for name, parameter in theirs.items():
        path = name.removeprefix("base_model.model.model.").split(".ia3_l")[0]
        parameter.data.copy_(values[f"{path}.scale"].view_as(parameter))
    expected = reference(IDS[None]).logits[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=0)
    found.logsumexp(-1).sum().backward()
    expected.logsumexp(-1).sum().backward()
    for name, parameter in theirs.items():
        path = name.removeprefix("base_model.model.model.").split(".ia3_l")[0]
        torch.testing.assert_close(
            adapter.parameters()[f"{path}.scale"].grad, parameter.grad.flatten(), atol=1e-3, rtol=1e-3
        )

    folder = tmp_path / "adapter"
    save_adapter(decoder, folder, base=str(base))
    check_adapter(base, folder)
    again = load_decoder(str(base))
    load_adapter(again, folder)
    assert torch.equal(logits(again), found)
    with again.with_adapter(False):
        assert torch.equal(logits(again), untouched)
    served = load_decoder(str(base))
    mounted = MountedAdapters(served)
    mounted.mount("scaled", folder)
    with torch.no_grad(), mounted.rows([("scaled", 40)]):
        torch.testing.assert_close(logits(served), found.detach(), atol=1e-5, rtol=0)
    changed = merge(base, folder, tmp_path / "merged", base="base")
    assert changed == 2 * 5  # key, value and down_proj of two layers, and two biases of each
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    torch.testing.assert_close(plain(IDS[None]).logits[0].detach(), found.detach(), atol=1e-4, rtol=0)


def test_what_is_wrong_with_a_method_is_one_line(installed, tmp_path):
    base = random_model(tmp_path / "base", "llama")
    decoder = load_decoder(str(base))
    inject(decoder, StageConfig(method="ia3", options={"mlp": False}).adapter)
    save_adapter(decoder, tmp_path / "adapter", base=str(base))
    for change, problem in (
        ({"method": "ia4"}, "unknown method 'ia4'. Did you mean 'ia3'"),
        ({"options": {"mpl": True}}, "options.mpl: unknown key"),
        ({"options": {"mlp": True}}, "tensor 'layers.0.mlp.down_proj.scale' is missing"),
        ({"schema": "cbtrain.method/2"}, "schema 'cbtrain.method/2'"),
    ):
        written = json.loads((tmp_path / "adapter" / "method.json").read_text())
        (tmp_path / "adapter" / "method.json").write_text(json.dumps(written | change))
        with pytest.raises(UserError, match=problem):
            load_adapter(load_decoder(str(base)), tmp_path / "adapter")
        (tmp_path / "adapter" / "method.json").write_text(json.dumps(written))
    for options, problem in (
        ({"mpl": 1}, "options.mpl: unknown key"),
        ({"mlp": "perhaps"}, "options.mlp: must be true"),
    ):
        with pytest.raises(ValueError, match=problem):
            StageConfig(method="ia3", options=options)
    with pytest.raises(ValueError, match=r"the settings of method lora are lora\.\*"):
        StageConfig(options={"rank": 3})


def test_a_package_that_cannot_be_used_is_named(installed):
    entry = next(installed.glob("*.dist-info")) / "entry_points.txt"
    for text, problem in (
        ("ia3 = ia3:NOTHING", r"entry point ia3 \(ia3:NOTHING\) of cbtrain-ia3: cannot be loaded \(AttributeError"),
        ("ia3 = ia3:attach", "is a function, not a cbtrain.model.methods.Method"),
        ("a = ia3:METHOD\nb = ia3:METHOD", "there is another method 'ia3'"),
    ):
        entry.write_text(f"[cbtrain.methods]\n{text}\n")
        methods.known_methods.cache_clear()
        with pytest.raises(UserError, match=problem):
            method_named("lora")
