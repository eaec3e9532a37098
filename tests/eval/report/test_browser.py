"""The report in a real browser, opened from disk: filters, dialogues, evidence, two side by side, the address, planted
markup, light, dark, phone, print."""

import copy

import pytest
from analyzed import analyzed_report, random_ratings
from fake_report import HOSTILE, RATER, fake_report, report_of

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.report.write import write_report

pytestmark = pytest.mark.slow

BASES = ["Llama-3.1-8B", "Mistral-7B", "Qwen2.5-7B", "gpt-4.1"]


@pytest.fixture
def visit(browser, tmp_path):
    """Opens a report from disk; at the end nothing may have been fetched or complained about."""
    opened, faults = [], []

    def open_page(report, address="", **options):
        path = write_report(report_of(report), tmp_path)
        context = browser.new_context(**options)
        opened.append(context)
        page = context.new_page()
        page.on("console", lambda message: faults.append(message.text))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda request: None if request.url == path.as_uri() else faults.append(request.url))
        page.goto(path.as_uri() + address)
        return page

    yield open_page
    for context in opened:
        context.close()
    assert faults == []


def listed(page):
    return page.locator("#session-list button")


def domain_button(page, name):
    return page.locator("#session-domains button").filter(has_text=name)


def marked_turns(dialogue):
    return dialogue.locator("> li").evaluate_all(
        "all => all.flatMap((li, i) => li.matches('.evidence') ? [i + 1] : [])"
    )


def titles(page):
    return [text.split("Base")[0].split("CBT")[0] for text in listed(page).all_text_contents()]


def twice_rated():
    """Mara with the base model is rated once more, one point lower in every domain, with other evidence."""
    report = fake_report()
    session = report["sessions"][0]
    first = session["ratings"][0]
    told = {"agenda": "No order.", "note": "A kind voice."}
    second = copy.deepcopy(first) | {"judge": "judge B", "evidence": {"agenda": [3]}, "reason": told}
    second["domains"] = {name: score - 1 for name, score in first["domains"].items()}
    second["total"] = first["total"] - 11
    session["ratings"] = [first, second]
    session["domains"] = {name: score - 0.5 for name, score in first["domains"].items()}
    session["total"] = first["total"] - 5.5
    return report


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
    cited = page.locator("#turns .cited .who").all_text_contents()
    numbered = ["2 Agenda", "4 Guided discovery", "6 Guided discovery", "8 Homework"]
    assert cited == [f"Therapist · {text}" for text in numbered]
    domain = domain_button(page, "Guided discovery")
    domain.click()
    assert domain.get_attribute("aria-pressed") == "true"
    assert marked_turns(page.locator("#turns")) == [4, 6]
    assert page.locator("#evidence-status").text_content() == "Guided discovery: turns 4, 6 marked."
    domain_button(page, "Agenda").click()
    assert domain.get_attribute("aria-pressed") == "false"
    assert page.locator("#turns .evidence .who").all_text_contents() == ["Therapist · 2 Agenda"]
    assert page.locator("#session-domains .reason").all_text_contents() == ["Proposes what to cover and asks for more."]
    domain_button(page, "Agenda").click()
    assert page.locator("#turns .evidence").count() == 0
    assert page.locator("#session-domains .reason").count() == 0
    page.locator("#turns .chip").filter(has_text="Homework").click()
    assert marked_turns(page.locator("#turns")) == [8]
    # A reason without a turn is shown too; a domain with neither cannot be chosen.
    domain_button(page, "Pacing").click()
    assert page.locator("#evidence-status").text_content() == "Pacing and efficient use of time: no turn marked."
    assert page.locator("#session-domains .reason").all_text_contents() == ["Even throughout."]
    assert domain_button(page, "Feedback").count() == 0
    assert page.locator(".rating-choice:visible").count() == 0


