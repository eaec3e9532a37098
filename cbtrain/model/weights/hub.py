"""Where a model's files lie: a folder, or a snapshot of a Hugging Face repository."""

from __future__ import annotations

from pathlib import Path

from cbtrain.errors import UserError

HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*", "NOTICE*", "USE_POLICY*"]
NOT_WANTED = ["consolidated*", "original/*"]
"""The same weights once more, in their makers' own layouts."""


def resolve_model(name: str) -> Path:
    """The folder of a model: ``name`` itself if it is one, else a snapshot of the hub repository ``name``.

    Raises UserError where neither exists, and says how to get access where the repository is gated.
    """
    path = Path(name).expanduser()
    if path.is_dir():
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
