"""Tokenizer, template and settings beside base and adapter: used, refused in one line, or told."""

import ast
import asyncio
import json
import shutil
import subprocess
import sys

import pytest
import torch
from command import cbtrain
from family_tokenizers import family_tokenizer
from peft import LoraConfig, get_peft_model
from places import ROOT
from random_model import random_model
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from cbtrain.errors import UserError
from cbtrain.generation.config import EngineConfig, SamplingConfig
from cbtrain.generation.local_model import LocalModel
from cbtrain.model.adapters.merge import merge
from cbtrain.model.architecture import read_architecture
from cbtrain.tokens.adapter_tokenizer import added_stop_ids
from cbtrain.tokens.chat import ChatRenderer
from cbtrain.tokens.dialogue import Message
from cbtrain.tokens.formats import choose_format
from cbtrain.tokens.tokenizer import save_tokenizer, train_tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] | trim + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
ENGINE = EngineConfig(slots=1, context_tokens=256)
HI = [Message("user", "I feel <|mood|> low.")]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A base whose embeddings have spare rows, and what peft saves of an adapter of it."""
    folder = tmp_path_factory.mktemp("folders")
    base = random_model(folder / "base", "llama")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    model.resize_token_embeddings(read_architecture(base).vocabulary + 2, mean_resizing=False)
    model.save_pretrained(base)
    get_peft_model(model, LoraConfig(r=2, target_modules=["q_proj"])).save_pretrained(folder / "adapter")
    return base, folder / "adapter"


@pytest.fixture
def base(made, tmp_path):
    return shutil.copytree(made[0], tmp_path / "base")


@pytest.fixture
def adapter(made, tmp_path):
    return shutil.copytree(made[1], tmp_path / "adapter")


def serve(base, adapter=None, chat_format="auto"):
    adapters = {"adapter": str(adapter)} if adapter else {}
    return LocalModel(str(base), adapters, ENGINE, chat_format=chat_format)


def edit(file, **changes):
    settings = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**settings, **changes}))


def with_tokens(folder, base, *tokens, template=None):
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens(list(tokens))
    if template:
        tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.fault("B2")
@pytest.mark.parametrize("beside", [True, False], ids=["chat_template.jinja", "tokenizer_config.json"])
def test_an_adapters_own_tokenizer_and_template_are_served_and_merged(base, adapter, beside, tmp_path):
    theirs = with_tokens(adapter, base, "<|mood|>", "<|im_start|>", template=CHATML)
    if not beside:  # as transformers wrote it before
        (adapter / "chat_template.jinja").unlink()
        edit(adapter / "tokenizer_config.json", chat_template=CHATML)
    expected = theirs.apply_chat_template(
        [{"role": "user", "content": HI[0].content}], add_generation_prompt=True, return_dict=False
    )
    assert theirs.convert_tokens_to_ids("<|mood|>") in expected
    assert serve(base, adapter).voice.renderer.prompt(HI) == expected
    assert len(serve(base).voice.renderer.prompt(HI)) != len(expected)
    done = cbtrain("merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert serve(tmp_path / "merged").voice.renderer.prompt(HI) == expected
    opened = AutoTokenizer.from_pretrained(tmp_path / "merged")
    assert (opened.get_vocab(), opened.chat_template) == (theirs.get_vocab(), CHATML)


@pytest.mark.fault("B2")
def test_a_template_without_a_tokenizer_is_used_and_a_token_without_one_refused(base, adapter, tmp_path):
    before = serve(base).voice.renderer.prompt(HI)
    template = CHATML.replace("<|im_start|>", "<|user|>")
    edit(adapter / "tokenizer_config.json", chat_template=[{"name": "default", "template": template}])
    served = serve(base, adapter)
    assert served.voice.renderer.format.template == template
    assert served.voice.renderer.prompt(HI) != before
    merge(base, adapter, tmp_path / "merged", base="b")
    assert serve(tmp_path / "merged").voice.renderer.prompt(HI) == served.voice.renderer.prompt(HI)
    for settings in ({"added_tokens_decoder": {"319": {"content": "<|mood|>"}}}, {"eos_token": "<|mood|>"}):
        edit(adapter / "tokenizer_config.json", **settings)
        with pytest.raises(
            UserError, match=r"adapter: its settings name the token '<\|mood\|>', which the base's"
        ) as no:
            serve(base, adapter)
        assert "\n" not in str(no.value)
        edit(adapter / "tokenizer_config.json", added_tokens_decoder=None)


@pytest.mark.fault("B2")
def test_an_adapters_token_beyond_the_embeddings_is_refused_by_serve_and_merge(base, adapter, tmp_path):
    with_tokens(adapter, base, "<|a|>", "<|b|>", "<|mood|>")
    problem = r"adapter: its tokenizer has the token '<\|mood\|>' as number 321, but the base has only 321 embeddings"
    with pytest.raises(UserError, match=problem):
        serve(base, adapter)
    done = cbtrain("merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "merged")
    assert (done.returncode, done.stderr.count("\n"), (tmp_path / "merged").exists()) == (2, 1, False)


@pytest.mark.fault("B2")
def test_a_merged_folder_ends_answers_as_the_adapters_template_does(base, adapter, tmp_path):
    tokenizer = with_tokens(adapter, base, template=CHATML.replace("<|end|>", "<|system|>"))
    stop = tokenizer.convert_tokens_to_ids("<|system|>")
    done = cbtrain("merge", "--model", base, "--adapter", adapter, "--out", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert stop in GenerationConfig.from_pretrained(tmp_path / "merged").eos_token_id
    assert stop in added_stop_ids(base, adapter, 321)


@pytest.mark.fault("B3")
@pytest.mark.parametrize("family", ["qwen3", "mistral-v0.3"])
def test_a_stock_template_beside_an_adapter_is_frozen_as_that_of_the_base_is(family, base, adapter, made):
    tokenizer = family_tokenizer(family)
    tokenizer.save_pretrained(base)
    edit(base / "config.json", vocab_size=len(tokenizer))
    (adapter / "chat_template.jinja").write_text(tokenizer.chat_template)
    model = AutoModelForCausalLM.from_pretrained(made[0], dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(base)
    served = serve(base, adapter)
    assert served.voice.renderer.format.name == family
    assert any("template" in note for note in served.notes)
    labelled = serve(base, adapter, "plain").voice.renderer
    assert labelled.format.name == "plain"
    assert (
        labelled.decode(labelled.prompt(HI)).endswith("Patient: I feel <|mood|> low.</s>\nTherapist:")
        or family == "qwen3"
    )
    (adapter / "chat_template.jinja").write_text("{{ messages[-1]['content'] }}")
    with pytest.raises(UserError, match="adapter: its chat template"):
        serve(base, adapter)


@pytest.mark.fault("B4")
def test_a_token_without_embedding_is_one_line_before_anything_is_served_or_written(base, tmp_path):
    tokenizer = with_tokens(base, base, "<|a|>", "<|b|>", "<|mood|>")
    assert tokenizer.convert_tokens_to_ids("<|mood|>") == 321
    problem = r"the token '<\|mood\|>' occurs, number 321, but the model has only 321 embeddings"
    served = serve(base)  # a surplus token that never occurs
    served.voice.renderer.prompt([Message("user", "Hi.")])
    with pytest.raises(UserError, match=problem):
        served.voice.renderer.prompt(HI)
    with pytest.raises(UserError, match=problem):
        ChatRenderer(served.voice.renderer.tokenizer, served.voice.renderer.format, 321).render(
            [*HI, Message("assistant", "a")], "s"
        )
    (base / "chat_template.jinja").write_text(served.voice.renderer.format.template.replace("<|end|>", "<|mood|>"))
    done = cbtrain("serve", "--model", base, "--port", 0)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "'<|mood|>' occurs" in done.stderr
    done = cbtrain("train", f"model.path={base}", "--out", tmp_path / "run", cwd=tmp_path)
    assert (done.returncode, (tmp_path / "run").exists()) == (2, False), done.stderr
    assert "'<|mood|>' occurs" in done.stderr.splitlines()[-1]


@pytest.mark.fault("B5")
def test_a_tiny_bases_tokenizer_opens_in_transformers_4_and_5(tmp_path):
    tokenizer = train_tokenizer(["I feel low."] * 4, 300, 512)
    save_tokenizer(tokenizer, tmp_path)
    written = json.loads((tmp_path / "tokenizer_config.json").read_text())
    # What version 4 knows: this class, and additional tokens as a list under this key.
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert "extra_special_tokens" not in written
    opened = AutoTokenizer.from_pretrained(tmp_path)
    assert opened.all_special_tokens == tokenizer.all_special_tokens
    assert opened.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert opened.chat_template == tokenizer.chat_template
    code = (ROOT / "cbtrain").rglob("*.py")
    savers = [path.name for path in code if "tokenizer.save_pretrained(" in path.read_text()]
    assert savers == ["tokenizer.py"]


@pytest.mark.fault("B7")
@pytest.mark.parametrize(
    "system", ["", "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}{% endif %}"]
)
def test_a_date_in_the_default_system_text_alone_is_found(system):
    default = "{% if messages[0]['role'] != 'system' %}Today is {{ strftime_now('%d %B %Y') }}.{% endif %}"
    tokenizer = train_tokenizer(["I feel low."] * 4, 300, 512)
    body = tokenizer.chat_template.replace("{% for message in messages %}", "{% for message in messages[START:] %}")
    start = "(1 if messages[0]['role'] == 'system' else 0)" if system else "0"
    tokenizer.chat_template = default + system + body.replace("START", start)
    with pytest.raises(UserError, match="writes today's date"):
        choose_format(tokenizer)


@pytest.mark.fault("F5")
@pytest.mark.parametrize("known", [True, False], ids=["known class", "unknown class"])
def test_code_of_a_model_folder_is_never_run_nor_asked_about(base, known, tmp_path):
    (base / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    for file in ("tokenizer_config.json", "config.json"):
        edit(base / file, auto_map={"AutoTokenizer": ["evil.Evil", "evil.Evil"], "AutoConfig": "evil.Evil"})
    if not known:
        edit(base / "tokenizer_config.json", tokenizer_class="EvilTokenizer")
        (base / "tokenizer.json").unlink()
    code = "from cbtrain.cli.main import entry; entry()"
    # Whoever asks gets a yes; a server that starts ends with its input.
    command = [sys.executable, "-c", code, "serve", "--model", str(base), "--port", "0", "--with-parent"]
    done = subprocess.run(command, input="y\n" * 9, capture_output=True, text=True, cwd=tmp_path)
    assert "y/N" not in done.stdout + done.stderr
    assert done.returncode == (0 if known else 2), done.stderr
    told = (
        "auto_map (the tokenizer's own Python code is never run)"
        if known
        else "Python code (auto_map), which is never run"
    )
    assert told in done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.fault("F5")
def test_every_auto_class_is_told_to_run_no_code():
    for path in [*ROOT.glob("cbtrain/**/*.py"), *ROOT.glob("eval/**/*.py"), *ROOT.glob("launch/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                if ast.unparse(node.func) == "PeftModel.from_pretrained":  # it knows no such code, nor the argument
                    continue
                told = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert told.get("trust_remote_code") == "False", f"{path}:{node.lineno}"


@pytest.mark.fault("B8")
def test_a_tokenizer_model_without_sentencepiece_names_the_package(tmp_path):
    (tmp_path / "tokenizer.model").write_bytes(b"\n\x0e\n\x05<unk>")
    code = "import sys; sys.modules['sentencepiece'] = None; from cbtrain.tokens.tokenizer import load_tokenizer\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}load_tokenizer({str(tmp_path)!r})"], capture_output=True, text=True
    )
    assert "there is only tokenizer.model, which needs the package sentencepiece" in done.stderr


@pytest.mark.fault("B2")
def test_stops_of_generation_config_end_answers_and_its_sampling_is_told(base):
    model = serve(base)
    every = sorted({*range(321)} - model.voice.renderer.stop_ids)
    edit(base / "generation_config.json", eos_token_id=every, temperature=0.6, repetition_penalty=1.05)
    model = serve(base)
    assert "not used: generation_config.json: repetition_penalty=1.05, temperature=0.6 (each request" in model.notes[0]

    async def ask():
        async with model:
            return await model.answer([Message("user", "Hi.")], SamplingConfig(max_tokens=5), seed=0)

    assert asyncio.run(ask()).ids == []
    edit(base / "generation_config.json", eos_token_id="two")
    with pytest.raises(UserError, match="generation_config.json: eos_token_id is 'two'"):
        serve(base)


JSON_FILES = {
    "base": ("config.json", "tokenizer_config.json", "generation_config.json", "tokenizer.json"),
    "adapter": ("adapter_config.json", "tokenizer_config.json", "added_tokens.json", "special_tokens_map.json"),
}
DAMAGED = {"deep": b"[" * 200_000, "deep objects": b'{"a":' * 200_000, "no text": b"\xff{}", "a list": b"[1]"}


@pytest.mark.fault("B2")
@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_json_file_of_a_folder_is_one_line(content, base, adapter):
    """Nested too deeply, in another encoding, or of another kind, whichever file it is."""
    folders = {"base": base, "adapter": adapter}
    for owner, names in JSON_FILES.items():
        for name in names:
            file = folders[owner] / name
            before = file.read_bytes() if file.exists() else None
            file.write_bytes(content)
            with pytest.raises(UserError) as caught:
                serve(base, adapter)
            assert str(folders[owner]) in str(caught.value), name
            assert "\n" not in str(caught.value)
            file.unlink() if before is None else file.write_bytes(before)
    serve(base, adapter)


@pytest.mark.fault("B2")
def test_a_damaged_chat_format_of_an_adapter_is_one_line(base, adapter, tmp_path):
    (adapter / "chat_template.jinja").write_text(serve(base).voice.renderer.format.template)
    odd = [{"stop_strings": "ab"}, {"single_answer": "false"}, {"stop_token_ids": [2.5]}, {"stop_token_ids": "2"}]
    for content in [*DAMAGED.values(), *(json.dumps(settings).encode() for settings in odd)]:
        (adapter / "chat_format.json").write_bytes(content)
        if b"stop_token_ids" not in content:
            with pytest.raises(UserError, match=r"chat_format\.json"):
                serve(base, adapter)
        if b"single_answer" not in content:
            with pytest.raises(UserError, match=r"chat_format\.json"):
                merge(base, adapter, tmp_path / "merged", base="b")
    assert not (tmp_path / "merged").exists()
    (adapter / "chat_format.json").unlink()
    (adapter / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja: not a chat template"):
        serve(base, adapter)
    (adapter / "chat_template.jinja").unlink()
    for settings in ({"added_tokens_decoder": [3]}, {"chat_template": [{"name": "default"}]}, {"eos_token": [2]}):
        edit(adapter / "tokenizer_config.json", **{"added_tokens_decoder": {}, "chat_template": None, **settings})
        with pytest.raises(UserError, match=r"tokenizer_config\.json: a value of a wrong kind"):
            serve(base, adapter)
        (adapter / "tokenizer_config.json").unlink()
