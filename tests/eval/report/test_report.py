"""The report: gaps, escaping, the claim, the files, the terminal. The browser and odd input have their own files."""

import io
import json
import re

import pytest
from analyzed import analyzed_report, random_ratings
from fake_report import HOSTILE, RATER, fake_report, report_of
from rich.console import Console

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.report.browser_data import browser_data
from cbtrain.eval.report.claim import claim_of
from cbtrain.eval.report.figures.curve import curve_figure
from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.formatting import duration, fixed, p_value, share
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.notable import spread_sentence
from cbtrain.eval.report.render import FOLDER, render_html
from cbtrain.eval.report.terminal import perplexity_table, score_table, summary
from cbtrain.eval.report.write import write_report
from cbtrain.files import script_json


def shown(renderable, width=100):
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(renderable)
    return console.file.getvalue()


def test_the_page_holds_the_result_and_the_rater_beside_every_score():
    page = render_html(report_of(fake_report()))
    assert (
        "CBT-tuned model scored 11.25 points higher than Base model (95 % interval 3.90 to 18.60; scale 0 to 66)."
        in page
    )
    assert "Not for clinical use." in page
    assert "general text" in page
    assert "+31.2 %" in page
    assert "therapist: Warning: the perplexity rose by 31% (12.1 to 15.9): more than 10%." in page
    assert "not measured: there is no validation part" in page
    assert "Perplexity of the therapist&#39;s words fell by 27.3 % on average over 3 held-out patients." in page
    sections = re.findall(r'<section id="(\w+)".*?</section>', page, re.DOTALL)
    names = [
        "result",
        "scores",
        "course",
        "questionnaire",
        "agreement",
        "perplexity",
        "transcripts",
        "protocol",
        "making",
    ]
    assert sections == names
    for name in ("result", "scores", "course", "transcripts"):
        section = page[page.index(f'<section id="{name}"') :]
        assert RATER in section[: section.index("</section>")]
    shown = [figure for figure in figures_of(report_of(fake_report())).values() if figure.on_page]
    assert page.count("<svg") == page.count('role="img" aria-label="') == len(shown) >= 5
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))


def test_the_page_needs_nothing_from_outside():
    page = render_html(report_of(fake_report()))
    assert not re.findall(r"""(?:src|href)=["'](?!#|data:,)""", page.replace("xlink:href", "href"))
    assert "@import" not in page
    assert "url(" not in page.replace("url(#", "")
    assert "DejaVu" not in page


def test_a_transcript_cannot_break_out_of_the_page():
    report = fake_report()
    session = report["sessions"][0]
    session["turns"][1]["text"] = HOSTILE
    for row, key in (
        (report, "title"),
        (report["rater"], "label"),
        (report["training"][0], "name"),
        (session, "patient_name"),
        (session, "ending"),
        (session, "error"),
        (report["arms"][0], "label"),
        (report["scale"]["domains"][0], "name"),
        (report["analysis"]["contrasts"][0], "method"),
        (report["config"], "planted"),
    ):
        row[key] = HOSTILE
    report["corpus"]["cleaning"][HOSTILE] = {"times": 3, "sessions": 2, "words_left_out": 0}
    page = render_html(report_of(report))
    assert page.count("<script") == 2
    assert page.count("</script>") == 2
    assert "<img" not in page
    assert "<!--" not in page
    data = re.search(r'id="browser-data">(.*?)</script>', page, re.DOTALL)[1]
    assert not set("<>&\u2028\u2029") & set(data)
    assert json.loads(json.loads(data)["sessions"][0]["body"])["turns"][1]["text"] == HOSTILE
    # A name that is no text for a terminal either.
    report["arms"][0]["label"] = "[red]\x1b[31mbase"
    assert "[red] [31mbase" in shown(summary(report_of(report)), 200)


def test_script_json_is_json():
    value = {"a": [HOSTILE, 1.5, None, "眠れない"]}
    assert json.loads(script_json(value)) == value


def test_browser_data_keeps_only_evidence_that_exists():
    report = fake_report()
    report["sessions"][0]["ratings"][0]["evidence"] = {"agenda": [5, 1, 1, -1, 99, "2", True, None]}
    data = browser_data(report_of(report))
    bodies = [json.loads(session["body"]) for session in data["sessions"]]
    assert bodies[0]["ratings"][0]["evidence"][0] == [1, 5]
    assert data["sessions"][3]["total"] is None
    assert set(bodies[3]["scores"]) == {None}


def test_what_patients_answered_is_on_the_page_and_what_is_hostile_in_it_stays_text():
    report = fake_report()
    report["questionnaire"] = {
        "name": HOSTILE,
        "subscales": [{"id": "hope", "text": HOSTILE, "min": 0, "max": 10}],
        "groups": [{"name": "base", "asked": 4, "n": 3, "means": {"hope": 4.5}, "sds": {"hope": 1.25}}],
        "contrasts": [{"id": "tuned − base", "subscale": "hope", "estimate": 0.5, "notes": [HOSTILE]}],
    }
    report["sessions"][0]["answers"] = {"status": "ok", "means": {"hope": 4.5}, "own_words": HOSTILE}
    found = report_of(report)
    for written in (render_html(found), render_markdown(found, {})):
        assert "4.50 (1.25)" in written
        assert "+0.50" in written
        assert "<script>window.hacked" not in written
    first, second = browser_data(found)["sessions"][:2]
    assert json.loads(first["body"])["answers"] == {"problem": "", "means": [["hope", 4.5]], "words": HOSTILE}
    assert "answers" not in json.loads(second["body"])