def test_a_patients_own_answers_are_beside_the_dialogue(visit):
    report = fake_report()
    report["sessions"][0]["answers"] = {"status": "ok", "means": {"hope": 4.5}, "own_words": "I still <b>doubt</b> it."}
    report["sessions"][1]["answers"] = {"status": "invalid", "problem": "invalid: no JSON object in it"}
    page = visit(report)
    shown = page.locator("#session-answers .reason")
    for index, texts in enumerate(
        (["hope 4.5", "I still <b>doubt</b> it."], ["Not filled in: invalid: no JSON object in it"], [])
    ):
        listed(page).nth(index).click()
        assert shown.all_text_contents() == texts
        assert page.locator("#session-answers").is_visible() == bool(texts)


def test_scores_flags_words_and_order(visit):
    page = visit(fake_report())
    assert titles(page)[:2] == ["Mara Lindqvist24", "Tomás Ibarra25"]
    page.get_by_role("combobox", name="Order").select_option("Highest total first")
    assert titles(page) == [
        "June Okafor36",
        "Tomás Ibarra35",
        "Mara Lindqvist34",
        "Devon Hale33",
        "Tomás Ibarra25",
        "Mara Lindqvist24",
        "June Okafor22",
        "Devon Halen/a",
    ]
    page.get_by_role("combobox", name="Order").select_option("Lowest total first")
    assert titles(page)[0] == "June Okafor22"
    assert titles(page)[-1] == "Devon Halen/a"
    page.get_by_role("combobox", name="Order").select_option("Longest first")
    assert titles(page)[0] == "Devon Hale33"
    # Another order leaves the open session open.
    assert page.locator("#session-title").text_content() == "Mara Lindqvist, Base model"
    page.get_by_role("spinbutton", name="Total score from").fill("24")
    page.get_by_role("spinbutton", name="Total score to").fill("34")
    page.locator("#session-count", has_text="4 of 8").wait_for()
    assert titles(page) == ["Devon Hale33", "Tomás Ibarra25", "Mara Lindqvist24", "Mara Lindqvist34"]
    page.get_by_role("button", name="Reset").click()
    page.locator("#session-count", has_text="8 of 8").wait_for()
    assert titles(page)[:2] == ["Mara Lindqvist24", "Tomás Ibarra25"]
    flags = page.get_by_role("combobox", name="Flag").locator("option").all_text_contents()
    assert flags == ["Any or none", "Failed (1)", "Not rated (1)", "Short (1)", "Stopped by a limit (3)"]
    page.get_by_role("combobox", name="Flag").select_option("Not rated (1)")
    assert titles(page) == ["Devon Halen/a"]
    assert page.locator("#session-flags span").all_text_contents() == ["Failed", "Not rated", "Short"]
    page.get_by_text("What the flags mean").click()
    assert page.get_by_text("Fewer than 6 turns.").is_visible()
    page.get_by_role("button", name="Reset").click()
    page.get_by_role("searchbox", name="Words in the dialogue").fill("I  AM being (unfair")
    page.locator("#session-count", has_text="No session").wait_for()
    page.get_by_role("searchbox", name="Words in the dialogue").fill("i AM being  unfair.")
    page.locator("#session-count", has_text="7 of 8").wait_for()
    assert page.locator("#turns mark").all_text_contents() == ["I am being unfair."]
    assert page.locator("#turns .text").nth(6).text_content() == fake_report()["sessions"][0]["turns"][6]["text"]


def test_every_rating_can_be_read(visit):
    page = visit(twice_rated())
    choice = page.locator(".scores-pane").get_by_role("combobox", name="Rating")
    assert choice.locator("option").all_text_contents() == ["All ratings, mean", "cue", "judge B"]
    assert page.locator("#session-total").text_content() == "18.5 of 66"
    domain_button(page, "Agenda").click()
    assert marked_turns(page.locator("#turns")) == [2, 4]
    reasons = ["cue: 0 Proposes what to cover and asks for more.", "judge B: −1 No order."]
    assert page.locator("#session-domains .reason").all_text_contents() == reasons
    assert domain_button(page, "Agenda").locator("small").text_content() == "−1 to 0"
    assert page.locator("#session-notes").text_content() == "judge B A kind voice."
    choice.select_option("judge B")
    assert page.locator("#session-total").text_content() == "13 of 66"
    assert page.locator("#turns .cited .who").all_text_contents() == ["Therapist · 4 Agenda"]
    listed(page).nth(1).click()
    assert page.locator("#session-total").text_content() == "n/a"
    assert "status: this rating was not made" in page.locator("#session-facts").text_content()


