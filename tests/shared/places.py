"""Where things lie: this repository, the programs installed beside it, the studies' public data."""

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
SHARED = ROOT / "tests" / "shared"
BIN = Path(sys.executable).parent

TAHIR2024 = Path(os.environ.get("CBTRAIN_TAHIR2024", ROOT.parent / "shared/data/tahir2024"))
SCORES2024 = TAHIR2024 / "Code/evaluation_results/all_scores_with_patients.csv"
TAHIR2025 = Path(os.environ.get("CBTRAIN_TAHIR2025", ROOT.parent / "shared/data/tahir2025"))

needs_tahir2024 = pytest.mark.skipif(not TAHIR2024.exists(), reason="the corpus of the 2024 study is not here")
needs_scores = pytest.mark.skipif(not SCORES2024.exists(), reason="the scores of the 2024 study are not here")
needs_tahir2025 = pytest.mark.skipif(not TAHIR2025.exists(), reason="the files of the 2025 study are not here")
