"""Words on the command line: commands by groups, what was probably meant, where settings may stand, exit statuses."""

import json
import re
import time

import pytest
import yaml
from places import ROOT

from cbtrain.cli import exit_codes
from cbtrain.cli.completion import _parsers
from cbtrain.cli.main import GROUPS, NAME_WIDTH, build_parser, main
from cbtrain.cli.parser import parse, study_of
from cbtrain.config.problems import all_keys
from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError


@pytest.mark.fault("H8")
@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("trian", "unknown command 'trian'. Did you mean 'train'?"),
        ("trian --config quick seed=1", "unknown command 'trian'. Did you mean 'train'?"),
        ("corpus chek", "unknown command 'corpus chek'. Did you mean 'corpus check'?"),
        ("corpus chek --json PATH", "unknown command 'corpus chek'. Did you mean 'corpus check'?"),
        ("rate exprot", "unknown command 'rate exprot'. Did you mean 'rate export'?"),
        ("rate exprot runs/mine --out forms", "unknown command 'rate exprot'. Did you mean 'rate export'?"),
        ("providers chek openai", "unknown command 'providers chek'. Did you mean 'providers check'?"),
        ("config shw", "unknown command 'config shw'. Did you mean 'config show'?"),
        ("stats", "unknown command 'stats'. Did you mean 'corpus stats'?"),
        (
            "check",
            "unknown command 'check'. Did you mean 'corpus check' or 'patients check' or 'rubric check' or 'config check' or 'providers check'?",
        ),
        (
            "corpus qqq",
            "unknown command 'corpus qqq'. Known: card, check, clean, convert, guess, preview, schema, split, stats, tokens.",
        ),
        ("train --confg quick", "train: unrecognized arguments: --confg. Did you mean '--config'?"),
        ("rate", "rate: the following arguments are required: --out. See `cbtrain rate --help`."),
        ("serve --model m --port x", "serve: argument --port: invalid int value: 'x'. See `cbtrain serve --help`."),
        ("", "the following arguments are required: COMMAND. See `cbtrain --help`."),
        ("corpus", "corpus: the following arguments are required: COMMAND. See `cbtrain corpus --help`."),
        (
            "train --config quick --config paper",
            "train: argument --config: given twice, with different values. See `cbtrain train --help`.",
        ),
        ("corpus check a b", "command line: unexpected 'b'. Settings are key=value."),
        ("train foo", "command line: 'foo' is not key=value. E.g. therapist.learning_rate=1e-4."),
    ],
)
def test_a_mistyped_word_is_one_line_with_what_was_meant(words, line, capsys):
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", f"cbtrain: {line}\n")