def test_two_sessions_side_by_side(visit):
    report = fake_report()
    other = copy.deepcopy(report["sessions"][5]) | {"id": "tuned-p2-2", "seed": 2, "total": 30}
    report["sessions"].append(other)
    page = visit(report)
    listed(page).nth(1).click()
    page.get_by_role("button", name="Compare with CBT-tuned model").click()
    assert page.locator(".panes").is_hidden()
    title = page.locator("#comparison-title")
    assert title.text_content() == "Tomás Ibarra: Base model, seed 1 beside CBT-tuned model, seed 1"
    assert page.evaluate("document.activeElement.id") == "comparison-title"
    table = page.locator("#comparison-domains tr")
    assert table.nth(0).locator("th, td").all_text_contents() == ["Total (of 66)", "25", "35", "+10"]
    assert table.nth(1).locator("th, td").all_text_contents() == ["Agenda", "3", "1", "−2"]
    sides = page.locator(".side")
    for place, session in ((0, report["sessions"][1]), (1, report["sessions"][5])):
        assert sides.nth(place).locator(".text").all_text_contents() == [turn["text"] for turn in session["turns"]]
    table.get_by_role("button", name="Guided discovery").click()
    assert [marked_turns(sides.nth(place).locator(".turns")) for place in (0, 1)] == [[4, 6], [4, 6]]
    sides.nth(1).locator(".chip").filter(has_text="Agenda").click()
    assert [marked_turns(sides.nth(place).locator(".turns")) for place in (0, 1)] == [[2], [2]]
    assert "Agenda: 1 / 6Proposes what to cover" in sides.nth(1).locator(".reasons").text_content()
    sides.nth(1).get_by_role("combobox").select_option("CBT-tuned model, seed 2")
    assert title.text_content().endswith("beside CBT-tuned model, seed 2")
    assert table.nth(0).locator("td").last.text_content() == "+5"
    page.get_by_role("combobox", name="Patient").select_option("Devon Hale")
    assert title.text_content() == "Devon Hale: Base model, seed 1 beside CBT-tuned model, seed 1"
    assert table.nth(0).locator("td").all_text_contents() == ["n/a", "33", "n/a"]
    assert "no answer after 5 attempts" in sides.nth(0).locator(".error").text_content()
    page.keyboard.press("Escape")
    assert page.locator("#session-title").text_content() == "Devon Hale, Base model"
    assert page.evaluate("document.activeElement.id") == "compare"
    page.keyboard.press("Enter")
    assert title.is_visible()


def test_the_address_keeps_what_is_shown(visit):
    page = visit(twice_rated())
    page.get_by_role("combobox", name="Therapist").select_option("Base model")
    page.get_by_role("combobox", name="Order").select_option("Lowest total first")
    page.get_by_role("combobox", name="Rating").select_option("judge B")
    listed(page).nth(1).click()
    address = page.evaluate("location.hash")
    assert address == "#transcripts&arm=base&order=total-up&rating=judge+B&session=base-p3-1"

    def as_left(page):
        assert page.get_by_role("combobox", name="Therapist").locator("option:checked").text_content() == "Base model"
        assert page.get_by_role("combobox", name="Rating").input_value() == "judge B"
        assert listed(page).count() == 4
        assert page.locator("#session-title").text_content() == "June Okafor, Base model"

    page.reload()
    as_left(page)
    as_left(visit(twice_rated(), address))
    # The filter would hide the second; the link holds.
    page = visit(fake_report(), "#transcripts&arm=base&session=base-p1-1&beside=tuned-p1-1")
    assert page.locator("#comparison-title").is_visible()
    page.get_by_role("link", name="Scores").click()
    assert page.locator("#comparison-title").text_content().startswith("Mara Lindqvist")
    # What the report does not hold is passed over.
    lost = "#transcripts&arm=x&patient=%E0%A4%A&flag=%3Cb%3E&order=y&least=z&session=gone&beside=gone&rating=no&more=1"
    assert listed(visit(fake_report(), lost)).count() == 8
    page = visit(fake_report(), "#transcripts&session=base-p1-1&beside=tuned-p2-1")
    assert page.locator("#comparison").is_hidden()


