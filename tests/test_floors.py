"""The house: a room imports only from floors below it, and the light rooms stay light."""

import ast
import subprocess
import sys
from functools import cache

import pytest
from places import ROOT

GROUND = {
    "cbtrain",
    *(
        f"cbtrain.{name}"
        for name in ("errors", "files", "console", "journal", "stopping", "environment", "settings", "text")
    ),
}
FLOORS = {
    "cbtrain.transcripts": 0,
    "cbtrain.providers": 0,
    "cbtrain.kernels": 0,
    "cbtrain.configs": 0,
    "cbtrain.model": 1,
    "cbtrain.tokens": 1,
    "cbtrain.patients": 1,
    "cbtrain.training": 2,
    "cbtrain.tasks": 2,
    "cbtrain.generation": 2,
    "cbtrain.synthesis": 2,
    "cbtrain.serving": 3,
    "cbtrain.eval": 3,
    "cbtrain.config": 4,
    "cbtrain.study": 5,
    "cbtrain.cli": 6,
}
"""Rooms of one floor do not know each other."""
FLOORS_OF_EVAL = {
    **{
        "watching": 0,
        "simulation": 1,
        "rating": 2,
        "human_rating": 3,
        "analysis": 3,
        "judge_audit": 4,
        "patient_audit": 4,
        "trained_rater": 4,
        "report": 4,
    }
}
FOLDERS = {"kernels": "cbtrain.kernels", "eval": "cbtrain.eval", "configs": "cbtrain.configs"}


@cache
def modules():
    """Every module's name and path."""
    found = {}
    for top in ("cbtrain", "kernels", "eval", "configs"):
        for path in sorted((ROOT / top).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = ".".join((FOLDERS.get(parts[0], parts[0]), *parts[1:])).removesuffix(".__init__")
            found[name] = path
    return found


@cache
def imports(name):
    """The modules of ours that ``name`` imports, at its top, in functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            # `from package import module` names a module too
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {module if module in modules() else node.module for module in deeper}
    found = {module for module in found if module.split(".")[0] == "cbtrain"}
    # Whoever imports a module runs the `__init__` of the packages around it, but those that it lies in itself.
    around = {".".join(module.split(".")[:depth]) for module in found for depth in range(2, module.count(".") + 1)}
    return found | {package for package in around if not f"{name}.".startswith(f"{package}.")}


def test_rooms_import_only_from_floors_below():
    seen = set()
    for name in modules():
        here = ".".join(name.split(".")[:2])
        seen.add(here)
        for imported in imports(name):
            there = ".".join(imported.split(".")[:2])
            if there in GROUND or here == there:
                continue
            assert here not in GROUND, f"{name} (ground) imports {imported}"
            assert FLOORS[there] < FLOORS[here], f"{name} (floor {FLOORS[here]}) imports {imported}"
    assert seen == {*FLOORS, *GROUND}


def test_rooms_of_the_evaluation_have_walls():
    seen = set()
    for name in modules():
        here = name.split(".")[2:3] if name.startswith("cbtrain.eval.") else []
        if not here:
            continue
        if here == ["config"]:  # composes the rooms' settings
            rooms = {imported for imported in imports(name) if imported.startswith("cbtrain.eval.")}
            assert all(room.endswith(".config") or room.count(".") == 2 for room in rooms), rooms
            continue
        seen.add(here[0])
        for imported in imports(name):
            there = imported.split(".")[2] if imported.startswith("cbtrain.eval.") else here[0]
            assert there != "config", f"{name} imports {imported}, which composes the rooms' settings"
            assert there == here[0] or FLOORS_OF_EVAL[there] < FLOORS_OF_EVAL[here[0]], f"{name} imports {imported}"
    assert seen == set(FLOORS_OF_EVAL)


def test_no_module_imports_itself_by_way_of_others():
    open_, done = [], set()

    def visit(name):
        if name in open_:
            pytest.fail(" -> ".join([*open_[open_.index(name) :], name]))
        if name in done or name not in modules():
            return
        open_.append(name)
        for imported in sorted(imports(name)):
            visit(imported)
        done.add(open_.pop())

    for name in modules():
        visit(name)
    assert done == set(modules())


def test_few_files_stand_loose():
    assert len(list((ROOT / "cbtrain").glob("*.py"))) <= 8
    assert {path.name for path in (ROOT / "eval").glob("*.py")} == {"__init__.py", "config.py"}


HEAVY = ("torch", "transformers", "deepspeed", "bitsandbytes")
LIGHT = [
    "cbtrain",
    "cbtrain.cli.main",
    "cbtrain.transcripts.reading",
    "cbtrain.transcripts.cleaning",
    "cbtrain.providers.providers",
    "cbtrain.patients.patients",
    "cbtrain.patients.drafts",
    "cbtrain.journal",
    "cbtrain.model.config",
    "cbtrain.tasks.entity_matching.documents",
    "cbtrain.tasks.entity_matching.folder",
    "cbtrain.tasks.entity_matching.generate",
    "cbtrain.tasks.entity_matching.scoring",
    "cbtrain.tokens.config",
    "cbtrain.training.config",
    "cbtrain.generation.config",
    "cbtrain.eval.config",
    "cbtrain.eval.watching.watch",
    "cbtrain.study.evaluation.evaluate",  # a study of APIs alone
    "cbtrain.config.loading",
]


def test_light_modules_import_nothing_heavy():
    code = f"""
import importlib, sys
for module in {LIGHT}:
    importlib.import_module(module)
    if heavy := [name for name in {HEAVY} if name in sys.modules]:
        sys.exit(f"{{module}} imports {{heavy}}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr


def test_no_launcher_hides_a_standard_module():
    # torchrun puts launch/ first on the path.
    names = {path.stem for path in (ROOT / "launch").glob("*.py")}
    assert {"train", "evaluate", "serve"} <= names
    assert not names & sys.stdlib_module_names


def test_no_file_has_a_name_that_explains_nothing():
    catch_alls = {"utils", "helpers", "common", "misc"}
    assert not [str(path) for path in modules().values() if path.stem in catch_alls]


def test_files_stay_short():
    assert not [f"{path}: {n}" for path in modules().values() if (n := len(path.read_text().splitlines())) > 400]


def test_the_training_step_is_one_short_function():
    tree = ast.parse((ROOT / "cbtrain/training/step.py").read_text())
    step = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "train_step")
    assert step.end_lineno - step.lineno < 60


MOST_PARAMETERS, REASON = 7, "# More than seven parameters:"


def too_many_parameters(path):
    """Return the functions with more than seven parameters (``self`` and ``cls`` not counted) and no reason above."""
    lines, problems = path.read_text().splitlines(), []
    for node in ast.walk(ast.parse("\n".join(lines))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if parameters and parameters[0].arg in ("self", "cls"):
            parameters.pop(0)
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        if len(parameters) > MOST_PARAMETERS and not lines[first - 2].strip().startswith(REASON):
            problems.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name} takes {len(parameters)}")
    return problems


def test_functions_take_few_parameters():
    paths = [*modules().values(), *sorted((ROOT / "launch").rglob("*.py"))]
    assert not [problem for path in paths for problem in too_many_parameters(path)]
