"""Fine-tuning methods by name: what a user sets, what a method cannot do, and where its code is (torch-free).

A method is one module. It has settings (a pydantic model), and a function ``attach(decoder, settings, device)`` that
puts an :class:`~cbtrain.model.adapters.adapter.Adapter` into a decoder. Another package adds its own by an entry point
of the group :data:`GROUP` that names a :class:`Method` (docs/methods.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pydantic import BaseModel

from cbtrain.errors import UserError, nearest
from cbtrain.model.config import FullConfig, LoraConfig
from cbtrain.model.method_settings import HalfConfig, HypLoraConfig, SparseConfig

GROUP = "cbtrain.methods"
"""The group of entry points under which packages name their methods."""

Ability = Literal["nf4", "zero3", "merge"]
"""What some methods cannot do: train on weights held in NF4, be sharded by ZeRO-3, become a plain model's weights."""


@dataclass(frozen=True, slots=True)
class Method:
    """A way of fine-tuning. ``settings`` is the model of its options, of no other method; ``attach`` names the function
    that attaches it, as ``package.module:function``. ``trains_base``: it trains weights of the base itself.
    ``cannot`` says by ability why it lacks it. ``text`` is one line for lists."""

    name: str
    settings: type[BaseModel]
    attach: str
    text: str
    trains_base: bool = False
    cannot: Mapping[Ability, str] = field(default_factory=dict)

    def attached(self, decoder: Any, settings: BaseModel, device: Any) -> Any:
        """Attach the method to ``decoder``; return its adapter. Raises UserError if it does not fit the decoder."""
        module, _, function = self.attach.partition(":")
        return getattr(import_module(module), function)(decoder, settings, device)


LORA = Method("lora", LoraConfig, "cbtrain.model.adapters.lora:LoraAdapter", "low-rank matrices beside the weights")
FULL = Method(
    "full",
    FullConfig,
    "cbtrain.model.adapters.full:FullAdapter",
    "all weights",
    trains_base=True,
    cannot={"nf4": "it needs fp32 or bf16 weights"},
)

HYPLORA = Method(
    "hyplora",
    HypLoraConfig,
    "cbtrain.model.adapters.hyplora:HypLoraAdapter",
    "LoRA between points of a hyperboloid (experimental)",
    cannot={
        "merge": "its update is not linear in the input, so no weight can hold it",
        "zero3": "not tested",
    },
)

HALF = Method(
    "half",
    HalfConfig,
    "cbtrain.model.adapters.half:HalfAdapter",
    "one half of all weights (HFT)",
    trains_base=True,
    cannot={"nf4": "it needs fp32 or bf16 weights", "zero3": "not tested"},
)

SPARSE = Method(
    "sparse",
    SparseConfig,
    "cbtrain.model.adapters.sparse:SparseAdapter",
    "a few weights of each linear (SHiRA, SpIEL)",
    cannot={"zero3": "it changes whole weights, which ZeRO-3 shards"},
)

OURS = (LORA, FULL, HALF, HYPLORA, SPARSE)


@cache
def known_methods() -> dict[str, Method]:
    """Return all methods by name. Raises UserError if a package's entry point cannot be loaded or used."""
    found = {method.name: method for method in OURS}
    for entry in entry_points(group=GROUP):
        method = _loaded(entry)
        if method.name in found:
            problem = f"there is another method {method.name!r}"
            raise UserError(problem, where=_place(entry), hint="Rename it, or remove one of the packages.")
        found[method.name] = method
    return found


def method_named(name: str) -> Method:
    """Return a method. Raises ValueError on an unknown name, UserError as :func:`known_methods`."""
    methods = known_methods()
    if name not in methods:
        raise ValueError(f"unknown method {name!r}. {nearest(name, methods)}")
    return methods[name]


def method_of(settings: BaseModel) -> Method:
    """Return the method whose settings these are. Raises ValueError if there is none."""
    for method in known_methods().values():
        if type(settings) is method.settings:
            return method
    raise ValueError(f"{type(settings).__name__} are settings of no method")


def _loaded(entry: EntryPoint) -> Method:
    try:
        method = entry.load()
    except Exception as error:  # whatever another package does while it is imported
        problem = f"cannot be loaded ({type(error).__name__}: {error})"
        raise UserError(problem, where=_place(entry), hint="Mend or remove that package.") from error
    if not isinstance(method, Method):
        problem = f"is a {type(method).__name__}, not a cbtrain.model.methods.Method"
        raise UserError(problem, where=_place(entry), hint="Name a Method there.")
    return method


def _place(entry: EntryPoint) -> str:
    package = f" of {entry.dist.name}" if entry.dist else ""
    return f"entry point {entry.name} ({entry.value}){package}"
