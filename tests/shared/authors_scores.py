"""Where the 2024 study's raw scores are, where they are."""

import os
from pathlib import Path

import pytest

BESIDE = Path(__file__).resolve().parents[2].parent / "shared/data/tahir2024"
SCORES = Path(os.environ.get("CBTRAIN_TAHIR2024", BESIDE)) / "Code/evaluation_results/all_scores_with_patients.csv"

needs_scores = pytest.mark.skipif(not SCORES.exists(), reason="the scores of the 2024 study are not here")
