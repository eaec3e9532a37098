"""A therapist that was trained on pairs is not measured on the patients of these pairs."""

import json

import pytest
import yaml
from rich.console import Console
from study_files import model_with_adapters, three_arms, write_study

from cbtrain.config.loading import load_config
from cbtrain.errors import UserError
from cbtrain.study.evaluation.study import open_study


@pytest.mark.parametrize("corpus", ["pairs.jsonl", "."])
def test_an_evaluation_refuses_patients_of_the_pairs_on_which_a_therapist_was_trained(tmp_path, corpus):
    model = model_with_adapters(tmp_path / "tiny")
    (model / "config.yaml").write_text(yaml.safe_dump({"corpus": {"path": str(tmp_path / corpus)}}))
    (tmp_path / "pairs.jsonl").write_text("")
    beside = tmp_path / "pairs.jsonl.patients.json"

    def open_with(*patients):
        study = write_study(
            tmp_path / "study.yaml",
            three_arms(model),
            "http://127.0.0.1:9/v1",
            patients={"library": "depression", "only": list(patients)},
            prompt="none",
            course={"sessions": "first"},
        )
        return open_study(load_config(str(study)), tmp_path / "out", Console(quiet=True))

    beside.write_text(json.dumps({"schema": "cbtrain.pair-patients/1", "patients": {"tess-abara": 2}}))
    assert list(open_with("gerald-ashworth").treated.profiles) == ["gerald-ashworth"]
    with pytest.raises(UserError) as refused:
        open_with("gerald-ashworth", "tess-abara")
    assert str(refused.value).startswith("evaluation.patients: tiny-")
    assert "was trained on pairs of 1 patient who would be treated: tess-abara (pairs.jsonl.pat" in str(refused.value)
    beside.write_text("{")
    with pytest.raises(UserError, match="malformed JSON"):
        open_with("gerald-ashworth")
    beside.unlink()
    assert len(open_with("gerald-ashworth", "tess-abara").treated.profiles) == 2
