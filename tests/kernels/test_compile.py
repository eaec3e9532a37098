"""Every kernel in every configuration that is launched, compiled for three GPUs without one."""

import ast
import importlib

import pytest
from compiling import CAPABILITIES, compiled, faults
from places import ROOT

from cbtrain.kernels.runtime import NAMES

pytest.importorskip("triton")

NO_KERNELS = {"__init__", "runtime"}
FILES = {path.stem: path for path in sorted((ROOT / "kernels").glob("*.py")) if path.stem not in NO_KERNELS}


def launched(path):
    """Return the names of the functions that a file launches: ``name[grid](…)``."""
    calls = (node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call))
    return {f.value.id for f in calls if isinstance(f, ast.Subscript) and isinstance(f.value, ast.Name)}


def jitted(path):
    """Return the names of the functions of a file under ``@triton.jit``."""
    functions = (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))
    return {f.name for f in functions if any("triton.jit" in ast.unparse(each) for each in f.decorator_list)}


def test_every_file_names_its_builds():
    assert set(FILES) == set(NAMES)
    for name, path in FILES.items():
        module = importlib.import_module(f"cbtrain.kernels.{name}")
        builds = module.builds()
        assert builds, name
        assert {build.kernel for build in builds} == {name}
        assert {build.function.__name__ for build in builds} == launched(path) & jitted(path) != set(), name
        for build in builds:
            assert list(build.signature) == build.function.arg_names, (name, build.function)
            constants = {argument for argument, kind in build.signature.items() if kind == "constexpr"}
            assert constants == set(build.constants), (name, build.function)


def test_all_builds_compile_without_spills():
    records = compiled(*(f"cbtrain.kernels.{name}" for name in FILES))
    assert {(record["kernel"], record["capability"]) for record in records} == {
        (name, capability) for name in FILES for capability in CAPABILITIES
    }
    assert not [(record, found) for record in records if (found := faults(record))]


def test_a_bad_kernel_is_found():
    records = compiled("spilling_kernel")
    by_function = {name: [each for each in records if each["function"] == name] for name in ("_centre", "_transpose")}
    for name, problem in (("_centre", "spills"), ("_transpose", "bytes of shared memory")):
        assert len(by_function[name]) == len(CAPABILITIES)
        for record in by_function[name]:
            (found,) = faults(record)
            assert problem in found
    rounded = [record for record in records if record["function"] == "_square_and_one"]
    assert len(rounded) == 2 * len(CAPABILITIES)
    assert all((record["fused"] > 0) == record["fusion"] for record in rounded)
    assert all(faults({**record, "fusion": False}) for record in rounded if record["fusion"])
    assert faults({**rounded[0], "registers": 255, "threads": 1024}) == ["255 registers in 1024 threads"]
