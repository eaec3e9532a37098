"""Bytes that kernels and PyTorch move, counted, against the formulas and the documentation; the benchmark's cases."""

import json
import re
import sys

import pytest
from interpreted import interpreted
from operation_bytes import OperationBytes
from places import LAUNCH, ROOT, SHARED

pytest.importorskip("triton")
torch = pytest.importorskip("torch")
sys.path.insert(0, str(LAUNCH))

from benchmarks import kernels as benchmark  # noqa: E402
from benchmarks.kernel_cases import Sizes, cases  # noqa: E402

from cbtrain.kernels.runtime import NAMES  # noqa: E402

CPU = torch.device("cpu")

PROGRAM = f"""
sys.path[:0] = [{str(LAUNCH)!r}, {str(SHARED)!r}]
from benchmarks.kernel_cases import Sizes, cases
from benchmarks.kernels import deviation
from operation_bytes import ProgramBytes

torch.manual_seed(0)
for dtype, itemsize in ((torch.bfloat16, 2), (torch.float32, 4)):
    for case in cases(Sizes("tiny", 32, itemsize)):
        given = case.make(torch.device("cpu"), dtype)
        with ProgramBytes() as bytes_:
            case.ours(*given)
        key = f"{{case.kernel}}: {{case.what}}, {{itemsize}}"
        found[key] = bytes_.total / case.units / case.traffic.moved, deviation(case, torch.device("cpu"), dtype)
"""


def test_programs_move_the_bytes_and_compute_what_the_reference_does():
    found = interpreted(PROGRAM)
    assert len(found) == 2 * 10
    assert {name.split(":")[0] for name in found} == set(NAMES)
    for name, (share, error) in found.items():
        assert share == pytest.approx(1, abs=0.03), name  # weights of norms and tables are small beside real rows
        # The interpreter cuts bf16 off, where a GPU rounds it.
        assert error <= (benchmark.TOLERANCE if name.endswith("2") else 1e-6), name


@pytest.mark.parametrize("itemsize", [2, 4])
def test_operations_move_the_bytes_that_the_formulas_say(itemsize):
    for case in cases(Sizes("tiny", 32, itemsize)):
        given = case.make(CPU, {2: torch.bfloat16, 4: torch.float32}[itemsize])
        with OperationBytes() as bytes_:
            case.plain(*given)
        assert bytes_.total / case.units == pytest.approx(case.traffic.plain, rel=0.05), case


def test_the_table_of_the_documentation_is_that_of_the_formulas():
    lines = []
    for model in ("llama-8b", "qwen-7b"):
        for case in cases(Sizes(model)):
            t, digits = case.traffic, 3 if case.unit == "weight" else 0
            bytes_ = " | ".join(f"{value:,.{digits}f}" for value in (t.moved, t.needed))
            ratios = f"{t.moved / t.needed:.3f} | {t.plain / t.moved:.2f}"
            lines.append(f"| `{case.kernel}`: {case.what} | {model} | {case.unit} | {bytes_} | {ratios} |")
    text = (ROOT / "docs/kernels.md").read_text()
    missing = [line for line in lines if line not in text]
    assert not missing, "\n".join(missing)
    assert len(re.findall(r"\| (?:llama|qwen)-", text)) == len(lines)


def test_the_benchmark_says_that_it_needs_a_gpu(capsys, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(SystemExit) as ended:
        benchmark.main([])
    assert ended.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
    file = tmp_path / "rows.json"
    for content, arguments, words in (
        ("[1]", [], "not a file of this benchmark"),
        ("[]", ["--only", "rope,lora"], "no such kernels: lora"),
    ):
        file.write_text(content)
        with pytest.raises(SystemExit, match=words):
            benchmark.main(["--json", str(file), *arguments])


def test_rows_are_kept_and_a_wrong_kernel_gets_no_time(tmp_path, monkeypatch, capsys):
    """All but the clock, which counts on the GPU."""
    file = tmp_path / "rows.json"
    monkeypatch.setattr(benchmark, "DEVICE", CPU)
    monkeypatch.setattr(benchmark, "_milliseconds", lambda run: (run(), [1.0, 2.0, 3.0])[1])
    monkeypatch.setattr(benchmark, "COPIED", 2**20)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    right = [replaced(case) for case in cases(Sizes("tiny", 32))]
    monkeypatch.setattr(benchmark, "cases", lambda sizes: right)
    assert benchmark._measure(["rope"], [], file)
    kept = benchmark._earlier(file, ["nf4", "swiglu"])
    wrong = [replaced(case, wrong=case.what == "backward") for case in right]
    with monkeypatch.context() as changed:
        changed.setattr(benchmark, "cases", lambda sizes: wrong)
        assert not benchmark._measure(["swiglu"], kept, file)
    rows = json.loads(file.read_text())
    statuses = {(row["kernel"], row["pass"], row["status"]) for row in rows}
    assert statuses >= {("rope", "backward", "measured"), ("swiglu", "backward", "wrong")}
    assert all(("ms" in row) == (row["status"] == "measured") for row in rows)
    assert "wrong: results are" in capsys.readouterr().out
    assert benchmark._measure(["rope"], [{**rows[0], "setup": {"device": "another GPU"}}], file)
    assert {row["kernel"] for row in json.loads(file.read_text())} == {"rope"}


def replaced(case, wrong=False):
    """The case with PyTorch in the kernel's place, whose gradients are all ones if it is ``wrong``."""
    import dataclasses

    def ours(*given):
        return tuple(torch.ones_like(one) if wrong else one for one in case.plain(*given))

    return dataclasses.replace(case, ours=ours, reference=None)
