"""Pairs of answers: the layouts that they come in, what is refused, and what cleaning, split and writers make of them."""

import io
import json
from dataclasses import replace

import pytest
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.study.corpus import load_corpus
from cbtrain.study.evaluation.scores import records
from cbtrain.transcripts.checking import check
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy, SplitConfig, TranscriptsConfig
from cbtrain.transcripts.explain import explain
from cbtrain.transcripts.mapping.config import CorpusMap
from cbtrain.transcripts.mapping.dataset_info import read_map
from cbtrain.transcripts.pair_counts import PAIR_COUNTS
from cbtrain.transcripts.parts import read_parts
from cbtrain.transcripts.preference import pair_session, rejected_session
from cbtrain.transcripts.pseudonyms.lists import load_lists
from cbtrain.transcripts.pseudonyms.pseudonymise import Settings, pseudonymise
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import split
from cbtrain.transcripts.stats import gather, stats
from cbtrain.transcripts.types import Corpus, Course, Session, Turn
from cbtrain.transcripts.writing import session_record, write_sessions

P, T = "patient", "therapist"
ROLES = {P: "user", T: "assistant"}
PROMPT = [(P, "I am low."), (T, "Since when?"), (P, "May.")]
CHOSEN, REJECTED = [(T, "What happened in May?")], [(T, "Cheer up.")]


def messages(turns, system=""):
    said = [{"role": ROLES[role], "content": text} for role, text in turns]
    return [{"role": "system", "content": system}, *said] if system else said


def hh(turns):
    """The text of a dialogue as Anthropic's HH-RLHF has it."""
    return "".join(f"\n\n{'Human' if role == P else 'Assistant'}: {text}" for role, text in turns)


def labelled(turns):
    return "\n".join(f"{role.capitalize()}: {text}" for role, text in turns)


def said(session):
    """Prompt, chosen and rejected answer."""
    begin = session.preference.begin
    parts = (session.turns[:begin], session.turns[begin:], session.preference.rejected)
    return tuple([(turn.role, turn.text) for turn in turns] for turns in parts)