def test_the_keyboard_reaches_everything(visit):
    page = visit(fake_report())
    page.get_by_role("combobox", name="Ending").focus()
    reached = []
    for _ in range(8):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
    filters = ["filter-flag", "filter-least", "filter-most", "filter-words", "order", "Reset", "What the flags mean"]
    assert reached[:7] == filters
    titles = []
    for key in ("ArrowDown", "ArrowDown", "End", "ArrowDown", "ArrowUp", "Home", "ArrowUp"):
        page.keyboard.press(key)
        titles.append(page.locator("#session-title").text_content())
        assert page.evaluate("document.activeElement.getAttribute('aria-current')") == "true"
    first, last = "Mara Lindqvist, Base model", "Devon Hale, CBT-tuned model"
    before_last = "June Okafor, CBT-tuned model"
    assert titles == ["Tomás Ibarra, Base model", "June Okafor, Base model", last, last, before_last, first, first]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "compare"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert page.locator("#evidence-status").text_content() == "Agenda: turn 2 marked."
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_planted_markup_stays_text(visit):
    report = fake_report()
    for session in (report["sessions"][0], report["sessions"][4]):
        rating = session["ratings"][0]
        session["turns"][1]["text"] = session["patient_name"] = session["ending"] = session["error"] = HOSTILE
        session["status"] = rating["reason"]["note"] = rating["reason"]["agenda"] = rating["reason"]["error"] = rating[
            "status"
        ] = HOSTILE
        session["flags"] = [HOSTILE, "short"]
        session["ratings"] = [rating, rating | {"judge": HOSTILE, "repeat": HOSTILE}]
    report["sessions"][0]["seed"] = HOSTILE
    report["title"] = report["scale"]["domains"][0]["name"] = HOSTILE
    report["arms"][0]["label"] = report["arms"][0]["name"] = report["sessions"][0]["arm"] = HOSTILE
    report["rater"]["label"] = report["sessions"][0]["id"] = HOSTILE
    page = visit(report)
    page.get_by_role("combobox", name="Flag").select_option(value="4")
    assert page.locator("#filter-flag option:checked").text_content() == f"{HOSTILE} (2)"
    page.locator("#session-domains button").first.click()
    assert page.locator("#turns .text").nth(1).text_content() == HOSTILE
    assert page.locator("#session-domains .reason").first.text_content().endswith(HOSTILE)
    page.get_by_role("searchbox").fill("<img src=x")
    page.locator("#turns mark").first.wait_for()
    page.get_by_role("combobox", name="Rating").select_option(index=2)
    page.locator("#compare").click()
    page.locator("#comparison-domains button").first.click()
    page.reload()
    page.wait_for_timeout(200)
    assert page.locator("#comparison-title").is_visible()
    assert page.evaluate("window.hacked") is None
    assert page.locator("img").count() == 0
    assert page.locator("script").count() == 2
    assert page.locator(".side .text").nth(1).text_content() == HOSTILE


def test_an_empty_report_opens(visit):
    page = visit({})
    assert page.get_by_text("No session was recorded.").is_visible()
    page = visit({"sessions": [{}], "arms": [{}]})
    assert page.locator("#turns").text_content() == "No turn was recorded."
    assert page.locator("#compare").is_hidden()


