"""The report in a real browser, opened from disk: filters, dialogues, evidence, planted markup, light, dark, phone."""

import shutil

import pytest

from cbtrain.eval.report.write import write_report

from .test_report_fake import HOSTILE, RATER, fake_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
ARGUMENTS += ["--disable-component-update", "--disable-sync"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH (apt-get install chromium)"),
]


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        running.close()


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report from disk; at the end nothing may have been fetched or complained about."""
    opened, faults = [], []

    def open_page(report, **options):
        path = write_report(report, tmp_path)
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url == path.as_uri() else faults.append(request.url))
        page.goto(path.as_uri())
        return page

    yield open_page
    for context in opened:
        context.close()
    assert faults == []


def listed(page):
    return page.locator("#session-list button")


def test_filters_narrow_the_list(visit):
    page = visit(fake_report())
    assert listed(page).count() == 8
    page.get_by_role("combobox", name="Therapist").select_option("CBT-tuned model")
    assert listed(page).count() == 4
    assert page.locator("#session-count").text_content() == "4 of 8 sessions"
    page.get_by_role("combobox", name="Patient").select_option("Tomás Ibarra")
    assert listed(page).all_text_contents() == ["Tomás Ibarra35CBT-tuned model, patient end, seed 1"]
    assert page.locator("#session-title").text_content() == "Tomás Ibarra, CBT-tuned model"
    page.get_by_role("combobox", name="Ending").select_option("provider error")
    assert listed(page).count() == 0
    assert page.locator("#session-count").text_content() == "No session matches."
    assert page.locator(".panes").is_hidden()
    page.get_by_role("combobox", name="Therapist").select_option("All therapists")
    page.get_by_role("combobox", name="Patient").select_option("All patients")
    assert page.locator("#session-error").text_content() == "Failed: provider_error: no answer after 5 attempts"
    assert page.locator("#session-total").text_content() == "n/a"
    assert page.locator("#session-domains .score").all_text_contents() == ["n/a"] * 11


def test_a_dialogue_opens_and_its_evidence_is_marked(visit):
    report = fake_report()
    page = visit(report)
    listed(page).nth(5).click()
    session = report["sessions"][5]
    texts = [element.text_content() for element in page.locator("#turns .text").all()]
    assert texts == [turn["text"] for turn in session["turns"]]
    assert page.locator("#session-total").text_content() == "35 of 66"
    assert page.locator(".scores-pane .rater").text_content() == f"Rated by {RATER}"
    domain = page.get_by_role("button", name="Guided discovery")
    domain.click()
    assert domain.get_attribute("aria-pressed") == "true"
    marked = page.locator("#turns > li").evaluate_all(
        "all => all.flatMap((li, i) => li.matches('.evidence') ? [i] : [])"
    )
    assert marked == [3, 5]
    assert page.locator("#evidence-status").text_content() == "Guided discovery: turns 4, 6 marked."
    page.get_by_role("button", name="Agenda").click()
    assert domain.get_attribute("aria-pressed") == "false"
    assert page.locator("#turns .evidence .who").all_text_contents() == ["Therapist · 2 · Agenda"]
    page.get_by_role("button", name="Agenda").click()
    assert page.locator("#turns .evidence").count() == 0


def test_the_keyboard_reaches_everything(visit):
    page = visit(fake_report())
    page.get_by_role("combobox", name="Ending").focus()
    page.keyboard.press("Tab")
    titles = []
    for key in ("ArrowDown", "ArrowDown", "End", "ArrowDown", "ArrowUp", "Home", "ArrowUp"):
        page.keyboard.press(key)
        titles.append(page.locator("#session-title").text_content())
        assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    first, last = "Mara Lindqvist, Base model", "Devon Hale, CBT-tuned model"
    before_last = "June Okafor, CBT-tuned model"
    assert titles == ["Tomás Ibarra, Base model", "June Okafor, Base model", last, last, before_last, first, first]
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#evidence-status").text_content() == "Agenda: turn 2 marked."
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_planted_markup_stays_text(visit):
    report = fake_report()
    session = report["sessions"][0]
    session["turns"][1]["text"] = HOSTILE
    session["patient_name"] = session["ending"] = session["error"] = report["title"] = HOSTILE
    report["arms"][0]["label"] = report["rater"]["label"] = report["scale"]["domains"][0]["name"] = HOSTILE
    page = visit(report)
    page.locator("#session-domains button").first.click()
    page.wait_for_timeout(200)
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.locator("#turns .text").nth(1).text_content() == HOSTILE


def test_an_empty_report_opens(visit):
    page = visit({})
    assert page.get_by_text("No session was recorded.").is_visible()
    page = visit({"sessions": [{}], "arms": [{}]})
    assert page.locator("#turns").text_content() == "No turn was recorded."


def test_without_scripts_the_tables_remain(visit):
    page = visit(fake_report(), java_script_enabled=False)
    assert page.get_by_text("Reading the dialogues here needs JavaScript").is_visible()
    page.get_by_text("All 8 sessions as a table").click()
    assert page.get_by_role("row").filter(has_text="base-p4-1").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 820, 375])
def test_the_page_fits(visit, tmp_path, width, scheme):
    page = visit(fake_report(), viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    ink, ground = page.evaluate("(s => [s.color, s.backgroundColor])(getComputedStyle(document.body))")
    bright = sum(map(int, ground[4:-1].split(","))) > sum(map(int, ink[4:-1].split(",")))
    assert bright == (scheme == "light")
    page.get_by_role("button", name="Guided discovery").click()
    picture = page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert len(picture) > 50_000


def test_it_prints(visit):
    page = visit(fake_report(), color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 34, 38)"
    assert page.locator(".list-pane").is_hidden()
