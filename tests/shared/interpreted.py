"""Programs in Triton's interpreter, each in a process of its own.

The interpreter is chosen when a kernel is defined, and a stray pointer kills the process.
"""

import json
import os
import subprocess
import sys

POISON = """
import json, sys
import torch

def _poisoned(make):
    def made(*args, **options):
        tensor = make(*args, **options)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() and tensor.numel() < 2**24 else tensor
    return made

with torch.device("meta"):  # looks up, once, which functions take a device
    torch.empty(0)
torch.empty, torch.empty_like = _poisoned(torch.empty), _poisoned(torch.empty_like)  # an unwritten output shows
"""


def interpreted(program):
    """Run ``program`` with ``TRITON_INTERPRET=1`` and what ``torch.empty`` makes full of NaN. Return what it puts into
    ``found`` (a dict of numbers, lists and texts)."""
    program = POISON + "found = {}\n" + program + "\nprint(json.dumps(found))\n"
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr[-3000:] or done.returncode
    return json.loads(done.stdout.splitlines()[-1])