WHOLE = (PROMPT, CHOSEN, REJECTED)
SHORT = (PROMPT[:1], CHOSEN, REJECTED)
SHAPES = {
    "text": ({"prompt": "I am low.", "chosen": CHOSEN[0][1], "rejected": REJECTED[0][1]}, SHORT, {}),
    "labelled prompt": ({"prompt": labelled(PROMPT), "chosen": CHOSEN[0][1], "rejected": REJECTED[0][1]}, WHOLE, {}),
    "prompt with an open answer": (
        {"prompt": f"{hh(PROMPT)}\n\nAssistant:", "chosen": f" {CHOSEN[0][1]}", "rejected": REJECTED[0][1]},
        WHOLE,
        {},
    ),
    "messages": (
        {"prompt": messages(PROMPT, "Be kind."), "chosen": messages(CHOSEN), "rejected": messages(REJECTED)},
        WHOLE,
        {"system": "Be kind."},
    ),
    "implicit messages": (
        {"chosen": messages(PROMPT + CHOSEN, "Be kind."), "rejected": messages(PROMPT + REJECTED, "Be kind.")},
        WHOLE,
        {"system": "Be kind."},
    ),
    "a text beside whole dialogues": (
        {"prompt": "I am low.", "chosen": messages(PROMPT + CHOSEN), "rejected": messages(PROMPT + REJECTED)},
        WHOLE,
        {},
    ),
    "implicit text": ({"chosen": hh(PROMPT + CHOSEN), "rejected": hh(PROMPT + REJECTED)}, WHOLE, {}),
    "several turns": (
        {"prompt": "I am low.", "chosen": messages([*CHOSEN, (P, "I moved."), (T, "Where?")]), "rejected": "Go."},
        (PROMPT[:1], [*CHOSEN, (P, "I moved."), (T, "Where?")], [(T, "Go.")]),
        {},
    ),
    "LLaMA-Factory, alpaca": (
        {
            "instruction": "I am",
            "input": "low.",
            "chosen": CHOSEN[0][1],
            "rejected": REJECTED[0][1],
            "severity": "mild",
        },
        ([(P, "I am\nlow.")], CHOSEN, REJECTED),
        {"severity": "mild"},
    ),
    "LLaMA-Factory, sharegpt": (
        {
            "conversations": [{"from": "human" if role == P else "gpt", "value": text} for role, text in PROMPT],
            "chosen": {"from": "gpt", "value": CHOSEN[0][1]},
            "rejected": {"from": "gpt", "value": REJECTED[0][1]},
        },
        WHOLE,
        {},
    ),
    "other roles": (
        {
            "prompt": [{"role": role, "text": text} for role, text in PROMPT],
            "chosen": [{"role": T, "text": CHOSEN[0][1]}],
            "rejected": [{"role": T, "text": REJECTED[0][1]}],
        },
        WHOLE,
        {},
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_pairs_of_other_programs_are_read_by_their_names(tmp_path, name):
    record, parts, facts = SHAPES[name]
    record = {**record, "patient_id": "amara", "weight": 2}
    (tmp_path / "a.jsonl").write_text("\n".join([json.dumps(record)] * 2))
    (tmp_path / "a.json").write_text(json.dumps([record, record]))
    for ending in ("jsonl", "json"):
        corpus = read(tmp_path / f"a.{ending}")
        for session in corpus.sessions():
            assert (said(session), session.facts) == (parts, facts)
            assert (session.patient, session.number, session.preference.weight) == ("amara", 1, 2)
            assert {turn.weight for turn in session.turns[: session.preference.begin] if turn.role == T} <= {0}
        assert len(corpus.courses) == 2  # each pair is a course of its own


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_pairs_in_tables(tmp_path, ending):
    rows = [{"Prompt": "I am low.", "Chosen": "Since when?", "Rejected": "Cheer up.", "patient_id": "a"}]
    if ending == "parquet":
        arrow = pytest.importorskip("pyarrow")
        import pyarrow.parquet

        rows = [{"chosen": messages(PROMPT + CHOSEN), "rejected": messages(PROMPT + REJECTED), "patient_id": "a"}]
        pyarrow.parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "a.parquet")
    else:
        cells = [json.dumps(messages(turns)).replace('"', '""') for turns in (PROMPT + CHOSEN, PROMPT + REJECTED)]
        lines = [",".join(rows[0]), ",".join(rows[0].values()), f'Hm,"{cells[0]}","{cells[1]}",a']
        (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    corpus = read(tmp_path / f"a.{ending}")
    assert corpus.format == "table"
    last = list(corpus.sessions())[-1]
    assert (said(last), last.patient) == (WHOLE, "a")
    if ending == "csv":
        assert said(next(corpus.sessions())) == (PROMPT[:1], [(T, "Since when?")], [(T, "Cheer up.")])
        assert "unlike the turns with which both answers begin" in corpus.notes[0]


def test_a_map_names_other_keys(tmp_path):
    record = {"q": "I am low.", "best": {"says": "Since when?"}, "worst": "Cheer up.", "strength": 0.5, "who": "amara"}
    (tmp_path / "a.jsonl").write_text(json.dumps(record))
    keys = {"prompt": "q", "chosen": "best.says", "rejected": "worst", "weight": "strength", "patient_id": "who"}
    (session,) = read(tmp_path / "a.jsonl", corpus_map=CorpusMap(each="preference", **keys)).sessions()
    assert said(session) == (PROMPT[:1], [(T, "Since when?")], [(T, "Cheer up.")])
    assert (session.patient, session.preference.weight, session.facts) == ("amara", 0.5, {})
    one_turn = {"question": "I am low.", "chosen": messages(CHOSEN), "rejected": messages(REJECTED)}
    (tmp_path / "c.jsonl").write_text(json.dumps(one_turn))
    corpus = read(tmp_path / "c.jsonl")
    assert corpus.notes[0].startswith("1 prompts, which are missing: both answers begin with the therapist")
    assert next(corpus.sessions()).facts == {"question": "I am low."}
    with pytest.raises(ValueError, match="each: preference needs chosen and rejected"):
        CorpusMap(each="preference", chosen="best")
    with pytest.raises(ValueError, match="preference has no session"):
        CorpusMap(each="preference", chosen="a", rejected="b", session="c")
    (tmp_path / "dataset_info.json").write_text(
        json.dumps({"talks": {"file_name": "b.jsonl", "ranking": True, "columns": {"prompt": "q", "chosen": "worst"}}})
    )
    (tmp_path / "b.jsonl").write_text(json.dumps({"q": "I am low.", "worst": "Since when?", "rejected": "No."}))
    found = read_map(tmp_path / "dataset_info.json", tmp_path / "b.jsonl")
    assert said(next(read(tmp_path / "b.jsonl", corpus_map=found).sessions()))[1] == [(T, "Since when?")]


@pytest.mark.slow
def test_prompts_of_messages_are_those_that_trl_extracts():
    """The oracle is TRL's own function, on the records whose answers are both lists of messages."""
    extract = pytest.importorskip("trl.data_utils").maybe_extract_prompt
    for name in ("messages", "implicit messages", "a text beside whole dialogues"):
        record, parts, facts = SHAPES[name]
        theirs = extract(record)
        assert theirs["prompt"] == messages(parts[0], facts.get("system", "")), name
        assert (theirs["chosen"], theirs["rejected"]) == (messages(parts[1]), messages(parts[2])), name


def ours(**more):
    turns = {"prompt": PROMPT, "chosen": CHOSEN, "rejected": REJECTED}
    record = {"schema": "cbtrain.pair/1"}
    record |= {key: [{"role": role, "text": text} for role, text in value] for key, value in turns.items()}
    return record | more


def of(*turns):
    return [{"role": role, "text": text} for role, text in turns]


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (ours(rejected=of(*CHOSEN)), "chosen and rejected are the same words"),
        (ours(chosen=[]), "chosen: no turn"),
        (ours(rejected=of((T, " \n"))), "rejected: turn 1 has no text"),
        (ours(chosen=of((P, "No."), (T, "Yes."))), "chosen: it begins with the patient"),
        (ours(chosen=of((T, "No."), (P, "Yes."))), "chosen: it ends with the patient"),
        (ours(prompt=of(*PROMPT[:2])), "turns 2 and 3 are both the therapist's: roles do not alternate"),
        (ours(prompt=of((P, "a"), (P, "b"))), "turns 1 and 2 are both the patient's: roles do not alternate"),
        (ours(weight=0), "weight: "),
        (ours(wieght=1), "wieght"),
        ({"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": []}, "a session among pairs of answers"),
        ({**ours(), "schema": "cbtrain.pair/2"}, "schema 'cbtrain.pair/2' is not 'cbtrain.pair/1'"),
        ({"chosen": "Yes.", "rejected": "No."}, "no prompt, and no turns in the text of 'chosen'"),
        ({"prompt": "Hi.", "chosen": "Yes.", "rejected": "Yes. "}, "chosen and rejected are the same words"),
        ({"prompt": "Hi.", "chosen": "Yes.", "rejected": None}, "rejected: no turn"),
        ({"prompt": "Hi.", "chosen": "Yes.", "rejected": "No.", "weight": "much"}, "weight 'much' is not a number above 0"),
        ({"chosen": messages(PROMPT + CHOSEN), "rejected": messages(PROMPT)}, "rejected: no turn"),
        ({"chosen": messages(PROMPT), "rejected": messages([*PROMPT[:2], (P, "June.")])}, "begins with the patient"),
        ({"chosen": messages(PROMPT + CHOSEN, "a"), "rejected": messages(PROMPT + REJECTED, "b")}, "different system prompts"),
        ({"prompt": "Hi.", "chosen": [{"role": "nurse", "content": "x"}], "rejected": "No."}, "chosen: speaker 'nurse'"),
        ({"prompt": "<|im_start|>user\nHi<|im_end|>", "chosen": "a", "rejected": "b"}, r"rendered \(ChatML"),
        ({"messages": messages(PROMPT)}, "no 'chosen' among messages: no pair of answers"),
    ],
)  # fmt: skip
def test_a_bad_pair_is_refused_in_one_line_and_can_be_left_out(tmp_path, record, message):
    good = ours() if "schema" in record else SHAPES["text" if "prompt" in record else "implicit messages"][0]
    (tmp_path / "a.jsonl").write_text(f"{json.dumps(good)}\n{json.dumps(record)}\n")
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path / "a.jsonl")
    assert "a.jsonl:2" in str(caught.value)
    assert "\n" not in str(caught.value)
    corpus = read(tmp_path / "a.jsonl", skip_bad=True)
    assert (len(list(corpus.sessions())), len(corpus.skipped)) == (1, 1)
    assert "a.jsonl:2" in corpus.skipped[0]


