"""One rank of a resume test: train a tiny decoder through the real loop. Arguments: settings in JSON."""

import json
import os
import sys
import time
from pathlib import Path

import numpy as np
import torch
from pair_documents import pairs
from rich.console import Console
from tiny_architecture import TINY

from cbtrain.errors import Stopped
from cbtrain.model.adapters.methods import AdapterFiles, inject
from cbtrain.model.decoder import Decoder, initialize
from cbtrain.model.methods import method_of
from cbtrain.tokens.document import Document
from cbtrain.training import distributed
from cbtrain.training.checkpoints.checkpoint import PlainFiles
from cbtrain.training.config import CheckpointConfig, RuntimeConfig, StageConfig
from cbtrain.training.loop import train
from cbtrain.training.stage import Stage


def documents():
    random = np.random.default_rng(0)
    made = []
    for i in range(14):
        length = int(random.integers(5, 40))
        weights = (random.random(length) < random.random()).astype(np.float32)
        weights[-1] = 1
        made.append(Document(f"d{i}", random.integers(0, 61, length).astype(np.int32), weights))
    return made


def main(arguments):
    settings = json.loads(arguments[0])
    torch.set_num_threads(1)
    distributed.join(5)
    made = Decoder(TINY)
    initialize(made, 0)
    pause = settings.get("pause", 0.0)
    made.norm.register_forward_pre_hook(lambda module, inputs: time.sleep(pause if module.training else 0))
    config = StageConfig(
        **{
            "method": settings.get("method", "lora"),
            "lora": {"rank": 3, "alpha": 6, "dropout": 0.1},
            "learning_rate": 1e-2,
            "pack_tokens": 64,
            "packs_per_step": 2,
            "token_budget": 1600,
            "max_epochs": 99,
            "validate_every": 300,
            "patience": 99,
            **settings.get("config", {}),
        }
    )
    inject(made, config.adapter, seed=1)
    runtime = RuntimeConfig(
        checkpoints=CheckpointConfig(**settings.get("checkpoints", {"every_steps": 1, "keep_last": 3})),
        **settings.get("runtime", {}),
    )
    folder = Path(settings["folder"])
    files = PlainFiles() if method_of(config.adapter).trains_base else AdapterFiles(made, base="tiny")
    save, slow, failing = files.save, settings.get("slow_writing", 0.0), settings.get("fail_writing_after")

    def slowly(folder, values):
        if failing is not None and not folder.name.startswith(f".step-{failing}."):
            raise OSError(28, "No space left on device")
        time.sleep(slow)
        save(folder, values)

    files.save = slowly
    every = documents() if config.objective == "sft" else pairs(np.random.default_rng(0), 61, 14)
    try:
        groups = ["early", "late", "late"]
        stage = Stage(
            name="tiny",
            decoder=made,
            documents=every[:11],
            validation=every[11:],
            settings=config,
            folder=folder,
            runtime=runtime,
            files=files,
            groups=groups,
        )
        result, best = train(stage, Console(quiet=distributed.rank() != 0))
    except Stopped as stopped:
        if distributed.rank() == 0:
            print(stopped, flush=True)
        return 75
    if distributed.rank() == 0:
        torch.save(best, folder / "best.pt")
        (folder / "result.json").write_text(json.dumps(result.as_dict()))
    distributed.leave()
    return 0


if __name__ == "__main__":
    status = main(sys.argv[1:])
    sys.stdout.flush()
    os._exit(status)  # as `cbtrain` leaves: gloo may abort the interpreter's shutdown