def test_browser_data_tells_ratings_and_namesakes_apart():
    report = fake_report()
    first = report["sessions"][0]
    rating = first["ratings"][0]
    first["ratings"] += [rating | {"judge": "human"}, rating | {"repeat": 1}, rating | {"judge": "human"}]
    report["sessions"][1]["patient_name"] = first["patient_name"]
    data = browser_data(report_of(report))
    assert data["raters"] == ["cue, repeat 0", "cue, repeat 1", "human"]
    assert [rating["rater"] for rating in json.loads(data["sessions"][0]["body"])["ratings"]] == [0, 2, 1, 2]
    assert [s["patient"] for s in data["sessions"][:3]] == ["Mara Lindqvist (p1)", "Mara Lindqvist (p2)", "June Okafor"]


def test_files_round_trip(tmp_path):
    report = fake_report()
    page = write_report(report_of(report), tmp_path / "run")
    assert page == tmp_path / "run" / "report.html"
    assert json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8")) == report


def test_what_json_cannot_hold_becomes_a_gap_or_text(tmp_path):
    report = fake_report()
    report["arms"][0]["total_mean"] = float("nan")
    report["perplexity"]["mean_change_percent"] = float("inf")
    report["sessions"][0]["turns"][0]["text"] = "half \ud83d of a character"
    report["environment"]["folder"] = tmp_path
    page = write_report(report_of(report), tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert stored["arms"][0]["total_mean"] is None
    assert stored["sessions"][0]["turns"][0]["text"] == "half ? of a character"
    assert stored["environment"]["folder"] == str(tmp_path)
    assert "Perplexity of the" not in page.read_text(encoding="utf-8")


CLAIM = "CBT-tuned model scored 11.25 points higher than Base model (95 % interval 3.90 to 18.60; scale 0 to 66)."
NOTHING = "No difference is shown between CBT-tuned model and Base model: +11.25 points"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({}, CLAIM),
        (
            {"estimate": -1.0, "ci_low": -1.5, "ci_high": -0.5},
            "CBT-tuned model scored 1.00 point lower than Base model",
        ),
        ({"ci_low": -2.0}, f"{NOTHING} (95 % interval −2.00 to 18.60; scale 0 to 66)."),
        ({"ci_low": 0.0}, "No difference is shown"),
        ({"se": 0.0, "ci_low": None, "ci_high": None, "p_sign_flip": 0.06}, "No difference can be shown"),
        (
            {"se": 0.0, "ci_low": None, "ci_high": None, "p_sign_flip": 0.03},
            "CBT-tuned model scored 11.25 points higher than Base model with every patient (scale 0 to 66).",
        ),
        (
            {"ci_low": None},
            "No difference can be shown between CBT-tuned model and Base model: +11.25 points (scale 0 to 66), and no "
            "interval can be given.",
        ),
        ({"id": "other", "ci_low": None}, "other: +11.25 points (scale 0 to 66); no interval can be given."),
        ({"estimate": None}, "No difference between the therapists could be computed."),
        ({"id": "other"}, "other: +11.25 points (95 % interval 3.90 to 18.60; scale 0 to 66)."),
        (
            {"id": "other", "ci_low": -1.0},
            "other: +11.25 points (95 % interval −1.00 to 18.60; scale 0 to 66); no diff",
        ),
    ],
)
def test_the_claim_is_no_stronger_than_its_interval(changes, sentence):
    report = fake_report()
    report["analysis"]["contrasts"][0] |= changes
    report["rater"] = {"judge": "m", "kind": "llm", "label": "LLM judge m"}
    assert claim_of(report_of(report)).sentence.startswith(sentence)
    # Counted words are no rating, however clear the difference.
    counted = claim_of(report_of(report | {"rater": {"kind": "cue"}})).sentence
    assert counted.startswith(sentence if "could be computed" in sentence else f"Smoke test: {sentence}")


@pytest.mark.parametrize(("sessions", "words"), [(1, "sessions together with what an arm does for a patient "),
                                                 (3, "what an arm does for a patient ")])  # fmt: skip
def test_what_sessions_vary_by_is_called_what_it_is(sessions, words):
    """With one session of each patient and arm, their spread holds what arms do for patients."""
    pair = [Arm("base", "", "base"), Arm("tuned", "", "tuned")]
    told = spread_sentence(report_of(analyzed_report(random_ratings(pair, 12, sessions))).analysis)
    assert words in told
    assert told.count("SD") == 1
    assert told.count(",") == (2 if sessions == 1 else 3)


