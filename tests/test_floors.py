"""The house: a room imports only from floors below it, and the light rooms stay light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
GROUND = {"cbtrain", "cbtrain.errors", "cbtrain.files"}
FLOORS = {
    "cbtrain.transcripts": 0,
    "cbtrain.providers": 0,
    "cbtrain.journal": 0,
    "cbtrain.kernels": 0,
    "cbtrain.configs": 0,
    "cbtrain.model": 1,
    "cbtrain.tokens": 1,
    "cbtrain.training": 2,
    "cbtrain.generation": 2,
    "cbtrain.synthesis": 2,
    "cbtrain.eval": 3,
}
# Rendering is about transcripts; the two rooms of floor 1 do not know each other.
FOLDERS = {"kernels": "cbtrain.kernels", "eval": "cbtrain.eval", "configs": "cbtrain.configs"}


def modules():
    for top in ("cbtrain", "kernels", "eval", "configs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join((FOLDERS.get(parts[0], parts[0]), *parts[1:])).removesuffix(".__init__")
            yield name, path


def imports(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            # `from package import module` names a module too
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module):
    parts = module.split(".")
    return ".".join(parts[:2]) if ".".join(parts[:2]) in FLOORS else None


def test_rooms_import_only_from_floors_below():
    seen = set()
    for name, path in modules():
        here = room(name)
        seen.add(here)
        for imported in imports(path):
            if (
                imported.split(".")[0] != "cbtrain"
                or imported in GROUND
                or imported.rpartition(".")[0] in GROUND - {"cbtrain"}
            ):
                continue
            there = room(imported)
            if name in GROUND:
                pytest.fail(f"{name} (ground) imports {imported}")
            if here is None or imported == "cbtrain":
                continue  # the top floor may import everything
            if imported.startswith("cbtrain.") and there is None:
                assert imported in ("cbtrain.NOTICE", "cbtrain.__version__"), (
                    f"{name} imports the top floor: {imported}"
                )
                continue
            assert there == here or FLOORS[there] < FLOORS[here], f"{name} (floor {FLOORS[here]}) imports {imported}"
    assert set(FLOORS) <= seen, f"rooms without modules: {set(FLOORS) - seen}"


HEAVY = ("torch", "transformers", "deepspeed", "bitsandbytes")
LIGHT = [
    "cbtrain",
    "cbtrain.cli",
    "cbtrain.transcripts.reading",
    "cbtrain.transcripts.cleaning",
    "cbtrain.providers.providers",
    "cbtrain.journal.journal",
    "cbtrain.model.config",
    "cbtrain.tokens.config",
    "cbtrain.training.config",
    "cbtrain.generation.config",
    "cbtrain.eval.config",
    "cbtrain.config",
]


@pytest.mark.parametrize("module", LIGHT)
def test_light_modules_import_nothing_heavy(module):
    code = f"import sys, {module}; print([m for m in {HEAVY} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")
    assert out.stdout.strip() == "[]"


def test_no_launcher_hides_a_standard_module():
    # torchrun puts launch/ first on the path.
    names = {path.stem for path in (ROOT / "launch").glob("*.py")}
    assert {"train", "evaluate", "serve"} <= names
    assert not names & sys.stdlib_module_names


def test_no_file_has_a_name_that_explains_nothing():
    catch_alls = {"utils", "helpers", "common", "misc"}
    assert not [str(path) for _, path in modules() if path.stem in catch_alls]


def test_files_stay_short():
    assert not [f"{path}: {n}" for _, path in modules() if (n := len(path.read_text().splitlines())) > 400]


def test_the_training_step_is_one_short_function():
    tree = ast.parse((ROOT / "cbtrain/training/step.py").read_text())
    step = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train_step")
    assert step.end_lineno - step.lineno < 60
