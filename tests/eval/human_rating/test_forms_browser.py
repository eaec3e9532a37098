"""The rating form in a real browser, opened from disk: filled by mouse and keys, kept, downloaded, taken up again."""

import json

import pytest
from fake_report import HOSTILE
from rated_run import DOMAINS, key_of, run_folder, sessions_of

from cbtrain.cli.main import main
from cbtrain.eval.rating.rubric_files import load_rubric
from cbtrain.eval.rating.scores import read_scores_csv
from cbtrain.transcripts.types import Turn

NAMES = [domain.name for domain in load_rubric().domains]

pytestmark = pytest.mark.slow


@pytest.fixture
def made(tmp_path):
    sessions = sessions_of(patients=["zz-quist"], seeds=1)
    sessions[0].turns[1] = Turn("therapist", HOSTILE)
    run_folder(tmp_path / "run", sessions)
    assert main(["rate", "export", str(tmp_path / "run"), "--out", str(tmp_path / "forms")]) == 0
    return tmp_path


@pytest.fixture
def visit(browser, made):
    """Opens rater 1's form from disk; at the end nothing may have been fetched or complained about."""
    contexts, faults = [], []

    def open_page(context=None, number=1, **options):
        path = made / "forms" / f"rater-{number}" / "form.html"
        if context is None:
            context = browser.new_context(**options)
            contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        local = (path.as_uri(), "blob:")
        page.on("request", lambda request: None if request.url.startswith(local) else faults.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def download(page, folder):
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Download my ratings").click()
    path = folder / waiting.value.suggested_filename
    waiting.value.save_as(path)
    return path


def bring(made, *forms):
    return main(["rate", "import", *map(str, forms), "--key", str(made / "forms" / "key.json")])


def test_a_form_filled_by_mouse_and_keys_survives_a_reload_and_comes_back(visit, made, capsys):
    page = visit()
    page.get_by_role("button", name="Download my ratings").click()
    assert page.locator("#message").text_content() == "Enter your name or initials first."
    assert page.evaluate("document.activeElement.id") == "rater"
    page.keyboard.type("Ann Ö.")
    # by mouse: two turns for the first domain, one of them taken back and another by its button
    page.locator("#turns .text").nth(1).click()
    page.locator("#turns .text").nth(2).click()
    page.locator("#turns .text").nth(2).click()
    page.get_by_role("button", name="6 · Therapist").click()
    assert page.locator("#marking").text_content() == "Agenda: turns 2, 6 marked."
    page.get_by_text("A workable list is agreed near the start and largely followed.").click()
    assert page.locator(".domain .score").first.text_content() == "4 of 6"
    # by keys: to the next domains with Enter, a digit each, the last one cannot be rated
    page.keyboard.press("Enter")
    for digit in "0123456543":
        assert page.evaluate("document.activeElement.type") == "radio"
        page.keyboard.press(digit)
        page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "note"
    page.keyboard.type("A note with 4 and x.")
    page.locator(".domain .name").last.focus()
    page.keyboard.press("x")
    assert page.locator(".domain .score").all_text_contents() == [
        *(f"{score} of 6" for score in (4, 0, 1, 2, 3, 4, 5, 6, 5, 4)), "cannot be rated",
    ]  # fmt: skip
    assert page.locator("#missing").text_content() == "1 of 2 sessions done, 11 ratings missing"
    page.get_by_role("button", name="Go to the next one missing").click()
    assert page.locator("#session-title").text_content().endswith("2 of 2")
    page.keyboard.press("2")
    assert page.evaluate("document.activeElement.value") == "2"
    page.keyboard.press("ArrowDown")
    assert page.locator(".domain .score").first.text_content() == "3 of 6"
    page.reload()
    assert page.locator("#rater").input_value() == "Ann Ö."
    assert page.locator("#kept").text_content() == "Taken up where you stopped in this browser."
    assert page.locator("#missing").text_content() == "1 of 2 sessions done, 10 ratings missing"
    path = download(page, made)
    assert "with 10 ratings still missing" in page.locator("#message").text_content()
    capsys.readouterr()
    assert bring(made, path) == 0
    assert "1 with domains that cannot be rated (unratable), 1 rated in part" in capsys.readouterr().out
    first, second = key_of(made / "forms")["forms"][0]["sessions"]
    scores = {score.session_id: score for score in read_scores_csv(made / "run" / "human_scores.csv")}
    values = [4.0, 0, 1, 2, 3, 4, 5, 6, 5, 4, None]
    assert scores[first["session_id"]].domains == dict(zip(DOMAINS, values, strict=True))
    assert scores[first["session_id"]].judge == "human: Ann Ö."
    assert scores[second["session_id"]].domains == dict.fromkeys(DOMAINS) | {"agenda": 3.0}
    notes = [json.loads(line) for line in (made / "run" / "human_notes.jsonl").read_text().splitlines()]
    note = next(note for note in notes if note["session_id"] == first["session_id"])
    assert note["evidence"] == {"agenda": [1, 5]}
    assert note["reason"] == {"note": "A note with 4 and x."}


def test_a_half_finished_download_is_taken_up_in_another_browser(visit, made):
    page = visit()
    page.locator("#rater").fill("Ann")
    page.locator(".domain .name").first.focus()
    page.keyboard.press("5")
    path = download(page, made)
    other = visit(color_scheme="dark")
    assert other.locator("#rater").input_value() == ""
    other.locator("#load").set_input_files(path)
    other.get_by_text(f"Taken up from {path.name}.").wait_for()
    assert other.locator("#rater").input_value() == "Ann"
    assert other.locator(".domain .score").first.text_content() == "5 of 6"
    for index in (0, 1):
        other.locator("#sessions button").nth(index).click()
        for place in range(len(DOMAINS)):
            head = other.locator(".domain .name").nth(place)
            if head.get_attribute("aria-expanded") == "false":
                head.click()
            other.locator(".domain").nth(place).get_by_role("radio").nth(6).check()
    assert other.locator("#missing").text_content() == "Nothing is missing: download your ratings."
    assert bring(made, download(other, made)) == 0
    assert {score.total for score in read_scores_csv(made / "run" / "human_scores.csv")} == {66.0}
    # refused: what is no download, and that of another form; what is on the page stays
    stranger = visit(number=2)
    (made / "no.json").write_text("[]")
    for file, message in ((path, "it belongs to form"), (made / "no.json", "it is no file of ratings")):
        stranger.locator("#load").set_input_files(file)
        stranger.get_by_text(f"{file.name} was not taken: {message}").wait_for()
    assert stranger.locator("#missing").text_content() == "0 of 2 sessions done, 22 ratings missing"


def test_a_browser_that_keeps_nothing_says_so(visit, made):
    page = visit()
    page.context.add_init_script(
        "Storage.prototype.setItem = () => { throw new DOMException('full', 'QuotaExceededError'); }"
    )
    page = visit(page.context)
    assert page.locator("#kept").text_content().startswith("This browser keeps nothing for this page")
    page.locator("#rater").fill("Ann")
    page.locator(".domain .name").first.focus()
    page.keyboard.press("5")
    assert page.locator(".domain .score").first.text_content() == "5 of 6"
    assert json.loads(download(page, made).read_text())["sessions"][0]["ratings"]["agenda"]["score"] == 5


def test_a_planted_script_stays_text(visit, made):
    page = visit()
    texts = []
    for index in (0, 1):
        page.locator("#sessions button").nth(index).click()
        texts += page.locator("#turns .text").all_text_contents()
    page.wait_for_timeout(200)
    assert HOSTILE.strip() in texts
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 820, 375])
def test_the_page_fits(visit, tmp_path, width, scheme):
    page = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.get_by_text("Research software").first.is_visible()
    assert page.get_by_text("may touch on distressing subjects").is_visible()
    ink, ground = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    bright = sum(map(int, ground[4:-1].split(","))) > sum(map(int, ink[4:-1].split(",")))
    assert bright == (scheme == "light")
    page.get_by_role("button", name="Guided discovery").click()
    assert len(page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)) > 50_000


def test_everything_has_a_name_and_it_prints(visit):
    page = visit()
    for name in ("Your name or initials", "Go on from a download", "Note to this session (optional)"):
        assert page.get_by_label(name).count() == 1
    for name in NAMES:
        assert page.get_by_role("group", name=name, include_hidden=True).count() == 1
    assert page.get_by_role("radio", name="6 As 5, with priorities weighed together").count() == 1
    page.emulate_media(media="print")
    assert page.locator(".domain fieldset").last.is_visible()
    assert page.get_by_role("button", name="Download my ratings").count() == 0
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_without_scripts_it_points_to_the_spreadsheet(visit):
    page = visit(java_script_enabled=False)
    assert page.get_by_text("Without it, use ratings.csv and reading.txt").is_visible()
    assert page.locator("#rating").is_hidden()
