"""Imported transcripts stay here unless the user says otherwise; the one asked is told what would go where."""

import json

import pytest
from command import cbtrain

from cbtrain.errors import UserError
from cbtrain.study.consent import is_local, require_consent
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.writing import write_canonical


@pytest.mark.parametrize(
    ("url", "local"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://127.3.4.5/v1", True),
        ("https://api.example.org/v1", False),
        ("http://192.168.0.7:8000/v1", False),
        ("http://localhost.example.org/v1", False),
        ("http://127.0.0.1.example.org/v1", False),
        ("http://user@127.0.0.1@api.example.org/v1", False),
    ],
)
def test_what_is_this_machine(url, local):
    assert is_local(url) == local


def test_consent():
    require_consent("sample", "profiles", "https://api.example.org/v1", False)
    require_consent("mine", "profiles", "http://127.0.0.1:1/v1", False)
    require_consent("mine", "profiles", "https://api.example.org/v1", True)
    with pytest.raises(UserError, match=r"mine: this would send profiles to https://api\.example\.org/v1.*--allow-up"):
        require_consent("mine", "profiles", "https://api.example.org/v1", False)


JUDGE = (
    "evaluation.judging.provider={base_url: 'http://judge.invalid/v1', model: m, api_key_env: CBTRAIN_JUDGE_API_KEY}"
)
PATIENT = "evaluation.patient_provider={base_url: 'http://patient.invalid/v1', model: m}"
SYNTHESIS = [
    "synthesize",
    "--out",
    "new",
    "provider.base_url=http://writer.invalid/v1",
    "provider.api_key_env=null",
    "--profiles",
]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", JUDGE, "corpus.path=mine"], "mine: this would send sessions simulated from its profiles and transcri"),
        (["evaluate", "--run", "run", JUDGE, "corpus.path=mine"], "mine: this would send sessions simulated"),
        (
            ["run", PATIENT, "corpus.path=mine", "evaluation.patients.library=depression"],
            "mine: this would send sessions with a therapist that was trained on it to http://patient.invalid",
        ),
        (
            ["run", PATIENT, "corpus.path=mine"],
            "mine: this would send its patients' profiles to http://patient.invalid",
        ),
        (
            ["rate", JUDGE, "corpus.path=mine", "--out", "out"],
            "mine: this would send its transcripts to http://judge.inv",
        ),
        ([*SYNTHESIS, "mine"], "mine: this would send its patients' profiles to http://writer.invalid/v1"),
    ],
)
def test_no_command_sends_an_imported_corpus_unasked(tmp_path, arguments, told):
    write_canonical(read("sample"), tmp_path / "mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("seed: 0\n")
    trained = {"model": "base", "corpus": {"split": {}, "fingerprint": ""}, "training": [], "seconds": 1}
    (tmp_path / "run" / "study.json").write_text(json.dumps(trained))
    key = {} if PATIENT in arguments else {"CBTRAIN_JUDGE_API_KEY": "k"}
    done = cbtrain(*arguments, cwd=tmp_path, env=key)
    assert done.returncode == 2
    assert done.stderr.startswith(f"cbtrain: {told}")
    assert "--allow-upload" in done.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"mine", "run"}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.yaml", "study.json"}
