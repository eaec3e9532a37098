"""One specification of a stage: training, planner, profiler and previews of one config agree."""

import io
from argparse import Namespace
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from cbtrain.cli.corpus_model import stage_of
from cbtrain.cli.main import build_parser
from cbtrain.cli.parser import parse
from cbtrain.cli.profile_training import _prepare
from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.linears.formats import WeightFormat
from cbtrain.model.weights.saving import llama_config, save_decoder
from cbtrain.study.corpus import load_corpus
from cbtrain.study.datasets import course_units
from cbtrain.study.plan import planned_stages
from cbtrain.study.stages import StageSpec, StudyModel
from cbtrain.training.packs import open_stream
from cbtrain.training.planning.meta_model import meta_decoder
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.writing import write_sessions

QUIET = Console(quiet=True)
TINY = ["tiny.hidden=64", "tiny.layers=2", "tiny.intermediate=64"]
SETTINGS = [
    *("model.weights=nf4", "model.compute=bf16", "model.double_quantization=false", "model.attention=sdpa"),
    *("therapist.lora.rank=3", "therapist.lora.targets=q_proj,up_proj", "therapist.lora.dora=true"),
    *("therapist.activation_checkpointing=selective", "therapist.pack_tokens=512", "therapist.token_budget=8_000"),
    *(
        "therapist.validation_tokens=500",
        "therapist.tokens_per_step=2048",
        "therapist.optimizer=sgd",
        "tokens.document_tokens=512",
    ),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with a tokenizer of the sample corpus."""
    folder, config = tmp_path_factory.mktemp("model"), load_config("quick", TINY)
    model = StudyModel.of(config, "none", QUIET, load_corpus(config, QUIET).split)
    decoder, tokenizer = Decoder(model.architecture), model.tokenizer
    initialize(decoder, 0)
    ids = {"bos_id": tokenizer.bos_token_id, "eos_id": tokenizer.eos_token_id, "pad_id": tokenizer.pad_token_id}
    save_decoder(decoder, folder, llama_config(model.architecture, **ids))
    tokenizer.save_pretrained(folder)
    return str(folder)


def shapes(decoder):
    return {name: tuple(parameter.shape) for name, parameter in decoder.trainable_parameters().items()}


def test_training_planner_profiler_and_previews_agree(folder):
    config = load_config("quick", [f"model.path={folder}", *SETTINGS])
    corpus = load_corpus(config, QUIET)
    spec = StageSpec.of(config, "therapist", StudyModel.of(config, "real", QUIET))
    spec.check()
    training, dataset = spec.decoder(QUIET), spec.dataset(corpus, QUIET)
    profiled, documents = _prepare(Namespace(speaker="therapist", random_weights=True), config, QUIET)
    profiler = profiled.decoder(QUIET)
    (planned,) = planned_stages(config, "cpu", 1, QUIET, ["therapist"])
    scenario, planner = planned.scenario, meta_decoder(planned.scenario)

    expected = WeightFormat("nf4", torch.bfloat16, double_quantization=False)
    assert training.format == profiler.format == scenario.format == expected
    assert training.dtype == profiler.dtype == planner.dtype == torch.bfloat16
    for path, linear in training.linears.items():
        assert not linear.double_quantization
        assert not planner.linears[path].nested
        assert linear.weight_bytes == profiler.linears[path].weight_bytes == planner.linears[path].weight_bytes
    assert training.backend == profiler.backend == scenario.attention == "sdpa"
    levels = {decoder.activation_checkpointing for decoder in (training, profiler, planner)}
    assert levels == {"selective"}
    assert shapes(training) == shapes(profiler) == shapes(planner)
    assert any("magnitude" in name for name in shapes(training))
    assert len(shapes(training)) == 2 * 2 * 3  # layers, targets, A and B and magnitude
    assert (scenario.optimizer, scenario.accumulates, spec.scenario(1)) == ("sgd", True, scenario)

    lengths = dataset.train.documents.lengths.tolist()
    assert documents.train.documents.lengths.tolist() == list(planned.workload.lengths) == lengths
    stream = open_stream(dataset.train.documents, spec.settings, spec.architecture, spec.name)
    assert len(planned.workload.packs()) == stream.plan(0).packs > 4
    preview = stage_of(parse(build_parser(), ["corpus", "tokens", f"--model={folder}", "--config=quick", *SETTINGS]))
    built = [
        document.ids.tolist()
        for unit in course_units(corpus.split.train[:1], "therapist", config)
        for document in preview.builder().build(unit).documents
    ]
    assert built
    trained = [document.ids.tolist() for document in dataset.train.documents]
    assert any(ids in trained for ids in built)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["therapist.lora.targets=layers.9.mlp.up_proj"], "therapist.lora.targets"),
        (["model.weights=bf16", "model.attention=flash-attn"], "flash-attn"),
        (["model.kernels.swiglu=on"], "kernel swiglu cannot be used: .* this is 'cpu'"),
    ],
)
def test_what_cannot_be_trained_is_refused_without_weights(folder, settings, message):
    given = {setting.partition("=")[0] for setting in settings}
    others = [setting for setting in SETTINGS if setting.partition("=")[0] not in given]
    config = load_config("quick", [f"model.path={folder}", *others, *settings])
    spec = StageSpec.of(config, "therapist", StudyModel.of(config, "none", QUIET))
    with pytest.raises(UserError, match=message):
        spec.check()
    with pytest.raises(UserError, match=message):
        planned_stages(config, "cpu", 1, QUIET, ["therapist"])


@pytest.mark.fault("A12")
def test_training_and_planner_see_whose_system_prompts_are_trained(folder, tmp_path):
    sessions = [replace(s, facts={"system": f"Be kind, {s.number}."}) for s in read("sample").sessions()]
    write_sessions(sessions, [], tmp_path / "own")
    tokens, planned, fingerprints, said = {}, {}, {}, {}
    for setting in ("ours", "data", "none"):
        config = load_config(
            "quick", [f"model.path={folder}", f"corpus.path={tmp_path / 'own'}", f"tokens.system={setting}", *SETTINGS]
        )
        console = Console(file=io.StringIO(), width=300)
        corpus = load_corpus(config, console)
        said[setting] = console.file.getvalue()
        spec = StageSpec.of(config, "therapist", StudyModel.of(config, "none", QUIET))
        tokens[setting] = spec.dataset(corpus, QUIET).train.documents.lengths.tolist()
        (stage,) = planned_stages(config, "cpu", 1, QUIET, ["therapist"])
        planned[setting] = list(stage.workload.lengths)
        fingerprints[setting] = corpus.summary["fingerprint"]
    assert tokens == planned
    assert len({tuple(lengths) for lengths in tokens.values()}) == 3
    assert fingerprints["ours"] == fingerprints["none"] != fingerprints["data"]
    assert "18 of 18 sessions have their own system prompt (3 different). It is not used" in said["ours"]
    assert "The therapist is trained with it (tokens.system=data)" in said["data"]
