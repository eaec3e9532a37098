"""Find a model's files: in a folder, or in a snapshot of a Hugging Face repository."""

from __future__ import annotations

from pathlib import Path

from cbtrain.errors import UserError
from cbtrain.files import expanded, is_folder

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*"]
NOT_WANTED = ["consolidated*", "original/*"]
"""The same weights once more, in their makers' own layouts."""


def resolve_model(name: str) -> Path:
    """Return the folder of a model: ``name`` itself if it is one, else a snapshot of the hub repository ``name``.

    Raises UserError if neither exists; if the repository is gated, the error says how to get access.
    """
    path = expanded(name)
    if is_folder(path):
        return path
    looks_like_hub_id = name.count("/") == 1 and not name.startswith((".", "/", "~"))
    if not looks_like_hub_id:
        raise UserError("no such model folder", where=name, hint="Name a folder or a hub id such as 'org/model'.")
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=HUB_FILES, ignore_patterns=NOT_WANTED))
    except GatedRepoError:
        hint = f"Accept its terms at https://huggingface.co/{name}, then run `hf auth login`."
        raise UserError("this hub repository is gated", where=name, hint=hint) from None
    except (RepositoryNotFoundError, HFValidationError):
        raise UserError("no such folder and no such hub repository", where=name, hint="Check the spelling.") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        hint = "Check the network, or download it elsewhere and name its folder."
        raise UserError(f"cannot be downloaded ({type(error).__name__})", where=name, hint=hint) from None


def describing_files(name: str) -> Path:
    """Return the folder of a model with all files except the weights. Raises UserError as :func:`resolve_model`."""
    folder = expanded(name)
    if is_folder(folder) or name.count("/") != 1:
        return resolve_model(name)
    import huggingface_hub

    patterns = [pattern for pattern in HUB_FILES if "safetensors" not in pattern]
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns, ignore_patterns=NOT_WANTED))
    except Exception:
        return resolve_model(name)  # whose error says why
