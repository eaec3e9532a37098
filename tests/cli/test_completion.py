"""``cbtrain completion``: the scripts, run by the shells that are here."""

import shutil
import subprocess

import pytest

from cbtrain.cli.completion import script
from cbtrain.cli.main import build_parser, main
from cbtrain.config.problems import all_keys
from cbtrain.config.schema import StudyConfig
from cbtrain.config.sources import shipped_configs

LINES = {
    "tra": ["train"],
    "corpus che": ["check"],
    "corpus check --exp": ["--explain"],
    "rate ex": ["export"],
    "rate export --rub": ["--rubric"],
    "rate --conf": ["--config"],
    "config sh": ["sharing=", "show"],
    "train --config llama3.1-8b-q": ["llama3.1-8b-qlora"],
    "config show qui": ["quick"],
    "config check pap": ["paper"],
    "synthesize --config ": ["hermes"],
    "config explain training.ze": ["training.zero_stage"],
    "config schema ": ["provider", "study", "synthesis"],
    "corpus preview --speaker ": ["patient", "therapist"],
    "providers check deeps": ["deepseek"],
    "completion ": ["bash", "fish", "zsh"],
    "show runs --ra": ["--raw"],
    "train therapist.lora.rs": ["therapist.lora.rslora="],
    "synthesize courses": ["courses_in_flight="],
    "bogus ": [],
    "corpus stats see": ["seed="],
    "serve model.pa": ["model.path="],
    "chat --ad": ["--adapter"],
    "rate import seed": [],  # takes no settings
}
"""What is typed after ``cbtrain``, and what it may become."""

SECTIONS = {"train the": ["therapist."], "plan training.checkpoints.k": ["training.checkpoints.keep_best=", "training.checkpoints.keep_last="]}  # fmt: skip

ASK = """
for line in "$@"; do
    read -ra COMP_WORDS <<< "cbtrain $line"
    if [[ "$line" == "" || "$line" == *" " ]]; then COMP_WORDS+=(""); fi
    COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
    _cbtrain
    echo "${COMPREPLY[*]}"
done
"""


def shell(name, program, *arguments):
    if not shutil.which(name):
        pytest.skip(f"{name} is not here")
    command = [name, *(["--norc"] if name == "bash" else []), "-c", program, name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture(scope="module")
def parser():
    return build_parser()


def test_bash_completes_by_the_script(parser, tmp_path):
    lines = LINES | SECTIONS
    answers = shell("bash", script("bash", parser) + ASK, *lines).splitlines()
    found = {line: sorted(set(answer.split()) - {"--help"}) for line, answer in zip(lines, answers, strict=True)}
    assert found == {line: sorted(expected) for line, expected in lines.items()}


def test_all_first_words_are_offered_and_files_where_nothing_of_ours_fits(parser):
    first, out, value = shell("bash", script("bash", parser) + ASK, "", "train --out ", "train corpus.path = ").split(
        "\n"
    )[:3]
    assert set(first.split()) == {
        "--help",
        "--version",
        *(name.partition(" ")[0] for name in parser.subcommands.choices),
    }
    assert (out, value) == ("", "")


def test_fish_completes_by_the_script(parser, tmp_path):
    ask = '\nfor line in $argv; echo (complete -C "cbtrain $line" | string split -f1 \\t | sort -u); end\n'
    if not shutil.which("fish"):
        pytest.skip("fish is not here")
    command = ["fish", "--no-config", "-c", script("fish", parser) + ask, *LINES]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.stderr == ""
    found = dict(zip(LINES, map(str.split, done.stdout.split("\n")), strict=False))
    for line, expected in LINES.items():
        assert found[line] == expected, line


def test_zsh_takes_the_script_of_bash(parser):
    if not shutil.which("zsh"):
        pytest.skip("zsh is not here")
    program = (
        script("zsh", parser) + 'emulate sh; COMP_WORDS=(cbtrain corpus che); COMP_CWORD=2; _cbtrain; echo "$COMPREPLY"'
    )
    done = subprocess.run(["zsh", "-f", "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "check", done.stderr


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_a_script_is_printed_with_all_configs_and_settings(name, capsys):
    assert main(["completion", name]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"# {name} completion of cbtrain. ")
    assert all(config in out for config in shipped_configs())
    sections = {key.rpartition(".")[0] for key in all_keys(StudyConfig)}
    assert all(key in out for key in all_keys(StudyConfig) if key not in sections)


def test_another_shell_is_one_line(capsys):
    assert main(["completion", "tcsh"]) == 2
    assert capsys.readouterr().err.startswith("cbtrain: completion: argument shell: invalid choice: 'tcsh'")