def test_pairs_among_sessions_are_refused_by_name(tmp_path):
    line = {"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": of(*PROMPT)}
    for first, second in (
        (line, ours()),
        ({"messages": messages(PROMPT + CHOSEN)}, SHAPES["text"][0]),
    ):
        (tmp_path / "a.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}")
        with pytest.raises(UserError, match="a.jsonl:2: a pair of answers among sessions"):
            read(tmp_path / "a.jsonl")
    for name, record in (("b/a", {"messages": messages(PROMPT + CHOSEN)}), ("b/b", SHAPES["text"][0])):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match="b.jsonl:?1?: a pair of answers among sessions"):
        read(tmp_path / "b")
    for name, record in (("sessions", line), ("pairs", ours())):
        (tmp_path / "c").mkdir(exist_ok=True)
        (tmp_path / "c" / f"{name}.jsonl").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"both sessions.jsonl and pairs.jsonl are in it"):
        read(tmp_path / "c")
    config = TranscriptsConfig(path=str(tmp_path / "c/pairs.jsonl"), test=str(tmp_path / "c/sessions.jsonl"))
    with pytest.raises(UserError, match="a session among pairs"):
        read_parts(config)
    with pytest.raises(UserError, match="a pair of answers among sessions"):
        session_record(pair("p", PROMPT, CHOSEN, REJECTED))
    with pytest.raises(UserError, match="p.jsonl:p: a pair of answers, not a session"):
        list(records([pair("p", PROMPT, CHOSEN, REJECTED)]))
    mixed = [pair("p", PROMPT, CHOSEN, REJECTED), Session("s", 1, (Turn(P, "Hi."),))]
    with pytest.raises(UserError, match="a session among pairs"):
        write_sessions(mixed, [], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def pair(name, prompt, chosen, rejected, patient="", weight=1.0, **more):
    session = Session(name, 1, tuple(Turn(*turn) for turn in prompt), f"p.jsonl:{name}", patient, **more)
    return pair_session(session, [Turn(*turn) for turn in chosen], [Turn(*turn) for turn in rejected], weight)


def corpus_of(*pairs):
    return Corpus("p", "pairs", tuple(Course(one.course, (one,)) for one in pairs))


def test_pairs_read_back_as_they_were_written(tmp_path):
    several = [*CHOSEN, (P, "I moved."), (T, "Where to?")]
    pairs = [
        pair("a", PROMPT, several, REJECTED, "amara", 2.5, facts={"system": "Be kind.", "source": "r"}),
        pair("b", [], [(T, "Welcome. What brings you here?")], [(T, "Hello.")]),
    ]
    corpus = corpus_of(*pairs)
    for layout, name in (("cbtrain", "pairs.jsonl"), ("messages", "preferences.jsonl")):
        write_sessions(corpus.sessions(), [], tmp_path / layout, layout)
        assert [path.name for path in (tmp_path / layout).iterdir()] == [name]
        for path in (tmp_path / layout, tmp_path / layout / name):
            back = list(read(path).sessions())
            assert [replace(session, structured=False) for session in back] == pairs
    with pytest.raises(UserError, match="pairs of answers cannot be written as sharegpt. Choose cbtrain or messages"):
        write_sessions(corpus.sessions(), [], tmp_path / "c", "sharegpt")
    (tmp_path / "pairs.jsonl").write_text(f"\n{json.dumps(ours())}")
    assert [session.id for session in read(tmp_path).sessions()] == ["pairs-2/1"]


def test_cleaning_keeps_the_border_and_counts_what_it_changes_on_both_sides():
    messy = [(P, "I am low."), (T, "Since when?"), (P, " \n<think>Hm</think>May.")]
    pairs = corpus_of(
        pair(
            "a", messy, [(T, "<think>Ask.</think>What happened?")], [(T, "<think>No.</think>Cheer up.\nPatient: Ok.")]
        ),
        pair("equal", PROMPT, [(T, "<think>One.</think>Go on.")], [(T, "<think>Two.</think>Go on.")]),
        pair("empty", PROMPT, [(T, "<think>One.</think>")], REJECTED),
        pair("again", PROMPT, CHOSEN, REJECTED),
        pair("other answer", PROMPT, CHOSEN, [(T, "So what?")]),
        pair("copy", PROMPT, CHOSEN, [(T, "cheer  up.")]),
        pair("opens", [], [(T, "Welcome.")], [(T, "Hello.")]),
        pair("other border", PROMPT[:1], [*PROMPT[1:], *CHOSEN], [*PROMPT[1:], *REJECTED]),
    )
    cleaned, report = clean(pairs, CleaningPolicy())
    assert [course.id for course in cleaned.courses] == ["a", "again", "other answer", "opens", "other border"]
    assert said(next(cleaned.sessions())) == (PROMPT, [(T, "What happened?")], [(T, "Cheer up.\nPatient: Ok.")])
    dropped = {change.session: (change.kind, change.note) for change in report.changes if "dropped" in change.kind}
    assert dropped["equal/1"] == ("pairs_dropped", "chosen and rejected are the same words")
    assert dropped["empty/1"] == ("pairs_dropped", "chosen: no turn")
    assert dropped["copy/1"] == ("duplicate_sessions_dropped", "the same words as again/1")
    assert report.as_dict()["pairs_dropped"]["times"] == 2
    thought = [(c.turn, c.note[:15]) for c in report.changes if c.kind == "thinking_removed" and c.session == "a/1"]
    assert [turn for turn, _ in thought] == [2, 3, 4]
    assert thought[-1][1] == "rejected answer"
    explained = explain(next(pairs.sessions()), CleaningPolicy(), None)
    assert [(line.side, line.number) for line in explained.lines if line.turn.text.endswith("Ok.")] == [
        ("before", 5),
        ("after", 5),
    ]


def test_what_is_wrong_with_a_rejected_answer_is_found_and_counted():
    mail = [(T, "Write to ann.lee@clinic.example.org, says Margaret Cooper.")]
    first = pair("a", PROMPT[:1], CHOSEN, mail, "amara")
    nested = pair("b", PROMPT, CHOSEN, REJECTED, "amara")
    shared = pair("c", PROMPT, [(T, "Tell me about May.")], REJECTED, "amara")
    corpus = corpus_of(first, nested, shared, replace(shared, course="d"))
    found = {(finding.kind, finding.session) for finding in check(corpus.sessions(), {})}
    assert found == {
        ("personal_data", "a/1"),
        ("nested_prompt", "b/1"),
        ("shared_prompt", "c/1"),
        ("shared_prompt", "d/1"),
        ("exact_duplicate", "d/1"),
    }
    continued = pair("e", [*PROMPT[:1], *CHOSEN, (P, "I moved.")], CHOSEN, REJECTED)
    details = {f.kind: f.detail for f in check([first, continued], {})}
    assert details == {
        "personal_data": "rejected answer: e-mail: ann.••••••••••••",
        "nested_prompt": "continues that of a/1",
    }
    counts = gather([first, continued, shared, replace(shared, course="d")]).counts()
    assert [counts[name] for name in PAIR_COUNTS] == [4, 3, 2, 3, 16, 12]
    assert "pairs" not in stats(Corpus("s", "x", (Course("s", (Session("s", 1, (Turn(P, "Hi."),)),)),)))
    changed, pseudonyms = pseudonymise(corpus, load_lists(), Settings())
    text = next(changed.sessions()).preference.rejected[0].text
    assert "ann.lee" not in text
    assert "Cooper" not in text
    assert pseudonyms.entries


def test_pairs_of_one_patient_or_one_dialogue_stay_on_one_side():
    def talk(number):
        return [(P, f"My story number {number} is long."), (T, f"Tell me about {number}."), (P, f"It began {number}.")]

    by_patient = [pair(f"p{n}{k}", talk(n)[: 1 + 2 * k], CHOSEN, REJECTED, f"ann{n}") for n in range(6) for k in (0, 1)]
    unnamed = [pair(f"u{n}{k}", talk(n)[: 1 + 2 * k], CHOSEN, REJECTED) for n in range(6) for k in (0, 1)]
    openers = [pair(f"o{n}", [], [(T, f"Welcome {n} to our talk.")], REJECTED) for n in range(2)]
    for pairs in (by_patient, [*unnamed, *openers]):
        parts = split(corpus_of(*pairs), SplitConfig(test=0.3, validation=0.2, near_duplicate=1))
        side = {name: side for side, names in parts.ids().items() for name in names}
        assert len(side) == len(pairs)  # nested prompts are no duplicates
        assert len(set(side.values())) == 3
        prefix = pairs[0].course[0]
        assert all(side[f"{prefix}{n}0"] == side[f"{prefix}{n}1"] for n in range(6))
    told = [line for line in parts.together if "pairs without a patient whose prompts begin alike" in line]
    assert len(told) == 6
    assert told[0].startswith("u00, u01: ")
    sides = {"u01": "test", "u11": "test"}
    parts = split(replace(corpus_of(*unnamed[:4], *unnamed[6:]), sides=sides), SplitConfig(validation=0))
    assert "the prompt of u01 begins as that of u00" in parts.leaks


def test_a_study_knows_its_pairs_by_both_answers_and_their_weight(tmp_path):
    seen = {}
    for name, last in (("a", ours()), ("b", ours(rejected=of((T, "So what?")))), ("c", ours(weight=2))):
        records_of = [ours(id=f"{n}", patient=f"{n}", prompt=of((P, f"Day {n}."))) for n in range(3)]
        lines = [json.dumps(record) for record in [*records_of, {**last, "id": "last", "patient": "last"}]]
        (tmp_path / name).mkdir()
        (tmp_path / name / "pairs.jsonl").write_text("\n".join(lines))
        console = Console(file=io.StringIO(), width=200)
        config = StudyConfig.model_validate({"corpus": {"path": str(tmp_path / name)}})
        summary = load_corpus(config, console).summary
        assert "4 pairs of answers to 4 prompts, 4 patients" in console.file.getvalue()
        assert summary["pairs"]["pairs"] == 4
        seen[summary["fingerprint"]] = name
    assert len(seen) == 3


def test_the_sample_pairs_are_regular():
    corpus = read("sample-pairs")
    findings = [finding for finding in check(corpus.sessions(), {}) if finding.severity != "note"]
    assert findings == []
    assert clean(corpus, CleaningPolicy())[1].changes == []
    (safety,) = [session for session in corpus.sessions() if session.course == "jonas-safety"]
    assert "killing yourself" in safety.turns[safety.preference.begin].text
    assert "crisis line" in safety.turns[-1].text
    assert "crisis line" not in " ".join(turn.text for turn in rejected_session(safety).turns)
    assert {len(said(session)[1]) for session in corpus.sessions()} == {1, 3}