def test_a_report_of_the_first_schema_opens(visit):
    report = fake_report()
    for session in report["sessions"]:
        del session["flags"], session["ratings"]
        session["evidence"] = {"agenda": [1]}
    page = visit(report)
    assert page.locator("#session-total").text_content() == "24 of 66"
    assert page.locator("#evidence-status").text_content() == "No evidence was recorded."
    page.locator("#compare").click()
    assert page.locator("#comparison-domains td").nth(2).text_content() == "+10"


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
    domain_button(page, "Guided discovery").click()
    picture = page.screenshot(path=tmp_path / f"{width}-{scheme}.png", full_page=True)
    assert len(picture) > 50_000
    page.locator("#compare").click()
    page.locator("#comparison-domains button").first.click()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    lefts = [side.bounding_box()["x"] for side in page.locator(".side").all()]
    assert (lefts[0] < lefts[1]) == (width > 640)


def twelve_arms():
    arms = [Arm(f"{base}-{kind}", base, kind) for base in BASES for kind in ("untuned", "placebo", "tuned")]
    return analyzed_report(random_ratings(arms, 5, 2), {"cutoff": 40}, draws=20)


def test_twelve_arms_can_be_found(visit):
    page = visit(twelve_arms())
    base, arm = (page.get_by_role("combobox", name=name) for name in ("Base", "Therapist"))
    assert base.locator("option").all_text_contents() == ["All bases", *BASES]
    groups = arm.locator("optgroup")
    assert [group.get_attribute("label") for group in groups.all()] == BASES
    assert groups.nth(1).locator("option").all_text_contents() == [f"Mistral-7B-{v}" for v in
                                                                   ("untuned", "placebo", "tuned")]  # fmt: skip
    base.select_option("Qwen2.5-7B")
    assert page.locator("#session-count").text_content() == "30 of 120 sessions"
    arm.select_option("Qwen2.5-7B-tuned")
    assert listed(page).count() == 10
    assert "base=Qwen2.5-7B&arm=Qwen2.5-7B-tuned" in page.evaluate("location.hash")
    # The partner has the same base, patient and seed.
    assert page.locator("#compare").text_content() == "Compare with Qwen2.5-7B-untuned"
    assert visit(fake_report()).locator("#filter-base").is_hidden()


@pytest.mark.parametrize("width", [1200, 390])
def test_twelve_arms_fit(visit, width):
    page = visit(twelve_arms(), viewport={"width": width, "height": 900})
    assert page.evaluate("document.documentElement.scrollWidth") == width
    flow = page.locator("figure.flow")
    assert flow.evaluate("all => all.scrollWidth <= all.clientWidth")
    assert flow.get_by_role("row").count() == 13
    assert flow.get_by_role("rowheader").nth(3).inner_text() == "Mistral-7B-untuned"
    page.emulate_media(media="print")
    page.set_viewport_size({"width": 688, "height": 900})  # A4 without its margins
    wide = "all => all.filter((one) => one.getBoundingClientRect().right > 689).map((one) => one.className)"
    assert page.locator("#result figure, #scores figure, .flow table, table.heat").evaluate_all(wide) == []


def test_it_prints(visit):
    page = visit(fake_report(), color_scheme="dark")
    assert page.pdf(format="A4").startswith(b"%PDF")
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(29, 34, 38)"
    assert page.locator(".list-pane").is_hidden()
    page.emulate_media(media="screen")
    page.locator("#compare").click()
    page.emulate_media(media="print")
    sides = page.locator(".side")
    assert sides.locator(".side-title").all_text_contents() == ["Base model, seed 1", "CBT-tuned model, seed 1"]
    assert sides.locator(".side-title").first.is_visible()
    assert sides.get_by_role("combobox").first.is_hidden()
    # Nothing is cut off: a dialogue is as high as its turns.
    cut = "all => all.filter((list) => list.scrollHeight > list.clientHeight + 1).length"
    assert sides.locator(".turns").evaluate_all(cut) == 0
    assert page.pdf(format="A4").startswith(b"%PDF")
