"""Rubric, cue rater, scores and statistics."""

import csv

import pytest

from cbtrain.errors import UserError
from cbtrain.eval.rating.cue_rater import rate
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import Score, read_scores_csv, write_scores_csv
from cbtrain.eval.simulation.runner import SimulatedSession
from cbtrain.transcripts.reading import read
from cbtrain.transcripts.types import Turn

RUBRIC = load_rubric()
DIALOGUE = [
    "I have been low all week and I skipped the choir rehearsal again.",
    "Thank you for telling me about the choir. How did the homework with the thought record go since last session?",
    "I filled in one line about the rehearsal and then I stopped.",
    "One line about the rehearsal is a start. What would you like to put on the agenda today?",
    "The rehearsal, I think. I hear them talking about my voice in my head.",
    "Let's start with the rehearsal. What went through your mind when you thought about your voice?",
    "That everybody hears how bad it is and wants me gone.",
    "How strongly do you believe that everybody wants you gone, from 0 to 100?",
    "Perhaps eighty when I stand at the door.",
    "What evidence do you have from standing at the door that points the other way?",
    "Ruth kept a chair free for me twice.",
    "What does the free chair tell you about the belief that everybody wants you gone?",
    "That at least Ruth does not. It goes down to fifty.",
    "Fifty is a change. Shall we plan a small experiment to test the belief on the next rehearsal?",
    "I could go for the first half hour and see who talks to me.",
    "When would you go, and what might get in the way of that half hour?",
    "Thursday at seven. Rain might, so I will ask Ruth for a lift.",
    "So the homework is Thursday's half hour with Ruth's lift. How was today's session for you, and did I miss anything?",
]


def turns(texts=DIALOGUE):
    return [Turn("patient" if i % 2 == 0 else "therapist", text) for i, text in enumerate(texts)]


def rated(dialogue):
    return rate(SimulatedSession("s", "a", "p", 0, dialogue), RUBRIC)


def change(replace):
    """Domains that move, and by how much, when therapist turns are replaced by index."""
    before, texts = rated(turns()), list(DIALOGUE)
    for index, text in replace.items():
        texts[index] = text
    after = rated(turns(texts))
    return {d: after.domains[d] - before.domains[d] for d in before.domains if after.domains[d] != before.domains[d]}


def test_rubric_has_eleven_domains_with_an_anchor_at_every_point():
    assert len(RUBRIC.domains) == 11
    assert (RUBRIC.minimum, RUBRIC.maximum) == (0, 6)
    texts = [text for domain in RUBRIC.domains for text in domain.anchors.values()]
    assert len(texts) == len(set(texts)) == 77
    assert "not the Cognitive Therapy Scale" in RUBRIC.note


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  6: ", "  7: ", r"domains.0 \(agenda\): anchors at 7, no point of the scale \(0 to 6\)"),
        ("id: feedback", "id: agenda", "two domains have the id 'agenda'"),
        ("minimum: 0", "minimal: 0", "minimum: missing|minimal: unknown key"),
        (r"pattern: '\b(hard|", "pattern: '(hard|", "not a regular expression"),
    ],
)
def test_bad_rubrics_are_refused_in_one_line(tmp_path, old, new, message):
    import importlib.resources

    text = (importlib.resources.files("cbtrain.configs") / "rubrics/cbt_fidelity.yaml").read_text()
    assert old in text
    (tmp_path / "r.yaml").write_text(
        text.replace(old, new, 1).replace(r"brave)\b'", "brave'") if "hard" in old else text.replace(old, new, 1)
    )
    with pytest.raises(UserError, match=message):
        load_rubric(str(tmp_path / "r.yaml"))
    with pytest.raises(UserError, match="'cbt_fidelity'"):
        load_rubric("cbt_fidelty")


def test_good_sessions_score_well_and_equal_ones_equally():
    score = rated(turns())
    assert score.status == "ok"
    assert score.total > 40
    assert score == rated(turns())
    assert all(DIALOGUE[i] and i % 2 for i in score.evidence["homework"])
    sample = [rated(session.turns).total for session in read("sample").sessions()]
    assert min(sample) > 20


