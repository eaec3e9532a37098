"""Model folders in: straight to their format, within bounds of memory, and with one clear line on what is wrong."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command import cbtrain
from places import ROOT
from random_model import random_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from cbtrain.errors import UserError
from cbtrain.model.linears.formats import WeightFormat, faster_dtype
from cbtrain.model.weights import checking
from cbtrain.model.weights.loading import load_decoder
from cbtrain.tokens.tokenizer import load_tokenizer


@pytest.fixture
def sharded(tmp_path):
    single = random_model(tmp_path / "single", "llama")
    model = AutoModelForCausalLM.from_pretrained(single, dtype=torch.float32)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="30KB")
    assert len(list((tmp_path / "sharded").glob("model-*.safetensors"))) > 2
    return tmp_path / "sharded"


def test_shards_come_in_the_wanted_dtype_with_progress(sharded):
    told = []
    decoder = load_decoder(str(sharded), weights="bf16", progress=lambda done, of: told.append((done, of)))
    assert {p.dtype for p in decoder.parameters()} == {torch.bfloat16}
    assert decoder.frequencies.dtype == torch.float32
    assert not any(p.requires_grad for p in decoder.parameters())
    stored = {name: tensor for file in sharded.glob("*.safetensors") for name, tensor in load_file(file).items()}
    for name, parameter in decoder.named_parameters():
        key = name if name.startswith("lm_head") else f"model.{name}"
        assert torch.equal(parameter, stored[key].to(torch.bfloat16))
    total = sum(file.stat().st_size for file in sharded.glob("*.safetensors"))
    assert told == sorted(told)
    assert told[-1] == (total, total)


def test_a_loaded_model_outlives_its_files(sharded):
    decoder = load_decoder(str(sharded))
    before = decoder.layers[0].mlp.up_proj.weight.clone()
    for file in sharded.glob("*.safetensors"):
        with file.open("r+b") as handle:
            handle.truncate(16)
    assert torch.equal(decoder.layers[0].mlp.up_proj.weight, before)


def test_the_fingerprint_knows_the_numbers_and_nothing_else(sharded, tmp_path):
    fingerprint = load_decoder(str(sharded)).fingerprint
    assert load_decoder(str(tmp_path / "single")).fingerprint == fingerprint
    assert load_decoder(str(sharded), weights="nf4").fingerprint == fingerprint
    half = tmp_path / "half"
    AutoModelForCausalLM.from_pretrained(sharded, dtype=torch.bfloat16).save_pretrained(half)
    assert load_decoder(str(half)).fingerprint == fingerprint
    file = half / "model.safetensors"
    tensors = load_file(file)
    tensors["model.layers.1.mlp.down_proj.weight"] *= 1.02
    save_file(tensors, file)
    assert load_decoder(str(half)).fingerprint != fingerprint


MEMORY = """
import gc, re, sys, torch
from cbtrain.model.weights.loading import load_decoder
def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1]) * 1024
load_decoder(sys.argv[2], weights=sys.argv[3])  # libraries and threads are there now
gc.collect()
open("/proc/self/clear_refs", "w").write("5")
before = peak()
decoder = load_decoder(sys.argv[1], weights=sys.argv[3])
from cbtrain.model.weights.memory import weight_memory
print(peak() - before, weight_memory(decoder).bytes)
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """A model of several shards whose weights can be told from everything else that a process holds."""
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("large")
    sizes = {"vocab_size": 2000, "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 5}
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=8, tie_word_embeddings=True))
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.02)
    model.save_pretrained(folder, max_shard_size="60MB")
    return folder


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's account of memory")
@pytest.mark.parametrize("weights", ["fp32", "bf16", "nf4"])
def test_the_host_holds_the_final_weights_and_one_shard_at_most(weights, large, tmp_path):
    shards = [file.stat().st_size for file in large.glob("*.safetensors")]
    assert len(shards) > 5
    random_model(tmp_path / "small", "llama")
    command = [sys.executable, "-c", MEMORY, large, tmp_path / "small", weights]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    used, final = map(int, done.stdout.split()[-2:])
    # A matrix is widened while it is quantized; the allocator keeps a few MB.
    assert used <= final + max(shards) + 24e6, f"{used / 1e6:.0f} MB for {final / 1e6:.0f} MB of weights"
    assert used >= 0.9 * final


def broken(source, target, change):
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    change(target)
    return str(target)


def truncate(folder):
    file = folder / "model-00003-of-00005.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def with_tensor(name, edit):
    def change(folder):
        for file in folder.glob("*.safetensors"):
            tensors = load_file(file)
            if name in tensors:
                tensors[name] = edit(tensors[name])
                save_file({k: t for k, t in tensors.items() if t is not None}, file)

    return change


def poison(value):
    def edit(tensor):
        tensor.view(-1)[-1] = value
        return tensor

    return edit


