"""A built wheel where nothing else of ours is: the command, its configs and the sample corpus."""

import ast
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from importlib.metadata import packages_distributions, requires

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder / "dist", source]
    subprocess.run(build, check=True, capture_output=True)
    (made,) = (folder / "dist").glob("*.whl")
    return made


@pytest.fixture
def beside_our_dependencies(wheel, tmp_path):
    """An environment with the wheel and, of what is installed here, the packages that it needs: this checkout, which is
    installed as editable, cannot be seen from there."""
    venv.create(tmp_path / "env", with_pip=False)
    (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", tmp_path / "env", "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--ignore-installed", wheel], check=True)
    return tmp_path / "env" / "bin"


@pytest.fixture
def clean(wheel, tmp_path):
    """An environment into which pip puts the wheel and everything that it asks for."""
    venv.create(tmp_path / "env", with_pip=True)
    install = [tmp_path / "env" / "bin" / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, wheel], check=True)
    return tmp_path / "env" / "bin"


@pytest.mark.parametrize(
    "environment",
    [
        pytest.param("beside_our_dependencies", marks=pytest.mark.slow),
        pytest.param("clean", marks=pytest.mark.deep),
    ],
)
def test_the_wheel_works_where_nothing_else_of_ours_is(environment, request, tmp_path):
    bin = request.getfixturevalue(environment)

    def run(*command):
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout

    where = run(bin / "python", "-c", "import cbtrain.eval, cbtrain.kernels; print(cbtrain.eval.__file__)")
    assert where.startswith(str(tmp_path / "env"))
    assert json.loads(run(bin / "cbtrain", "corpus", "stats", "--json"))["courses"] >= 6
    assert "sessions_in_flight" in run(bin / "cbtrain", "config", "--config", "quick")
    for command in ("run", "train", "evaluate"):
        assert "usage: cbtrain" in run(bin / "cbtrain", command, "--help")
    run(bin / "cbtrain", "rate", "export", "sample", "--out", "forms", "--sessions", "2")
    assert "Content-Security-Policy" in (tmp_path / "forms" / "rater-1" / "form.html").read_text()
    out = run(bin / "cbtrain", "run", "--config", "quick", "--out", "run", "base.token_budget=8000")
    assert "report: run/report.html" in out
    page = (tmp_path / "run" / "report.html").read_text()
    assert "<style" in page
    assert "<script" in page


def test_what_is_imported_is_asked_for():
    """Every package that the library imports is one that pip installs with it, or with an extra."""
    names = {
        re.match(r"[\w.-]+", line)[0].lower().replace("_", "-") for line in requires("cbtrain") if "dev" not in line
    }
    imported = set()
    for top in ("cbtrain", "kernels", "eval", "configs"):
        for path in (ROOT / top).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    imported |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom):
                    imported.add(node.module.split(".")[0])
    homes = packages_distributions()
    with_torch = {"triton"}  # its CUDA builds bring it
    for name in imported - set(sys.stdlib_module_names) - {"cbtrain"} - with_torch:
        home = {place.lower().replace("_", "-") for place in homes.get(name, [name.replace("_", "-")])}
        assert home & names, f"{name} is imported, and setup.py does not ask for it"
