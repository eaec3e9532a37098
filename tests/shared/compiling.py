"""Kernels compiled for GPUs without a GPU: ``python compiling.py MODULE …`` prints what each build takes, as JSON.

In a process of its own, without ``TRITON_INTERPRET``, and with an empty cache of compiled kernels.
"""

import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

CAPABILITIES = {80: 163, 90: 227, 100: 227}
"""Compute capabilities, and the KiB of shared memory that a block may have there (CUDA C++ Programming Guide,
"Technical Specifications per Compute Capability")."""

REGISTERS = 65_536
"""Of a multiprocessor: those of all threads of a block together."""


def compiled(*modules):
    """Return one record for each build of ``modules`` and each of :data:`CAPABILITIES`."""
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "TRITON_CACHE_DIR": cache}
        environment.pop("TRITON_INTERPRET", None)
        command = [sys.executable, __file__, *modules]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=Path(__file__).parent)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def faults(record):
    """Return what keeps a compiled kernel from running well, or at all."""
    found = []
    if not record["registers"]:
        found.append("registers are not reported")
    if record["registers"] * record["threads"] > REGISTERS:
        found.append(f"{record['registers']} registers in {record['threads']} threads")
    if spilled := record["stack"] + record["local"]:
        found.append(f"spills {spilled} bytes a thread")
    if record["shared"] > CAPABILITIES[record["capability"]] * 1024:
        found.append(f"{record['shared']} bytes of shared memory")
    if record["fused"] and not record["fusion"]:
        found.append(f"{record['fused']} fused multiply-adds where each operation must be rounded")
    return found


def _resources(build, capability):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    aligned = {(place,): [["tt.divisibility", 16]] for place in build.aligned}
    source = ASTSource(build.function, dict(build.signature), dict(build.constants), aligned)
    options = {"num_warps": build.warps, "num_stages": build.stages, "enable_fp_fusion": build.fusion}
    kernel = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        usage = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    named = dict(re.findall(r"(REG|STACK|LOCAL):(\d+)", usage))
    return {
        "kernel": build.kernel,
        "function": build.function.__name__,
        "capability": capability,
        "types": " ".join(build.signature.values()),
        "constants": dict(build.constants),
        "threads": 32 * build.warps,
        "registers": int(named["REG"]),
        "stack": int(named["STACK"]),
        "local": int(named["LOCAL"]),
        "shared": kernel.metadata.shared,
        "fusion": build.fusion,
        "fused": kernel.asm["ptx"].count("fma.rn"),
    }


def _job(place):
    return _resources(*JOBS[place])


if __name__ == "__main__":
    BUILDS = [build for name in sys.argv[1:] for build in importlib.import_module(name).builds()]
    JOBS = [(build, capability) for build in BUILDS for capability in CAPABILITIES]
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        print(json.dumps(list(pool.map(_job, range(len(JOBS))))))
