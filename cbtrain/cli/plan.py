"""``cbtrain plan``: memory and time of training, before anything is loaded."""

from __future__ import annotations

import argparse
import json
import os

from cbtrain.cli.exit_codes import DONE, FOUND
from cbtrain.cli.parser import SETTINGS, Commands, add_command, add_study_arguments
from cbtrain.errors import UserError

BIG = 2048
"""Hidden size from which a model is slow to time on a CPU."""


def add(commands: Commands) -> None:
    plan = add_command(
        commands,
        "plan",
        _plan,
        "predict memory and time of training: whether it fits, and how fast it is",
        "The corpus is read and tokenized, no weights are loaded. The exit status is 1 if the settings do not fit. "
        + SETTINGS,
    )
    add_study_arguments(plan)
    plan.add_argument("--gpu", help="plan for this GPU (h100, h200, a100-80gb, rtx4090, ...) instead of this machine")
    text = "memory of the device, in GB (1e9 bytes); without it training.memory_limit, or what is there"
    plan.add_argument("--memory", type=float, metavar="GB", help=text)
    plan.add_argument("--ranks", type=int, help="processes that train together (default: those that torchrun started)")
    plan.add_argument("--stage", choices=["base", "therapist", "patient"], help="plan this stage only")
    plan.add_argument("--json", action="store_true", help="print one JSON object instead of tables")


def _plan(parsed: argparse.Namespace) -> int:
    import torch
    from rich.console import Console

    from cbtrain.config.loading import load_config
    from cbtrain.environment import pick_device
    from cbtrain.study.plan import planned_stages
    from cbtrain.training.packs import check_packs_per_step
    from cbtrain.training.planning.machine import other_machine, this_machine
    from cbtrain.training.planning.plan import plan_stage
    from cbtrain.training.planning.table import WIDTH, plan_as_dict, print_plan

    config = load_config(parsed.config, parsed.settings)
    ranks = parsed.ranks if parsed.ranks is not None else int(os.environ.get("WORLD_SIZE", "1"))
    if ranks < 1:
        raise UserError(f"{ranks} ranks", where="--ranks", hint="At least 1.")
    if config.threads:
        torch.set_num_threads(config.threads)
    device = pick_device("auto" if parsed.gpu else config.model.device)
    memory = parsed.memory if parsed.memory is not None else config.training.memory_limit
    machine = other_machine(parsed.gpu, memory) if parsed.gpu else this_machine(device, memory)
    for name in (parsed.stage,) if parsed.stage else config.training.speakers:
        check_packs_per_step(getattr(config, name), ranks, name)
    notes = Console(stderr=True)
    stages = planned_stages(config, machine.kind, ranks, notes, [parsed.stage] if parsed.stage else [])
    if machine.kind == "cpu" and any(stage.scenario.architecture.hidden >= BIG for stage in stages):
        notes.print(
            "Timing a large model on this CPU takes minutes; `--gpu h100` plans for a GPU instead.", soft_wrap=True
        )
    with notes.status("Planning") as status:
        plans = [plan_stage(stage, machine, torch.device(device), status.update) for stage in stages]
    good = all(plan.configured.fits for plan in plans)
    if parsed.json:
        stages_as_dicts = [plan_as_dict(plan, machine) for plan in plans]
        print(json.dumps({"machine": machine.name, "ranks": ranks, "fits": good, "stages": stages_as_dicts}, indent=2))
    else:
        console = Console()
        if not console.is_terminal:
            console = Console(width=WIDTH)
        for plan in plans:
            print_plan(plan, machine, console)
    return DONE if good else FOUND