def test_probes_move_the_domain_they_aim_at():
    no_agenda = change(
        {
            3: "One line about the rehearsal is a start. Tell me more about it?",
            5: "I see. What went through your mind when you thought about your voice at the rehearsal?",
        }
    )
    assert no_agenda["agenda"] <= -2
    no_homework = change(
        {
            1: "Thank you for telling me about the choir. How did the rehearsal make you feel, together with the thought record?",
            13: "Fifty is a change. Shall we plan a small experiment to test the belief?",
            15: "What would the half hour be like?",
            17: "Ruth's lift sounds good. How was today's session for you, and did I miss anything?",
        }
    )
    assert no_homework["homework"] == min(no_homework.values()) <= -3
    lecture = (
        "Your voice, your mind, the door and the chair are all the same story, and I will explain it to you at length. "
        * 4
    )
    lectured = change(dict.fromkeys((5, 7, 9, 11), lecture))
    assert lectured["guided_discovery"] <= -2
    contradicted = change(
        {
            7: "You're wrong about your voice, everybody hears it well.",
            11: "No, you are loved, stop thinking about the chair.",
        }
    )
    assert contradicted["understanding"] <= -1


def test_what_cannot_be_rated_is_unratable_and_never_a_minimum():
    for texts in ([], DIALOGUE[:2], ["x9 ## 7", "Ġ@ 12 %%"] * 6, ["Hello there."] * 3):
        score = rated(turns(texts))
        assert (score.status, score.total) == ("unratable", None)
        assert set(score.domains.values()) == {None}


def made(arm, patient, total, seed=0, status="ok"):
    values = {"agenda": total, "homework": 1.0} if total is not None else {"agenda": None, "homework": 1.0}
    return Score(
        session_id=f"{patient}.{arm}.{seed}",
        arm=arm,
        patient=patient,
        seed=seed,
        judge="cue",
        repeat=0,
        status=status,
        domains=values,
    )


def test_scores_survive_the_csv(tmp_path):
    scores = [made("tuned", "p", 4.0), made("base", "p", None, status="unratable")]
    write_scores_csv(scores, tmp_path / "scores.csv")
    assert read_scores_csv(tmp_path / "scores.csv") == scores
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert lines[0] == "session_id,arm,patient,seed,judge,repeat,status,agenda,homework,total"
    assert lines[2].endswith("unratable,,1,")
    (tmp_path / "scores.csv").write_text("\n".join([*lines, lines[1].replace(",4,", ",four,")]))
    with pytest.raises(UserError, match=r"scores\.csv:4: "):
        read_scores_csv(tmp_path / "scores.csv")


@pytest.mark.fault("F11")
def test_no_cell_is_a_formula_and_every_name_survives(tmp_path):
    names = ['=HYPERLINK("x")', "+1", "-1", "@me", "'=1", "''-x", "'quoted'", "''", "O'Brien", "-", "p"]
    scores = [made(name, "p", 4.0) for name in names]
    write_scores_csv(scores, tmp_path / "scores.csv")
    assert read_scores_csv(tmp_path / "scores.csv") == scores
    cells = [cell for row in csv.reader((tmp_path / "scores.csv").open(newline="")) for cell in row]
    assert [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))] == []


HEAD = "session_id,arm,patient,seed,judge,repeat,status,agenda,homework,total"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (f"{HEAD}\ns,a,p,0,j,0,ok,1,2,9", r":2: the total is 9, but the domains sum to 3"),
        (f"{HEAD}\ns,a,p,0,j,0,refused,1,2,3", r":2: status is 'refused', but every domain has a score"),
        (f"{HEAD}\ns,a,p,0,j,0,ok,1,2", r":2: 9 cells, but 10 columns"),
        (f"{HEAD}\ns,,p,0,j,0,ok,1,2,3", r":2: arm is empty"),
        (f"{HEAD}\ns,a,p,{10**19},j,0,ok,1,2,3", r":2: seed: 100000000000000000… is too large"),
        (f"{HEAD}\ns,a,p,0,j,0,ok,inf,2,3", r":2: agenda: 'inf' is not a score"),
        (HEAD.replace("homework", "agenda"), r"column 'agenda' comes twice"),
        ("my thesis notes", r"column 'session_id' is missing"),
        (HEAD.replace(",", ";").replace("seed", "sed"), r"column 'seed' is missing"),
    ],
)
def test_a_table_that_contradicts_itself_is_one_line(text, problem, tmp_path):
    (tmp_path / "s.csv").write_text(text)
    with pytest.raises(UserError, match=problem):
        read_scores_csv(tmp_path / "s.csv")


def test_a_spreadsheets_table_is_read(tmp_path):
    (tmp_path / "s.csv").write_text(f"\ufeff{HEAD}\r\ns, a ,p,0,j,0,ok,1,2,3.0\r\n", encoding="utf-8")
    (score,) = read_scores_csv(tmp_path / "s.csv")
    assert (score.arm, score.total) == ("a", 3.0)
