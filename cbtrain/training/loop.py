"""The training loop: step until the budget ends or validation stops improving, keep the best, lose nothing."""

from __future__ import annotations

import contextlib

import torch
from rich.console import Console

from cbtrain.errors import Stopped
from cbtrain.training import distributed
from cbtrain.training.engines.engine import State
from cbtrain.training.memory.meter import MemoryMeter
from cbtrain.training.result import TrainingResult, result_of
from cbtrain.training.stage import Stage
from cbtrain.training.stage_run import StageRun


def train(stage: Stage, console: Console, meter: MemoryMeter | None = None) -> tuple[TrainingResult, State]:
    """Train ``stage``; with ``runtime.resume=auto`` it continues from the newest whole checkpoint in its folder.

    Return the result, and on the leading rank the best parameters in fp32 by name, which are in the decoder too (but in
    ZeRO stage 3). ``meter`` has measured memory since before the model was loaded. Raises UserError when gradients stay
    non-finite, Stopped when a signal ends it.
    """
    with MemoryMeter(stage.decoder.device) if meter is None else contextlib.nullcontext(meter) as meter:
        stage.folder.mkdir(parents=True, exist_ok=True)
        run = StageRun(stage, console, meter)
        torch.manual_seed(stage.settings.seed)
        try:
            with run.open():
                while run.next_step_due():
                    run.step()
                    run.stop_if_asked()
                    run.tell_warnings()
        except Stopped as stopped:
            # torchrun ends the others half a minute after the first has left: nobody does before all is written.
            distributed.barrier()
            run.refuse_unsaved(stopped)
            raise
        run.tell_warnings()
        if run.signals.late():
            raise Stopped(run.signals.name, run.progress.step)
        return conclude(run)


def conclude(run: StageRun) -> tuple[TrainingResult, State]:
    """Load the best parameters of ``run``, which has ended, and return what :func:`train` returns."""
    run.state.restore_best()
    result = result_of(run)
    run.stage.decoder.eval()
    run.engine.close()
    return result, run.state.best