def test_help_has_five_groups_and_the_table_of_exit_statuses(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    began = time.thread_time()  # servers of other tests may still run beside it
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert time.thread_time() - began < 0.5
    assert ended.value.code == 0
    text = capsys.readouterr().out
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [*GROUPS, "options", "exit status"]
    assert len(GROUPS) == 5
    listed = [
        line[2 : 2 + NAME_WIDTH].strip()
        for line in text.splitlines()
        if line.startswith("  ") and line[2] not in " -0123456789"
    ]
    commands = [name for name in build_parser().subcommands.choices if name not in ("config", "rate audit")]
    assert listed == commands  # each once, in order
    for status, meaning in exit_codes.TABLE.items():
        assert f"  {status:<{NAME_WIDTH}}{meaning.partition(';')[0]}" in text


def test_one_table_of_exit_statuses():
    assert list(exit_codes.TABLE) == [0, 1, 2, 3, 75, 130]
    page = (ROOT / "docs" / "configuration.md").read_text("utf-8")
    for status, meaning in exit_codes.TABLE.items():
        assert f"| {status} | {meaning} |\n" in page


def settings_of(*words):
    parsed = parse(build_parser(), list(words))
    return getattr(parsed, "path", None), parsed.settings


COMMANDS = [
    ("corpus", "check"),
    ("corpus", "preview", "--model", "m"),
    ("corpus", "tokens", "--model", "m"),
    ("corpus", "convert", "--to", "messages", "--out", "o"),
    ("corpus", "card", "--out", "o"),
    ("judge", "score", "--out", "o"),
    ("judge", "audit", "--out", "o"),
    ("judge", "prompt", "--judge", "m"),
    ("rate", "audit", "--out", "o"),
]


@pytest.mark.fault("H8")
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_settings_stand_anywhere_in_commands_on_a_corpus(command):
    both = ["seed=1", "split.seed=2"]
    assert settings_of(*command) == (None, [])
    for words in (
        (*command[:2], "there", *both, *command[2:]),
        (*command[:2], *both, "there", *command[2:]),
        (*command, "there", *both),
        (*command, *both, "there"),
        (*command[:2], both[0], *command[2:], both[1], "there"),
        (*command[:2], both[0], "there", *command[2:], both[1]),
        *([(*command[:2], "--set", both[0], *command[2:], "--set", both[1], "there")] * (command[0] == "corpus")),
    ):
        assert settings_of(*words) == ("there", both)
    assert settings_of(*command[:2], both[0], *command[2:], both[1]) == (None, both)


@pytest.mark.parametrize(
    "command",
    [
        "run",
        "train",
        "evaluate",
        "plan",
        "rate --out o",
        "synthesize --out o",
        "config",
    ],
)
def test_settings_stand_anywhere_in_commands_of_a_study(command):
    words = command.split()
    assert settings_of(*words, "seed=1", "--config", "quick", "threads=2")[1] == ["seed=1", "threads=2"]
    if command == "evaluate":  # a word that is no setting is the study
        parsed = parse(build_parser(), [*words, "seed=1", "foo", "threads=2"])
        assert (parsed.study, parsed.settings) == ("foo", ["seed=1", "threads=2"])
        return
    with pytest.raises(UserError, match="unrecognized arguments: foo"):
        settings_of(*words, "seed=1", "--config", "quick", "foo")


def test_a_corpus_may_be_called_like_a_setting(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "corpus.path=x").mkdir()
    assert settings_of("corpus", "check", "corpus.path=x", "seed=1") == ("corpus.path=x", ["seed=1"])


def test_a_setting_reaches_the_corpus_command(capsys):
    kept = "corpus.cleaning.drop_duplicate_sessions=false"
    for words in ((kept,), ("sample", kept), ("--set", kept)):
        assert main(["corpus", "check", *words, "--explain", "amara/1", "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["session"] == "amara/1"
    assert main(["corpus", "check", "corpus.cleaning.x=1"]) == 2
    assert "command line: unknown key 'corpus.cleaning.x'" in capsys.readouterr().err
    for command in ("stats", "check", "split"):
        assert main(["corpus", command, "corpus.path=nowhere"]) == 2
        assert "nowhere: no such file or folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option", "setting"),
    [
        ("serve", "--model m", "model.path=m"),
        ("serve", "--slots 3", "evaluation.engine.slots=3"),
        ("serve", "--chat-format plain", "tokens.format=plain"),
        ("chat", "--max-tokens 9", "evaluation.therapist.max_tokens=9"),
        ("model", "m", "model.path=m"),
        ("model", "--single-quantization", "model.double_quantization=false"),
        ("merge --adapter a --out o", "--model m", "model.path=m"),
        ("rate export --out o", "there", "corpus.path=there"),
        ("rate export --out o", "--rubric r", "evaluation.judging.rubric=r"),
        ("corpus stats", "--tokenizer t", "model.path=t"),
        ("corpus stats", "--therapist-label T --therapist-label U", "corpus.therapist_labels=T,U"),
        ("corpus split", "--stratify a,b --stratify c", "split.stratify=a,b,c"),
        ("corpus split", "--test 0.3", "split.test=0.3"),
        ("corpus check", "--skip-bad", "corpus.skip_bad=true"),
    ],
)
def test_an_option_is_another_name_of_a_setting(command, option, setting):
    def study(*words):
        return study_of(parse(build_parser(), [*command.split(), *words]))

    assert study(*option.split()) == study(setting) != study()
    key = setting.partition("=")[0]
    assert f"[{key}" in " ".join(parsed_help(command).split())


def parsed_help(command):
    return parse(build_parser(), command.split()).parser.format_help()


def test_an_option_is_stronger_than_a_setting_and_is_named_in_errors():
    words = ["serve", "evaluation.engine.slots=5", "--slots"]
    assert study_of(parse(build_parser(), [*words, "3"])).evaluation.engine.slots == 3
    with pytest.raises(UserError, match="^--slots: evaluation.engine.slots: must be at least 1. Got 0.$"):
        study_of(parse(build_parser(), [*words, "0"]))


def test_every_command_with_settings_shows_one_in_its_help_and_every_alias_is_a_setting():
    parsers = [parser for name, parser in _parsers(build_parser(), "") if parser.settings_of]
    assert len(parsers) > 15
    for parser in parsers:
        assert re.search(r"e\.g\. \w[\w.]*=", " ".join(parser.format_help().split()))
        assert {key for _, key in parser.aliases.values()} <= set(all_keys(StudyConfig))


def test_a_check_that_finds_something_ends_with_1(tmp_path, capsys):
    (tmp_path / "bad.yaml").write_text("sed: 1")
    assert main(["config", "check", str(tmp_path / "bad.yaml")]) == exit_codes.FOUND == 1
    assert main(["config", "check", "quick"]) == exit_codes.DONE == 0
    assert main(["config", "show", str(tmp_path / "bad.yaml")]) == exit_codes.BAD_INPUT == 2
    one = '{"schema":"cbtrain.session/1","course":"a","session":1,"turns":[{"role":"patient","text":"Low."}]}\n'
    (tmp_path / "sessions.jsonl").write_text(one + "{oops\n")
    assert main(["corpus", "check", str(tmp_path)]) == exit_codes.FOUND
    capsys.readouterr()
    main(["config", "show", "quick"])
    assert yaml.safe_load(capsys.readouterr().out)["tiny"]["hidden"] == 64


@pytest.mark.fault("G4")
def test_evaluate_never_trains(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", "model.path=models/mine", "evaluation.seeds=1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("cbtrain: runs/: no trained run here, and evaluate trains none. Train one first")
    assert "`cbtrain train model.path=models/mine evaluation.seeds=1`" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("G4")
@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("evaluate", 2),
        ("compare runs", 2),
        ("analyze runs", 2),
        ("rate import runs --key key.json", 2),
        ("config", 0),
        ("corpus stats sample", 0),
        ("corpus check sample", 0),
        ("corpus split sample", 0),
        ("providers list", 0),
        ("power", 2),
    ],
)
def test_a_command_that_only_looks_leaves_nothing_behind(command, status, tmp_path, monkeypatch, capsys):
    """Nothing is trained, written or paid for by a command that is not called after it."""
    monkeypatch.chdir(tmp_path)
    assert main(command.split()) == status, capsys.readouterr()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("F12")
def test_a_word_too_long_for_a_name_is_asked_for_no_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "She answers slowly. " * 40
    assert main(["config", "show", f"evaluation.patient_instructions={text}"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["evaluation"]["patient_instructions"] == text
    long, missing = "x" * 300, "~nobody.of.this.name/x"
    for words, problem in [
        (["config", "show", "--config", long], f"{long}: no such config file"),
        (["plan", f"model.path={long}"], f"{long}: no such model folder"),
        (["plan", f"model.path={missing}"], f"{missing}: no such model folder"),
        (["plan", "tokens.cache=~nobody.of.this.name/x", "model.path=./none"], "./none: no such model folder"),
        (["corpus", long], f"unknown command 'corpus {long}'"),
    ]:
        assert main(words) == 2
        err = capsys.readouterr().err
        assert f"cbtrain: {problem}" in err
    (tmp_path / "c.yaml").write_text(f"extends: {long}\n")
    assert main(["config", "show", "--config", "c.yaml"]) == 2
    assert f"c.yaml: extends {long!r}" in capsys.readouterr().err
