"""A built wheel in a clean environment, outside the checkout: the command, its configs and the sample corpus."""

import json
import shutil
import subprocess
import sys
import venv

import pytest
from places import ROOT


@pytest.mark.slow
def test_the_wheel_works_where_nothing_else_of_ours_is(tmp_path):
    source = tmp_path / "source"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, tracked.split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    subprocess.run([sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path / "dist", source], check=True)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    shutil.rmtree(source)
    venv.create(tmp_path / "env", with_pip=True)
    bin = tmp_path / "env" / "bin"
    install = [bin / "pip", "install", "--quiet", "-c", ROOT / "constraints.txt"]
    subprocess.run([*install, "torch"], check=True)
    subprocess.run([*install, wheel], check=True)

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
