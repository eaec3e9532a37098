"""The plan of an evaluation: journalled, and written to ``plan.yaml``, before the first session."""

from __future__ import annotations

from typing import Any

import yaml

from cbtrain.files import write_atomic
from cbtrain.study.evaluation.protocol import EvaluationProtocol, digest
from cbtrain.study.evaluation.run_context import BEGUN, PLAN, RunContext
from cbtrain.study.run_files import PLAN as PLAN_FILE

HEAD = """\
# What this evaluation has planned, written before its first session. What was changed later is named in its report
# ("deviations"); this file stays as it is.
"""


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are."""


def _text(dumper: yaml.SafeDumper, text: str) -> Any:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def write_plan(protocol: EvaluationProtocol, run: RunContext) -> None:
    """Journal the plan with its digest, and write ``plan.yaml``, unless there is one already, or sessions that an older
    version has begun without one."""
    planned = next((event for event in run.events if event["kind"] == PLAN), None)
    if planned is None:
        if any(event["kind"] == BEGUN for event in run.events):
            return
        plan = protocol.plan
        run.record(PLAN, protocol=plan, digest=digest(plan))
        planned = run.events[-1]
    path = run.folder / PLAN_FILE
    if not path.exists():  # the journal has it: killed between the two, or an older version wrote no file
        content = {"planned": planned["time"], "digest": digest(planned["protocol"]), **planned["protocol"]}
        text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
        write_atomic(path, HEAD + text)
