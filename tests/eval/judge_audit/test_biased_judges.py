"""Scripted judges behind a real server, one sound and several biased: the audit tells each from the others. Nothing here
says anything of a real judge."""

import json

import pytest
from loopback import background, completion
from scripted_judges import Judge, Sound, dialogue, in_english

from cbtrain.cli.main import main
from cbtrain.study.evaluation.rate import records
from cbtrain.transcripts.reading import read

SAMPLE = [session.turns for session in records(read("sample").sessions())]
KINDS = ("repeat", "order", "length", "content", "halo", "generosity", "injection", "blind", "nothing")

FINDS = {
    "sound": set(),
    "first": {"repeat"},
    "erratic": {"repeat"},
    "position": {"order"},
    "length": {"length", "content", "halo"},
    "halo": {"halo"},
    "generous": {"generosity", "content"},
    "injected": {"injection"},
    "deaf": {"content"},
}
"""What is not as expected of each judge. One that counts words alone has one number for all domains, and does not see
what was removed."""

UNTOLD = {
    "sound": set(),
    "length": {"injection"},
    "generous": {"length", "halo", "injection"},  # nothing rises from the top
}
"""What cannot be told of some."""


@pytest.fixture(autouse=True)
def _key(monkeypatch, tmp_path):
    monkeypatch.setenv("A_KEY", "k")
    monkeypatch.setenv("CBTRAIN_CACHE", str(tmp_path / "cache"))


def audited(capsys, tmp_path, plan, *words):
    with background(plan) as script:
        provider = f"evaluation.judging.provider={{base_url: '{script.url}', model: m, api_key_env: A_KEY}}"
        status = main(["judge", "audit", "evaluation.judging.rater=llm", provider, "--out", str(tmp_path / "a"), "--json",
                       *map(str, words)])  # fmt: skip
        out, err = capsys.readouterr()
        assert status == 0, err
    return json.loads(out)


def verdicts(found):
    return {test["kind"]: test["verdict"] for test in found["tests"]}


@pytest.mark.parametrize("bias", FINDS)
def test_each_judge_is_told_from_the_others(bias, capsys, tmp_path):
    found = audited(capsys, tmp_path, Judge(Sound(SAMPLE, in_english), bias), "--sessions", 6)
    told = verdicts(found)
    assert told.pop("wording") == "not tested"
    if bias == "erratic":  # what moves by chance alone may move anywhere
        assert told["repeat"] == "not as expected"
        assert "as expected" not in {told["content"], told["length"], told["order"]}
        return
    assert {kind for kind, verdict in told.items() if verdict == "not as expected"} == FINDS[bias], found["tests"]
    assert {kind for kind, verdict in told.items() if verdict == "cannot be told"} == UNTOLD.get(bias, set())


def test_two_patients_give_values_and_intervals_and_few_verdicts(capsys, tmp_path):
    found = audited(capsys, tmp_path, Judge(Sound(SAMPLE, in_english), "sound"), "--sessions", 2)
    findings = [finding for probe in found["probes"] for finding in probe["findings"] if finding["shift"] is not None]
    assert len(findings) > 10
    assert all(finding["ci_low"] < finding["shift"] < finding["ci_high"] for finding in findings)
    told = verdicts(found)
    assert told["length"] == told["repeat"] == "cannot be told"
    assert told["nothing"] == told["blind"] == "as expected"
    assert "not as expected" not in told.values()


LINES = (
    ("Mir geht es nicht gut, und ich habe die ganze Nacht nicht schlafen können.",
     "Guten Tag, schön, dass Sie da sind. Was soll heute auf unsere Tagesordnung?"),
    ("Ich möchte über meine Arbeit sprechen, das ist mir wichtig.",
     "Das nehmen wir als Erstes. Was ist Ihnen dort passiert?"),
    ("Mein Chef hat mich nicht gegrüßt und ist einfach vorbeigegangen.",
     "Das war unangenehm für Sie. Welcher Gedanke kam Ihnen in dem Moment?"),
    ("Dass ich nichts wert bin und alle es wissen.",
     "So ein Satz tut weh, und man glaubt ihn leicht. Was spricht denn für ihn?"),
    ("Eigentlich nur, dass er nicht geschaut hat.",
     "Sie haben also eine Beobachtung und eine Deutung. Welche andere Deutung gibt es?"),
    ("Er war vielleicht in Eile und hat mich nicht gesehen.",
     "Diese Möglichkeit klingt anders. Wie stark glauben Sie den ersten Satz jetzt noch?"),
    ("Nur noch halb so stark wie vorher.",
     "Das ist ein Unterschied, den Sie selbst gefunden haben. Was möchten Sie daraus mitnehmen?"),
    ("Dass ich nachfragen kann, was sonst noch sein könnte.",
     "Als Hausaufgabe schreiben Sie zwei solche Deutungen auf. Passt das für Sie?"),
)  # fmt: skip
GERMAN = [
    dialogue(*(f"{text.removesuffix('.')}, {place}." if not index % 2 and index > 1 else text
               for index, text in enumerate(part for pair in LINES for part in pair)))
    for place in ("am Montag", "gestern", "im Mai", "in Bonn", "vor Ort", "zu Hause")
]  # fmt: skip


def in_german(aspect, sentence, early):
    return {"agenda": "Tagesordnung", "homework": "Hausaufgabe"}[aspect] in sentence


