"""The training in a real browser: rate, compare, go on; half points by keys; a form that settles differences."""

import csv
import json

import pytest
from rated_run import key_of, run_folder, sessions_of
from short_rubric import IDS, short_rubric

from cbtrain.cli.main import main
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import read_scores_csv

pytestmark = pytest.mark.slow


def call(*words):
    assert main([str(word) for word in words]) == 0


@pytest.fixture
def visit(browser):
    contexts, faults = [], []

    def open_page(path, **options):
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def scores_in(run):
    return read_scores_csv(run / "human_scores.csv", load_rubric(str(run.parent / "short.yaml")).keying)


def download(page, path):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download my ratings").click()
    waiting.value.save_as(path)
    return path


def rate(page, *keys):
    """Rate the domains of the session on show by keys, from the first one on."""
    head = page.locator(".domain .name").first
    if head.get_attribute("aria-expanded") == "false":
        head.click()
    head.focus()
    for key in keys:
        page.keyboard.type(key)
        page.locator(".domain.open input:checked").focus()
        page.keyboard.press("Enter")


def test_a_rater_trains_compares_and_goes_on(visit, tmp_path, capsys):
    sessions = sessions_of(seeds=1, patients=["zz-quist", "zz-rowe"])
    run = run_folder(tmp_path / "run", sessions, rubric=str(short_rubric(tmp_path)))
    table = tmp_path / "agreed.csv"
    row = {"session_id": sessions[0].id, "goals": "4", "warmth": "3.5", "lecturing": "2", "tasks": "n/a"}
    row |= {"goals reason": "<b>She asks</b> what to work on.", "reason": "A good start."}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    call("rate", "export", run, "--out", tmp_path / "forms", "--training", table, "--raters", 1)
    page = visit(tmp_path / "forms" / "rater-1" / "form.html", viewport={"width": 1100, "height": 900})
    page.locator("#rater").fill("Ann")
    buttons = page.locator("#sessions button")
    assert buttons.count() == 4
    assert buttons.nth(1).is_disabled()  # the blind sessions come after the training
    assert page.locator("#session-title").text_content().startswith("Training session ")
    assert page.locator(".subscale").all_text_contents() == ["Structure", "Other domains"]
    assert page.locator(".domain").first.locator(".description").count() == 0
    assert page.locator(".domain").first.locator(".bare").all_text_contents() == ["1.5", "2", "2.5", "3.5", "4", "4.5"]
    assert page.get_by_role("button", name="Compare with the agreed scores").is_disabled()
    rate(page, "4.5", "3", "x", "2")
    scores = page.locator(".domain .score")
    assert scores.all_text_contents() == ["4.5 of 5", "3 of 5", "cannot be rated", "2 of 5"]
    assert "She asks" not in page.locator("#scores").inner_text()
    page.get_by_role("button", name="Compare with the agreed scores").click()
    assert scores.all_text_contents() == [
        "4.5 of 5, agreed 4 (+0.5)", "3 of 5, agreed 3.5 (−0.5)", "cannot be rated, agreed 2", "2 of 5, agreed n/a",
    ]  # fmt: skip
    told = page.locator("#compared").text_content()
    assert told == "0 of 2 the same, 2 at most one point apart; mean difference 0.50 points. A good start."
    assert page.locator("#differences tbody tr").count() == 4
    assert "<b>She asks</b> what to work on." in page.locator("#differences").text_content()
    head = page.locator(".domain .name").first
    head.click() if head.get_attribute("aria-expanded") == "false" else None
    assert page.locator(".domain.open input").first.is_disabled()  # what was compared stays
    page.reload()
    assert page.locator("#session-title").text_content().endswith("1 of 3")
    page.locator("#sessions button").first.click()
    assert page.locator("#compared").text_content() == told
    for index in (1, 2, 3):
        page.locator("#sessions button").nth(index).click()
        assert page.locator("#comparison").is_hidden()
        rate(page, "5", "1,5", "1", "4")
    assert page.locator("#missing").text_content() == "Nothing is missing: download your ratings."
    assert page.evaluate("document.documentElement.scrollWidth") == 1100
    capsys.readouterr()
    path = download(page, tmp_path / "ann.json")
    call("rate", "import", path, "--key", tmp_path / "forms" / "key.json")
    assert "training: 1 session, mean absolute difference from the agreed scores 0.50" in capsys.readouterr().out
    rated = scores_in(run)
    assert [list(one.domains.values()) for one in rated] == [[5, 1.5, 1, 4]] * 3
    other = visit(tmp_path / "forms" / "rater-1" / "form.html")
    other.locator("#load").set_input_files(path)
    other.get_by_text("Taken up from ann.json.").wait_for()
    assert other.locator("#compared").text_content() == told


def test_a_form_that_settles_asks_for_its_domains_only(visit, tmp_path, capsys):
    run = run_folder(tmp_path / "run", sessions_of(seeds=1, patients=["zz-quist"]), rubric=str(short_rubric(tmp_path)))
    call("rate", "export", run, "--out", tmp_path / "forms")
    files = []
    for form, score in zip(key_of(tmp_path / "forms")["forms"], (2, 4.5), strict=True):
        ratings = {name: {"score": score if name == "warmth" else 3, "evidence": [2]} for name in IDS}
        sessions = [{"code": one["code"], "ratings": ratings} for one in form["sessions"]]
        content = {"schema": "cbtrain.ratings/1", "form": form["id"], "rater": f"R{score}", "sessions": sessions}
        files.append(tmp_path / f"{score}.json")
        files[-1].write_text(json.dumps(content))
    call("rate", "import", *files, "--key", tmp_path / "forms" / "key.json")
    call("rate", "adjudicate", run, "--out", tmp_path / "settle", "--show")
    page = visit(tmp_path / "settle" / "adjudicator" / "form.html")
    page.locator("#rater").fill("Cas")
    for index in (0, 1):
        page.locator("#sessions button").nth(index).click()
        assert page.locator(".domain .name").count() == 1
        assert page.locator(".others").text_content() == "Said so far: 2 (turn 2); 4.5 (turn 2)"
        rate(page, "3.5")
    assert page.locator("#missing").text_content() == "Nothing is missing: download your ratings."
    path = download(page, tmp_path / "cas.json")
    call("rate", "import", path, "--key", tmp_path / "settle" / "key.json")
    assert "human: adjudicated: 2 sessions" in capsys.readouterr().out
    assert scores_in(run)[-1].domains == dict.fromkeys(IDS, 3) | {"warmth": 3.5}
