"""Several adapters that are trained over one decoder, which holds the base once: one of them is attached at a time."""

from __future__ import annotations

from cbtrain.model.adapters.lora import LoraAdapter
from cbtrain.model.adapters.methods import inject
from cbtrain.model.config import LoraConfig
from cbtrain.model.decoder import Decoder


class AdaptersInTurn:
    """Makes adapters for ``decoder`` and says whose turn it is. What one adapter computes is what it would compute if
    it were the only one: the decoder's own modules are the same, and nothing of another adapter is in it."""

    def __init__(self, decoder: Decoder) -> None:
        self.decoder = decoder

    def new(self, config: LoraConfig, *, seed: int) -> LoraAdapter:
        """Return a new adapter, ready to be trained; it is its turn. Raises UserError as
        :func:`~cbtrain.model.adapters.methods.inject`."""
        self.clear()
        adapter = inject(self.decoder, config, seed=seed)
        assert isinstance(adapter, LoraAdapter)
        return adapter

    def take(self, adapter: LoraAdapter) -> None:
        """Let the decoder compute with ``adapter`` from now on."""
        if self.decoder.adapter is not adapter:
            self.clear()
            adapter.attach()

    def clear(self) -> None:
        """Let the decoder be the base."""
        if self.decoder.adapter is None:
            return
        assert isinstance(self.decoder.adapter, LoraAdapter)  # others change the base itself
        self.decoder.adapter.remove()