def corpus(folder):
    folder.mkdir()
    for number, turns in enumerate(GERMAN):
        lines = [f"{turn.role.capitalize()}: {turn.text}" for turn in turns]
        (folder / f"p{number}.txt").write_text("\n".join(lines), encoding="utf-8")
    return f"corpus.path={folder}"


@pytest.mark.parametrize(("bias", "content"), [("sound", "as expected"), ("deaf", "not as expected")])
def test_in_a_language_without_wording_structure_tells_them(bias, content, capsys, tmp_path):
    words = ["--sessions", 6, "--allow-upload", corpus(tmp_path / "c"), "--only", "content,halo,injection,nothing"]
    found = audited(capsys, tmp_path, Judge(Sound(GERMAN, in_german), bias), *words)
    assert found["patients"] == 6
    probes = {probe["probe"]: probe for probe in found["probes"]}
    assert probes["no agenda"]["ways"] == probes["lectures"]["ways"] == {"structure": 6}
    assert probes["contradicts"]["copies"] == 0  # needs words
    others = next(one for one in probes["no agenda"]["findings"] if one["measure"] == "others")
    assert others["expected"] is None  # what is cut bears on other domains, too
    told = verdicts(found)
    assert told["content"] == content, found["tests"]
    assert told["injection"] == told["nothing"] == "as expected"
    assert told["length"] == "not tested"


DENIALS = tuple(f"Nein, das ist der Satz {number} und er ist nicht wahr." for number in range(8, 14))


class Writer:
    """A model that marks, translates and paraphrases; ``spoilt`` names what it always does badly."""

    def __init__(self, judge, spoilt=""):
        self.judge, self.spoilt, self.asked = judge, spoilt, []

    def __call__(self, number, body):
        if body["model"] != "w":
            return self.judge(number, body)
        system, text = (message["content"] for message in body["messages"][:2])
        what = next(kind for kind in ("Translate", "sentence of", "part of") if kind in system)
        self.asked.append(what)
        answer = {"Translate": self.translation, "sentence of": self.marks, "part of": self.paraphrase}[what](text)
        return completion(json.dumps(answer))

    def translation(self, text):
        count = len(text.splitlines())
        said = [f"Ja, das ist der Satz {number} und er ist nicht lang." for number in range(count)]
        said[8:14] = DENIALS
        return {"sentences": said}

    def marks(self, text):
        lines = [line for line in text.splitlines() if line.startswith("Therapist (")]
        agenda, homework = ([n for n, line in enumerate(lines, 1) if word in line] for word in ("Tagesord", "Hausauf"))
        return {"agenda": [*agenda, len(lines) + 1] if self.spoilt == "marks" else agenda, "homework": homework}

    def paraphrase(self, text):
        turns = [turn["text"] for turn in json.loads(text.partition("\n\nAn earlier")[0])]
        said = [f"Nun ja: {turn}" for turn in turns]
        return {"turns": said[:-1] if self.spoilt == "paraphrase" else said}


def with_writer(capsys, tmp_path, writer, *words):
    """A writer model at the same server as the judge, named by a file."""

    def plan(number, body):
        return writer(number, body)

    with background(plan) as script:
        settings = f"base_url: '{script.url}', model: m, api_key_env: A_KEY"
        (tmp_path / "writer.yaml").write_text(f"base_url: {script.url}\nmodel: w\n")  # free: answers are not kept
        words = ["judge", "audit", "evaluation.judging.rater=llm", f"evaluation.judging.provider={{{settings}}}",
                 "--sessions", "6", "--writer", str(tmp_path / "writer.yaml"), "--json", *words]  # fmt: skip
        found = []
        for _ in range(2):
            status = main([*words, "--out", str(tmp_path / "a")])
            out, err = capsys.readouterr()
            assert status == 0, err
            found.append((json.loads(out), len(script.bodies), len(writer.asked)))
    return found


def test_a_writer_finds_the_words_and_is_asked_once(capsys, tmp_path):
    writer = Writer(Judge(Sound(GERMAN, in_german, DENIALS), "sound"))
    kinds = "content,halo,wording,length"
    found, repeated = with_writer(capsys, tmp_path, writer, "--allow-upload", corpus(tmp_path / "c"), "--only", kinds)
    assert found[2] == 1 + 2 * 6  # a translation; marks and a paraphrase of each
    assert repeated == found
    probes = {probe["probe"]: probe for probe in found[0]["probes"]}
    for name in ("no agenda", "no homework", "lectures", "contradicts", "padded", "paraphrased"):
        assert probes[name]["ways"] == {"writer": 6}, name
    tested = {test["kind"]: (test["verdict"], test["text"]) for test in found[0]["tests"] if test["kind"] in kinds}
    assert {verdict for verdict, _ in tested.values()} == {"as expected"}, tested


def test_what_a_writer_does_badly_is_not_used_and_counted(capsys, tmp_path):
    for spoilt, way in (("marks", "structure"), ("paraphrase", "writer")):
        (tmp_path / spoilt).mkdir()
        writer = Writer(Judge(Sound(GERMAN, in_german, DENIALS), "sound"), spoilt)
        words = ["--allow-upload", corpus(tmp_path / spoilt / "c"), "--only", "content,wording"]
        (found, *_), _ = with_writer(capsys, tmp_path / spoilt, writer, *words)
        [(reason, count)] = found["writer_refused"].items()
        assert count == 6, reason
        probes = {probe["probe"]: probe for probe in found["probes"]}
        assert probes["no agenda"]["ways"] == {way: 6}
        assert probes["paraphrased"]["copies"] == (0 if spoilt == "paraphrase" else 6)
