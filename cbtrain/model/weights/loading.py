"""Load a decoder from a model folder or a hub repository."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from cbtrain.model.architecture import parse_architecture, read_model_config
from cbtrain.model.attention.packed import choose_backend
from cbtrain.model.config import ModelConfig
from cbtrain.model.decoder import Decoder
from cbtrain.model.kernel_choice import Setting, choose_kernels
from cbtrain.model.linears.formats import WeightFormat, choose_weight_format, configured_format
from cbtrain.model.linears.linear import Linear
from cbtrain.model.rope import inverse_frequencies
from cbtrain.model.weights.checking import read_weights
from cbtrain.model.weights.fingerprint import Fingerprint
from cbtrain.model.weights.hub import resolve_model
from cbtrain.model.weights.reading import Progress

Placed = Callable[[nn.Parameter], None]


def load_decoder(
    name: str,
    *,
    weights: str | WeightFormat = "fp32",
    device: str | torch.device = "cpu",
    attention: str = "auto",
    kernels: Setting = "auto",
    progress: Progress = lambda done, of: None,
    placed: Placed | None = None,
) -> Decoder:
    """Load a Llama, Mistral, Qwen2 or Qwen3 ``…ForCausalLM`` from a folder or hub id, all of it frozen and in
    evaluation mode.

    Built on the meta device; each tensor is read straight to its final device and format, quantized on the way where
    ``weights`` is ``nf4``, so that the host never holds more than the final weights and one shard. ``placed`` is called
    with each parameter as soon as it is loaded. Raises UserError on a config.json that is not supported, on missing,
    surplus, damaged, wrongly shaped or non-finite weights, and on an attention back-end or a kernel that cannot run
    here.
    """
    folder = resolve_model(name)
    source = read_model_config(folder)
    architecture = parse_architecture(source, folder / "config.json")
    weight_format = weights if isinstance(weights, WeightFormat) else choose_weight_format(weights, device)
    with torch.device("meta"):
        decoder = Decoder(architecture, weight_format.linear())
    choose_backend(attention, torch.device(device), weight_format.compute, architecture.head_dim)
    decoder.attention, decoder.format = attention, weight_format
    decoder.kernels = choose_kernels(kernels, torch.device(device))
    decoder.source, decoder.folder = source, folder
    fingerprint = Fingerprint()
    for name, tensor in read_weights(folder, architecture, device, progress):
        fingerprint.add(name, tensor)
        parameter = _assign(decoder, name, tensor, weight_format.compute)
        if placed and parameter is not None:
            placed(parameter)
        del tensor
    if architecture.tied_embeddings:
        decoder.lm_head.weight = cast(nn.Parameter, decoder.embed_tokens.weight)
    decoder.frequencies = inverse_frequencies(architecture.rope, architecture.head_dim).to(device)
    decoder.fingerprint = fingerprint.hexdigest()
    return decoder.requires_grad_(False).eval()


def load_configured(
    config: ModelConfig,
    name: str,
    device: str,
    progress: Progress = lambda done, of: None,
    placed: Placed | None = None,
) -> Decoder:
    """Return :func:`load_decoder` with the formats, the back-end and the kernels that ``config`` asks for."""
    return load_decoder(
        name,
        weights=configured_format(config, device),
        device=device,
        attention=config.attention,
        kernels=config.kernels,
        progress=progress,
        placed=placed,
    )


def _assign(decoder: Decoder, key: str, tensor: Tensor, compute: torch.dtype) -> nn.Parameter | None:
    owner, _, leaf = key.rpartition(".")
    module = decoder.get_submodule(owner)
    # Copied even if nothing is converted: memory that is mapped from the file is lost with the file.
    if isinstance(module, Linear) and leaf == "weight":
        module.load_weight(tensor, compute)
    else:
        setattr(module, leaf, nn.Parameter(tensor.to(compute, copy=True), requires_grad=False))
    parameter = getattr(module, leaf, None)  # NF4 has no such parameter
    return parameter if isinstance(parameter, nn.Parameter) else None
