"""LLaMA-Factory's ``dataset_info.json`` as a map: its ``formatting``, ``columns`` and ``tags``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cbtrain.errors import UserError
from cbtrain.files import expanded
from cbtrain.transcripts.mapping.config import CorpusMap, load_map
from cbtrain.transcripts.source import parse_json, read_text, stem_of, validate


def read_map(path: Path, corpus: Path) -> CorpusMap:
    """Return the map in a YAML file, or in a ``dataset_info.json`` the entry of ``corpus``. Raises UserError."""
    return _of_dataset(expanded(path), corpus) if path.suffix.lower() == ".json" else load_map(path)


def _of_dataset(path: Path, corpus: Path) -> CorpusMap:
    content = parse_json(read_text(path), path)
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise UserError("not a dataset_info.json", where=path, hint="Name LLaMA-Factory's file, or a map in YAML.")
    files = {Path(str(entry.get("file_name"))).name: name for name, entry in content.items()}
    name = files.get(corpus.name) or next((name for name in content if name in (corpus.name, stem_of(corpus))), None)
    if name is None and len(content) == 1:
        name = next(iter(content))
    if name is None:
        there = ", ".join(list(content)[:8])
        raise UserError(f"no entry for {corpus.name}; entries: {there}", where=path, hint="Give it a file_name.")
    return validate(CorpusMap, _map_of(content[name], path, name), f"{path}: {name}", "Correct it.")


def _map_of(entry: dict[str, Any], path: Path, name: str) -> dict[str, Any]:
    """Return the keys of a map for one entry; missing columns and tags have LLaMA-Factory's defaults."""
    columns, tags = entry.get("columns") or {}, entry.get("tags") or {}
    if columns.get("kto_tag"):
        raise UserError("preferences (kto_tag), not sessions", where=f"{path}: {name}", hint="Name another entry.")
    system = {"system": columns["system"]} if columns.get("system") else {}
    formatting = entry.get("formatting", "alpaca")
    if entry.get("ranking"):
        return _preference(columns, tags, formatting) | system
    if formatting in ("sharegpt", "openai"):
        openai = formatting == "openai"
        return {
            "each": "session",
            "turns": columns.get("messages", "messages" if openai else "conversations"),
            "speaker": tags.get("role_tag", "role" if openai else "from"),
            "text": tags.get("content_tag", "content" if openai else "value"),
            "patient": [tags.get("user_tag", "user" if openai else "human")],
            "therapist": [tags.get("assistant_tag", "assistant" if openai else "gpt")],
            "system_speaker": [tags.get("system_tag", "system")],
            "ignore": [tags.get("observation_tag", "observation"), tags.get("function_tag", "function_call"), "tool"],
            **system,
        }
    if formatting == "alpaca":
        prompt, query = columns.get("prompt", "instruction"), columns.get("query", "input")
        history = {"history": columns["history"]} if columns.get("history") else {}
        response = columns.get("response", "output")
        return {"each": "pair", "patient": f"{prompt} + {query}", "therapist": response, **history, **system}
    raise UserError(f"unknown formatting {formatting!r}", where=f"{path}: {name}", hint="Write a map in YAML.")


def _preference(columns: dict[str, Any], tags: dict[str, Any], formatting: str) -> dict[str, Any]:
    """Return the keys for pairs of answers (``ranking``)."""
    keys = {"each": "preference", "chosen": columns.get("chosen", "chosen")}
    keys["rejected"] = columns.get("rejected", "rejected")
    if formatting == "alpaca":
        prompt, query = columns.get("prompt", "instruction"), columns.get("query", "input")
        return keys | {"prompt": f"{prompt} + {query}"}
    openai = formatting == "openai"
    return keys | {
        "prompt": columns.get("messages", "messages" if openai else "conversations"),
        "speaker": tags.get("role_tag", "role" if openai else "from"),
        "text": tags.get("content_tag", "content" if openai else "value"),
        "patient": [tags.get("user_tag", "user" if openai else "human")],
        "therapist": [tags.get("assistant_tag", "assistant" if openai else "gpt")],
        "system_speaker": [tags.get("system_tag", "system")],
    }
