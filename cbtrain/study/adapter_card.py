"""The model card of a trained adapter: what it was trained on, its system prompt, and how to use it."""

from __future__ import annotations

import json
from itertools import islice

from cbtrain.model.adapters.adapter import Adapter
from cbtrain.model.methods import LORA, Method, method_named
from cbtrain.model.weights.card import model_card, public_name, system_section
from cbtrain.study.datasets import SpeakerDataset
from cbtrain.study.stages import StageSpec
from cbtrain.text.language import language_of_all
from cbtrain.tokens.chat_files import TrainedPrompt
from cbtrain.training.forgetting import TextForgetting, nats, percent, short
from cbtrain.training.result import TrainingResult

SAMPLED = 200
"""Sessions by which the language is found."""

TAGS = ["cbtrain", "cognitive-behavioural-therapy", "research"]

WITH_PEFT = """```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("ADAPTER")
model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("BASE"), "ADAPTER")
chat = CHAT
prompt = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
ids = model.generate(**prompt, max_new_tokens=200, eos_token_id=STOPS)
print(tokenizer.decode(ids[0, prompt["input_ids"].shape[1] :], skip_special_tokens=True))
```
"""
"""An example for ``transformers`` and ``peft``; ADAPTER, BASE, STOPS and CHAT are put in."""

FIRST_WORDS = "I feel low."


def adapter_card(
    spec: StageSpec, dataset: SpeakerDataset, prompt: TrainedPrompt, result: TrainingResult, adapter: Adapter, base: str
) -> str:
    """Return ``README.md`` of the adapter that ``spec`` has trained on ``dataset``, for a base called ``base``."""
    method = method_named(spec.settings.method)
    lora = method is LORA
    sessions = islice((session for unit in dataset.train.units for session in unit.sessions), SAMPLED)
    languages = language_of_all("\n".join(turn.text for turn in session.turns) for session in sessions)
    library = "peft" if lora else "transformers" if method.trains_base else "cbtrain"
    metadata = {
        "library_name": library,
        "pipeline_tag": "text-generation",
        **({"language": languages} if languages else {}),
        "tags": [*TAGS, "lora"] if lora else TAGS,
    }
    name = f"{spec.name.capitalize()} on {public_name(base)}"
    role = f"to play the {spec.name} in sessions of cognitive behavioural therapy"
    text = f"`{base}`, fine-tuned ({adapter.describe()}) {role}"
    beginning = model_card(base=base, name=name, text=text, metadata=metadata)
    system = system_section(prompt.text, prompt.note, prompt.in_template)
    use = _use(dataset, prompt, public_name(base), method)
    parts = [beginning, _training(dataset, result), *_forgotten(result), system, _format(dataset), use]
    return "\n".join(parts)


def _training(dataset: SpeakerDataset, result: TrainingResult) -> str:
    sessions = [session for unit in dataset.train.units for session in unit.sessions]
    offered = dataset.train.units_offered
    of = f" of the training part's {offered:,}" if len(sessions) == len(dataset.train.units) else ""
    patients = {session.patient or session.course for session in sessions}
    what = "pairs of answers" if sessions and sessions[0].preference is not None else "sessions"
    rows = {
        "patients": f"{len(patients):,}",
        what: f"{len(sessions):,}{of}",
        "share of the words": f"{result.share_of_corpus:.1%}",
        "tokens": f"{result.tokens:,}, of them {result.supervised_tokens:,} supervised",
        "epochs": f"{result.epochs:g}",
    }
    if result.objective != "sft":
        rows = {"objective": result.objective, **rows}
    if result.pairs:
        before_and_best = (f"{pairs['accuracy']:.1%}" for pairs in (result.pairs_before, result.pairs))
        rows["validation pairs ranked rightly"] = "{} before, {} now".format(*before_and_best)
    lines = "".join(f"| {name} | {value} |\n" for name, value in rows.items())
    note = "Patients for validation and test are not among them. Details are in `cbtrain.json`."
    return f"## Training\n\n| | |\n|---|---|\n{lines}\n{note}\n"


def _forgotten(result: TrainingResult) -> list[str]:
    """Return the section on what the base knew and the tuned model predicts worse, alone in a list; an empty one if it
    was not measured."""
    if not result.forgetting:
        return []
    rows = "".join(_row_of(text) for text in result.forgetting)
    warnings = "".join(f"{text.warning}.\n\n" for text in result.forgetting if text.warning)
    head = "| text | tokens | perplexity of the base | of this model | change | KL |\n|---|---|---|---|---|---|\n"
    note = (
        "On texts that were not trained. KL is the mean divergence of this model's next token from the base's, in "
        "nats. Perplexities of models with other tokenizers do not compare."
    )
    return [f"## What is forgotten\n\n{head}{rows}\n{warnings}{note}\n"]


def _row_of(text: TextForgetting) -> str:
    if text.not_measured:
        return f"| {text.text} | not measured: {text.not_measured} | | | | |\n"
    numbers = (short(text.base_perplexity), short(text.tuned_perplexity), percent(text.rise), nats(text.kl))
    return f"| {text.text} ({text.about}) | {text.tokens:,} | {' | '.join(numbers)} |\n"


def _format(dataset: SpeakerDataset) -> str:
    chat_format = dataset.renderer.format
    stop = dataset.renderer.decode([dataset.renderer.answer_stop_id])
    strings = f" Stop strings: {', '.join(map(repr, chat_format.stop_strings))}." if chat_format.stop_strings else ""
    return (
        f"## Chat format\n\n`{chat_format.name}`, in `chat_template.jinja`. An answer ends with `{stop}`.{strings} "
        "`chat_format.json` says the same for cbtrain.\n"
    )


def _use(dataset: SpeakerDataset, prompt: TrainedPrompt, base: str, method: Method) -> str:
    stops, chat = str(sorted(dataset.renderer.stop_ids)), json.dumps(_chat(dataset, prompt), ensure_ascii=False)
    model = "model.path=ADAPTER" if method.trains_base else f"model.path={base} --adapter ADAPTER"
    example = WITH_PEFT.replace("BASE", base).replace("STOPS", stops)
    if method.trains_base:
        whole = 'AutoModelForCausalLM.from_pretrained("ADAPTER")'
        loaded = f'PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained("{base}"), "ADAPTER")'
        example = example.replace(loaded, whole).replace("from peft import PeftModel\n", "")
    example = example.replace("CHAT", chat)
    merge = f"\nTo merge it: `cbtrain merge model.path={base} --adapter ADAPTER --out merged`.\n"
    if reason := method.cannot.get("merge"):
        merge = f"\nIt cannot be merged: {reason}.\n"
    without = f"\n\nWithout cbtrain:\n\n{example}" if method is LORA or method.trains_base else "\n"
    return (
        "## Use\n\nIn place of ADAPTER write this folder. Served by cbtrain (OpenAI chat protocol):\n\n"
        f"```sh\ncbtrain serve {model}\n```{without}{'' if method.trains_base else merge}"
    )


def _chat(dataset: SpeakerDataset, prompt: TrainedPrompt) -> list[dict[str, str]]:
    """Return the messages of an example, with the system prompt if the chat template does not write it."""
    if not prompt.text or prompt.in_template:
        return [{"role": "user", "content": FIRST_WORDS}]
    if dataset.renderer.has_system_role:
        return [{"role": "system", "content": prompt.text}, {"role": "user", "content": FIRST_WORDS}]
    return [{"role": "user", "content": f"{prompt.text}\n\n{FIRST_WORDS}"}]
