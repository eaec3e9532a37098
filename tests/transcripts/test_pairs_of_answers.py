"""Pairs of answers in use: what reading, cleaning, checks, split and writers make of them."""

import io
import json
from dataclasses import replace

import pytest
from answer_pairs import CHOSEN, PROMPT, REJECTED, TEXT, P, T, corpus_of, messages, of, ours, pair, said
from rich.console import Console

from cbtrain.config.schema import StudyConfig
from cbtrain.errors import UserError
from cbtrain.study.corpus import load_corpus
from cbtrain.study.evaluation.scores import records
from cbtrain.transcripts.checking import check
from cbtrain.transcripts.cleaning import clean
from cbtrain.transcripts.config import CleaningPolicy, SplitConfig, TranscriptsConfig
from cbtrain.transcripts.explain import explain
from cbtrain.transcripts.pair_counts import PAIR_COUNTS
from cbtrain.transcripts.parts import read_parts
from cbtrain.transcripts.preference import rejected_session
from cbtrain.transcripts.pseudonyms.lists import load_lists
from cbtrain.transcripts.pseudonyms.pseudonymise import Settings, pseudonymise
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.split import split
from cbtrain.transcripts.stats import gather, stats
from cbtrain.transcripts.types import Corpus, Course, Session, Turn
from cbtrain.transcripts.writing import session_record, write_sessions


def test_pairs_among_sessions_are_refused_by_name(tmp_path):
    line = {"schema": "cbtrain.session/1", "course": "a", "session": 1, "turns": of(*PROMPT)}
    for first, second in (
        (line, ours()),
        ({"messages": messages(PROMPT + CHOSEN)}, TEXT),
    ):
        (tmp_path / "a.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(second)}")
        with pytest.raises(UserError, match="a.jsonl:2: a pair of answers among sessions"):
            read(tmp_path / "a.jsonl")
    for name, record in (("b/a", {"messages": messages(PROMPT + CHOSEN)}), ("b/b", TEXT)):
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
    (tmp_path / "profiles.jsonl").write_text("")
    corpus = read(tmp_path)
    assert [session.id for session in corpus.sessions()] == ["pairs-2/1"]
    assert corpus.notes == ("1 files of profiles: pairs need none, the first: profiles.jsonl",)


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
    assert {*gather([first]).distributions()["words"]} == {"all"}  # a pair has no phase
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