def with_index(text):
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def quantized(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": {"quant_method": "gptq"}}))


NAME = "model.layers.1.mlp.up_proj.weight"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (truncate, r"model-00003-of-00005\.safetensors: damaged safetensors file"),
        (
            lambda folder: next(folder.glob("model-00002*")).unlink(),
            r"model-00002-of-00005\.safetensors: shard is missing",
        ),
        (lambda folder: next(folder.glob("model-00002*")).write_bytes(b""), "damaged safetensors file"),
        (with_tensor(NAME, poison(float("nan"))), f"tensor '{NAME}' holds NaN or infinity"),
        (with_tensor(NAME, poison(float("-inf"))), f"tensor '{NAME}' holds NaN or infinity"),
        (with_tensor(NAME, lambda t: t[:-1].clone()), rf"'{NAME}' has shape \(47, 32\), config.json says \(48, 32\)"),
        (with_tensor(NAME, lambda t: None), r"1 tensors are missing, the first is 'layers\.1\.mlp\.up_proj"),
        (with_tensor(NAME, lambda t: t.to(torch.int8)), "is stored as int8: this model is already quantized"),
        (with_tensor(NAME, lambda t: t.to(torch.float8_e4m3fn)), "already quantized"),
        (quantized, r"its weights are already quantized \(gptq\)"),
        (with_index("{"), "index.json: malformed JSON"),
        (with_index('{"weight_map": 3}'), "malformed index"),
        (with_index('{"weight_map": {"a": "../outside.safetensors"}}'), "does not name files of this folder"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json: malformed JSON"),
        (lambda folder: (folder / "config.json").unlink(), "no config.json here"),
    ],
    ids=lambda value: None,
)
def test_what_is_wrong_with_a_model_is_said_in_one_line(sharded, tmp_path, change, message):
    with pytest.raises(UserError, match=message) as caught:
        load_decoder(broken(sharded, tmp_path / "broken", change))
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "broken") in str(caught.value)


def test_ambiguous_folders_are_read_as_transformers_does_or_refused(sharded, tmp_path):
    single = load_file(tmp_path / "single" / "model.safetensors")
    save_file({name: tensor * 2 for name, tensor in single.items()}, sharded / "model.safetensors")
    both = load_decoder(str(sharded))
    theirs = AutoModelForCausalLM.from_pretrained(sharded, dtype=torch.float32)
    assert torch.equal(both.lm_head.weight, theirs.lm_head.weight)
    tied = tmp_path / "single"
    config = json.loads((tied / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    with pytest.raises(UserError, match="ties head and embeddings, but they differ"):
        load_decoder(str(tied))
    single["lm_head.weight"] = single["model.embed_tokens.weight"].clone()
    save_file(single, tied / "model.safetensors")
    assert load_decoder(str(tied)).lm_head.weight is not None


@pytest.mark.parametrize("order", ["embeddings first", "head first"])
def test_one_number_in_which_a_tied_head_differs_is_found(tmp_path, order, monkeypatch):
    """Wherever it lies, also in a vocabulary of several blocks and in files of two dtypes."""
    monkeypatch.setattr(checking, "BLOCK", 64)
    folder = random_model(tmp_path / "m", "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    embedding = tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"].bfloat16()
    del tensors["lm_head.weight"]
    most, least = [folder / name for name in ("a.safetensors", "b.safetensors")][:: 1 if order[0] == "e" else -1]
    weight_map = dict.fromkeys(tensors, most.name) | {"lm_head.weight": least.name}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    save_file(tensors, most)
    head = embedding.float()
    save_file({"lm_head.weight": head}, least)
    assert torch.equal(load_decoder(str(folder)).lm_head.weight, head)
    for row, column in ((0, 0), (1, 31), (64, 5), (len(head) - 2, 9), (len(head) - 1, 31), (None, None)):
        other = head.clone() if row is not None else head[:-1].clone()
        if row is not None:
            other[row, column] += 1
        save_file({"lm_head.weight": other}, least)
        with pytest.raises(UserError, match="ties head and embeddings, but they differ"):
            load_decoder(str(folder))


def test_a_cast_of_the_whole_decoder_keeps_its_angles(sharded):
    decoder = load_decoder(str(sharded))
    before = decoder.frequencies.clone()
    decoder.to(torch.bfloat16)
    assert torch.equal(decoder.frequencies, before)


def test_a_tensor_that_no_decoder_has(sharded, tmp_path):
    def change(folder):
        file = next(folder.glob("model-00001*"))
        save_file({**load_file(file), "model.layers.7.mlp.up_proj.weight": torch.ones(48, 32)}, file)

    with pytest.raises(UserError, match=r"unexpected tensor 'model\.layers\.7\.mlp"):
        load_decoder(broken(sharded, tmp_path / "broken", change))


def test_pickles_are_never_opened(sharded, tmp_path):
    def change(folder):
        for file in folder.glob("*.safetensors*"):
            file.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'touch pickled'\ntR.")

    with pytest.raises(UserError, match="pickled weights, which are never opened"):
        load_decoder(broken(sharded, tmp_path / "broken", change))
    with pytest.raises(UserError, match="no such model folder"):
        load_decoder(str(tmp_path / "missing"))


def test_a_missing_tokenizer_is_one_line(sharded):
    with pytest.raises(UserError, match="no usable tokenizer") as caught:
        load_tokenizer(sharded)
    assert "\n" not in str(caught.value)
    done = cbtrain("serve", "--model", sharded, "--port", 0)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "Add tokenizer.json" in done.stderr


def test_the_five_lines_of_the_docs_run(tmp_path, capsys):
    text = (ROOT / "docs" / "model.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)[1]
    lines = [line for line in code.splitlines() if line.strip() and not line.startswith(("from ", "import "))]
    assert len(lines) == 5
    folder = random_model(tmp_path / "model", "llama")
    exec(code.replace("DIR-OR-HUB-ID", str(folder)), {})
    assert len(capsys.readouterr().out) > 10


def test_a_faster_dtype_is_named_where_the_cpu_has_one(monkeypatch):
    fp32, bf16 = WeightFormat("fp32", torch.float32), WeightFormat("bf16", torch.bfloat16)
    here = torch.cpu.get_capabilities()
    assert (faster_dtype(fp32, "cpu") is not None) == (here["amx_bf16"] or here["avx512_bf16"])
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {**here, "avx512_bf16": True})
    assert "model.weights=bf16" in faster_dtype(fp32, "cpu")
    assert "model.compute=bf16" in faster_dtype(WeightFormat("nf4", torch.float32), "cpu")
    assert faster_dtype(bf16, "cpu") is faster_dtype(fp32, "cuda") is None