def test_of_several_differences_those_that_hold_after_holm_are_claimed():
    report = fake_report() | {"rater": {"kind": "llm", "label": "LLM judge m"}}
    (contrast,) = report["analysis"]["contrasts"]

    def claimed(*changes):
        report["analysis"]["contrasts"] = [{**contrast, "id": name, **more} for name, more in changes]
        return claim_of(report_of(report))

    both = claimed(("A: t − i", {}), ("B", {"p_adjusted": 0.06}), ("C", {"ci_low": -1.0}), ("D", {"estimate": None}))
    assert both.sentence == (
        "Tuned models scored higher than untuned ones: A by 11.25 (3.90 to 18.60) points (95 % intervals). "
        "No difference is shown for B +11.25 (3.90 to 18.60); C +11.25 (−1.00 to 18.60)."
    )
    bare = {"ci_low": None, "ci_high": None}
    assert claimed(("A", {}), ("B", bare), ("C", {**bare, "estimate": -2.0})).sentence == (
        "Tuned models scored higher than untuned ones: A by 11.25 (3.90 to 18.60) points (95 % intervals). "
        "No interval can be given for B +11.25, C −2.00."
    )
    worse = {"estimate": -5.0, "ci_low": -7.0, "ci_high": -3.0}
    assert claimed(("A", worse), ("B", {"ci_low": -1.0})).sentence.startswith(
        "Tuned models scored lower than untuned ones: A by 5.00 (3.00 to 7.00) points (95 % intervals). No difference"
    )
    pairs = claimed(("x − y", {"family": "arms"}), ("x − z", {"family": "arms", "ci_low": -1.0}))
    assert pairs.sentence == (
        "x − y +11.25 (3.90 to 18.60) points (95 % intervals). No difference is shown for x − z +11.25 (−1.00 to 18.60)."
    )
    assert both.basis.startswith("3 simulated patients; mean over patients")
    assert "p adjusted by Holm" in both.basis
    assert claimed(("A", {"p_adjusted": 0.2}), ("B", {"p_adjusted": None})).sentence.startswith(
        "No difference is shown"
    )
    # Another family is not the headline.
    assert "B" not in claimed(("A", {}), ("B", {"family": "tuned"})).sentence
    notes = {"estimate": None, "notes": ["no pair of sessions to compare"]}
    assert claimed(("A", notes)) == type(both)(
        "No difference between the therapists could be computed.", "no pair of sessions to compare"
    )


def test_numbers_as_words():
    assert [fixed(x) for x in (None, "3", True, float("nan"), 10**400)] == ["n/a"] * 5
    assert [fixed(-0.001), fixed(0.001, signed=True), fixed(-1234.56), fixed(2, 2, True)] == [
        "0.00",
        "0.00",
        "−1,234.56",
        "+2.00",
    ]
    assert [duration(x) for x in (None, 4.25, 125, 7384)] == ["n/a", "4.2 s", "2 min 5 s", "2 h 3 min"]
    assert [share(0.0042), share(0.631), p_value(0.0002), p_value(0.04)] == ["0.42 %", "63.1 %", "< 0.001", "0.0400"]


def test_tables_in_the_terminal():
    report = fake_report()
    scores, perplexity = shown(score_table(report_of(report))), shown(perplexity_table(report_of(report).perplexity))
    assert f"Rated by: {RATER}" in scores
    assert re.search(r"Guided discovery +1\.00 +2\.50 +\+1\.50", scores)
    assert re.search(r"Total, mean +23\.67 +34\.50 +\+10\.83", scores)
    assert re.search(r"Failed +1 +0", scores)
    assert re.search(r"set_47 +21,480 +19\.90 +14\.80 +−25\.6 %", perplexity)
    whole = shown(summary(report_of(report)), 60)
    assert RATER in " ".join(whole.replace("│", " ").split())
    assert "Not a medical device" in " ".join(whole.split())


def test_a_learning_curve_speaks_or_is_not_drawn():
    first, bare = report_of({"training": [fake_report()["training"][0], {"curve": [{"tokens": 5}]}]}).training
    drawn = curve_figure(first, 1)
    assert drawn.alt == "Learning curve of the base model: validation loss 9.160 before training, best 3.290."
    assert curve_figure(bare) is None


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_are_legible_in_light_and_dark():
    style = (FOLDER / "page.css").read_text(encoding="utf-8")
    for block in re.findall(r":root \{(.*?)\}", style, re.DOTALL):
        colours = dict(re.findall(r"--([\w-]+): (#\w{6})", block))
        texts = [(text, ground) for text in ("ink", "muted", "error") for ground in ("bg", "card")]
        texts += [("accent", "bg"), ("ink", "mark"), ("ink", "accent-soft"), ("muted", "accent-soft")]
        pairs = [(*pair, 4.5) for pair in texts] + [(name, "card", 3) for name in colours if name.startswith("arm-")]
        pairs += [("control", "card", 3), ("mark-line", "card", 3)]
        assert sum(name.startswith("arm-") for name in colours) == 32
        for front, back, least in pairs:
            dark, light = sorted((luminance(colours[front]), luminance(colours[back])))
            assert (light + 0.05) / (dark + 0.05) >= least, (front, back)
