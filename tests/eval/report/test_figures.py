"""The figures, drawn from the real analysis of made-up and published scores: values where they belong, gaps, odd names."""

import io
import re
import warnings
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from analyzed import analyzed_report, random_ratings, ratings_of
from fake_report import HOSTILE, fake_stage, report_of
from PIL import Image
from places import SCORES2024, needs_scores

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.analysis.score_tables import read_ratings
from cbtrain.eval.report.claim import claim_of
from cbtrain.eval.report.figures import style
from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.figures.forest import forest_figure
from cbtrain.eval.report.figures.heatmap import heatmap_figure
from cbtrain.eval.report.figures.length import length_figure
from cbtrain.eval.report.figures.scores import scores_figure
from cbtrain.eval.report.formatting import fixed, span
from cbtrain.eval.report.render import FOLDER, render_html

BASES = [Arm(f"{base}-{kind}", base, kind) for base in ("A", "B") for kind in ("instruct", "tuned")]
PAIR = [Arm("base", "", "instruct"), Arm("tuned", "", "tuned")]
DRAW = [forest_figure, scores_figure, heatmap_figure, length_figure]
PHONE = 319  # CSS px that a figure has on a screen of 375


@pytest.fixture(scope="module")
def crossed():
    """Two bases, tuned and not, six patients of three sessions."""
    report = analyzed_report(random_ratings(BASES, 6, 3), {"cutoff": 40}, draws=100)
    return {**report, "training": [fake_stage("base", "full", 9.1, 3.2, 1_200_000)]}


@pytest.fixture(scope="module")
def figures(crossed):
    return figures_of(report_of(crossed))


def axis(svg):
    """From x in the SVG to the axis' numbers, by its outermost tick labels."""
    ticks = []
    for group in ET.fromstring(svg).iter("g"):
        if re.search(r"-xtick_\d+$", group.get("id", "")):
            line = next(path.get("d") for path in group.iter("path") if " L " in path.get("d").replace("\n", " "))
            text = next(group.iter("text")).text
            ticks.append((float(line.split()[1]), float(text.replace("−", "-"))))
    ticks.sort()
    (left, low), (right, high) = ticks[0], ticks[-1]
    return lambda x: low + (x - left) * (high - low) / (right - left)


def marks(svg, name):
    """x of every mark in the group of that id."""
    (group,) = (group for group in ET.fromstring(svg).iter("g") if group.get("id") == name)
    return [float(mark.get("x")) for mark in group.iter("use")]


def test_the_forest_plot_has_every_estimate_at_its_place(crossed, figures):
    contrasts = crossed["analysis"]["contrasts"]
    drawn = figures["forest"]
    value = axis(drawn.page)
    assert [contrast["family"] for contrast in contrasts] == ["tuning", "tuning", "pooled", "tuned"]
    for order, contrast in enumerate(contrasts, start=1):
        (x,) = marks(drawn.page, f"forest-estimate-{order}")
        assert value(x) == pytest.approx(contrast["estimate"], abs=0.05)
        assert contrast["id"] in drawn.page
        numbers = (
            f"{fixed(contrast['estimate'], signed=True)} [{fixed(contrast['ci_low'])}, {fixed(contrast['ci_high'])}]"
        )
        assert numbers in drawn.page
        assert f"{contrast['id']}: {fixed(contrast['estimate'], signed=True)} points" in drawn.alt
    assert drawn.page.count(">bootstrap<") == drawn.page.count(">mixed model<") == 4
    assert drawn.page.count(">ln(turns)<") == 4
    bare = {key: value for key, value in crossed["analysis"].items() if key != "length"}
    assert ">ln(turns)<" not in forest_figure(report_of({**crossed, "analysis": bare})).page
    assert "Averaged over bases" in drawn.page


def test_the_forest_plot_has_the_sensitivities_that_were_computed(crossed):
    contrasts = crossed["analysis"]["contrasts"]
    adjusted = [{**contrast, "estimate": contrast["estimate"] - 1} for contrast in contrasts]
    bounds = [{"id": contrasts[0]["id"], "worst_low": -30.0, "worst_high": 40.0}]
    length = {"adjusted": adjusted[:1], "at_least": {"turns": 6, "contrasts": adjusted}, "matched": None}
    svg = forest_figure(
        report_of({**crossed, "analysis": {**crossed["analysis"], "length": length, "bounds": bounds}})
    ).page
    assert [svg.count(f">{name}<") for name in ("ln(turns)", "≥ 6 turns", "worst case", "matched")] == [1, 4, 1, 0]
    ticks = [float(t.replace("−", "-")) for t in re.findall(r">([−+]?\d+)</text>", svg)]
    assert min(ticks) <= -20
    assert max(ticks) >= 30


def test_many_contrasts_stay_readable():
    arms = [Arm(name, "", "") for name in "abcdef"]
    drawn = forest_figure(report_of(analyzed_report(random_ratings(arms, 6, 2), draws=100)))
    assert len(re.findall(r"forest-estimate-\d+", drawn.page)) == 15
    width, height = drawn.figure.get_size_inches()
    assert width == style.WIDTH
    assert height < 16


def test_totals_show_every_rated_session_and_join_patients(crossed, figures):
    drawn = figures["scores"]
    value = axis(drawn.page)
    for place, arm in enumerate(crossed["arms"], start=1):
        totals = [s["total"] for s in crossed["sessions"] if s["arm"] == arm["name"] and s["total"] is not None]
        assert sorted(map(value, marks(drawn.page, f"scores-sessions-{place}"))) == pytest.approx(
            sorted(totals), abs=0.1
        )
        assert f"{fixed(arm['total_mean'])} ± {fixed(arm['total_sd'])}, n {len(totals)}" in drawn.page
        at = sum(total >= 40 for total in totals)
        assert f"{at} at or above the cut-off of 40" in drawn.alt
    (axes,) = drawn.figure.axes
    joined = [line for line in axes.lines if len(line.get_xdata()) == 4]
    assert len(joined) == 6
    means = {
        tuple(
            np.mean(
                [s["total"] for s in crossed["sessions"] if (s["arm"], s["patient"]) == (arm.name, p) and s["total"]]
            )
            for arm in BASES
        )
        for p in {s["patient"] for s in crossed["sessions"]}
    }
    assert sorted(tuple(line.get_xdata()) for line in joined) == [pytest.approx(own) for own in sorted(means)]
    assert "competent from 40" in drawn.page


def test_a_total_off_its_scale_is_seen(crossed):
    sessions = [{**crossed["sessions"][0], "total": 80.0}, *crossed["sessions"][1:]]
    drawn = scores_figure(report_of({**crossed, "sessions": sessions}))
    assert drawn.figure.axes[0].get_xlim()[1] > 80


@pytest.mark.parametrize(("arms", "patients"), [(2, 58), (6, 5)])
def test_it_fits_few_and_many(arms, patients):
    report = analyzed_report(random_ratings([Arm(f"arm {n}", "", "") for n in range(arms)], patients, 3), draws=100)
    for drawn in figures_of(report_of(report)).values():
        assert max(drawn.figure.get_size_inches()) < 16
        # Nothing is drawn outside the figure: what the saved picture would lose.
        box = drawn.figure.get_tightbbox()
        width, height = drawn.figure.get_size_inches()
        assert box.x0 >= -0.02
        assert box.y0 >= -0.02
        assert box.x1 <= width + 0.02
        assert box.y1 <= height + 0.02


def test_the_heat_map_marks_what_stands_after_holm_without_colour(crossed, figures):
    drawn = figures["heatmap"]
    items = crossed["analysis"]["items"]
    stand = [row for row in items if row["p_adjusted"] is not None and row["p_adjusted"] < 0.05]
    assert 0 < len(stand) < len(items)
    starred = sorted(re.findall(r">([−+][\d.]+)\*</text>", drawn.page))
    assert starred == sorted(fixed(row["estimate"], 2, signed=True) for row in stand)
    assert drawn.alt.count("p < .05 after Holm") == len(stand)
    page = render_html(report_of(crossed), figures)
    assert page.count('class="stands"') == len(stand)
    for arm in crossed["arms"]:
        assert all(f">{fixed(mean, 2)}</text>" in drawn.page for mean in arm["domains"].values())


def test_endings_differ_by_pattern(crossed, figures):
    drawn = figures["length"]
    kinds = {session["ending"] for session in crossed["sessions"]}
    patterns = set(re.findall(r"fill: url\(#([^)]+)\)", drawn.page))
    assert len(patterns) == len(kinds) - 1  # the commonest is plain
    for arm in crossed["arms"]:
        for name, count in arm["endings"].items():
            assert f"{name.replace('_', ' ')} {count}" in drawn.alt


def test_in_the_page_they_speak_are_large_enough_and_have_no_colour_of_their_own(crossed, figures):
    assert list(figures) == ["flow", "forest", "scores", "heatmap", "length", "curve-1"]
    page = render_html(report_of(crossed), figures)
    assert page.count("<svg") == page.count('role="img" aria-label="') == 4
    for drawn in figures.values():
        assert re.match(r'<svg [^>]*viewBox="[^"]+" role="img" aria-label="[^"]{20,}">', drawn.page)
        assert not re.search(r"(?:fill|stroke)(?:: |=\")#", drawn.page)
        if drawn.on_page:
            assert drawn.page in page
            width = float(re.search(r'viewBox="0 0 ([\d.]+)', drawn.page)[1])
            sizes = [float(size) for size in re.findall(r"font-size: ([\d.]+)px", drawn.page)]
            # 8.5 pt; a point is 4/3 CSS px
            assert min(sizes) * PHONE / width >= 8.5 * 4 / 3
    identities = re.findall(r'\bid="([^"]+)"', page)
    assert len(identities) == len(set(identities))


def test_the_palette_is_the_pages():
    light = re.search(r":root \{(.*?)\}", (FOLDER / "page.css").read_text(encoding="utf-8"), re.DOTALL)[1]
    colours = dict(re.findall(r"--([\w-]+): (#\w{6})", light))
    names = ("ink", "muted", "line", "card", "heat-ink")
    assert [colours[name] for name in names] == [style.INK, style.MUTED, style.LINE, style.PAPER, style.HEAT]
    assert [[colours[f"arm-{hue}-{tone}"] for tone in range(4)] for hue in range(8)] == list(map(list, style.ARMS))


def test_files_look_the_same_everywhere(figures):
    for drawn in figures.values():
        root = ET.fromstring(drawn.svg)
        assert root.get("aria-label") == drawn.alt
        tags = {element.tag.rpartition("}")[2] for element in root.iter()}
        assert "text" not in tags  # letters are paths
        assert "var(--" not in drawn.svg
        picture = Image.open(io.BytesIO(drawn.png)).convert("RGB")
        assert picture.size == pytest.approx(drawn.figure.get_size_inches() * 200, abs=1)
        assert picture.getpixel((0, 0)) == picture.getpixel((picture.width - 1, picture.height - 1)) == (255, 255, 255)
        assert tuple(int(style.INK[i : i + 2], 16) for i in (1, 3, 5)) in {
            colour for _, colour in picture.getcolors(1 << 24)
        }
        assert Image.open(io.BytesIO(drawn.png)).text["Description"] == drawn.alt


@pytest.mark.parametrize(
    "names",
    [[HOSTILE, "眠れない患者さん" * 9, "_" * 40, ""], ["$x^$ \\frac{1}", "a\x00b\x1bc\x07", "مرحبا", "x" * 300]],
)
def test_odd_names_stay_text(names):
    report = analyzed_report(random_ratings([Arm("one", "", ""), Arm("two", "", "")], 3, 2), draws=100)
    report["arms"][0]["label"], report["arms"][1]["label"], _, _ = names
    _, report["sessions"][0]["ending"], report["scale"]["domains"][0]["name"], _ = names
    _, _, report["sessions"][0]["patient"], report["analysis"]["contrasts"][0]["id"] = names
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = figures_of(report_of(report))
        for drawn in figures.values():
            ET.fromstring(drawn.svg)
            assert "<script" not in drawn.page
            Image.open(io.BytesIO(drawn.png)).verify()
            assert max(drawn.figure.get_size_inches()) < 16
    assert len(figures) == 5


def test_one_arm_has_scores_and_no_contrast():
    report = analyzed_report(random_ratings([Arm("tuned", "", "tuned")], 4, 2))
    assert list(figures_of(report_of(report))) == ["flow", "scores", "heatmap", "length"]
    assert "No comparison between therapists was computed." in render_html(report_of(report), {})


def test_one_patient_has_an_estimate_and_no_interval():
    report = analyzed_report(random_ratings(PAIR, 1, 3))
    drawn = forest_figure(report_of(report))
    estimate = fixed(report["analysis"]["contrasts"][0]["estimate"], signed=True)
    assert f">{estimate}</text>" in drawn.page
    assert "interval" not in drawn.alt
    page = render_html(report_of(report), {})
    assert "one patient: no interval can be given" in page


def test_equal_scores_are_drawn_without_a_density():
    totals = {(arm.name, f"p{p}", s): [3.0, 3.0] for arm in PAIR for p in range(4) for s in range(3)}
    report = analyzed_report(ratings_of(PAIR, totals, ("one", "two")))
    drawn = scores_figure(report_of(report))
    assert len(marks(drawn.page, "scores-sessions-1")) == 12
    assert len(drawn.figure.axes[0].collections) == 4  # dots and means of two arms, no filled curve
    forest = forest_figure(report_of(report))
    assert ">0.0</text>" in forest.page
    page, found = render_html(report_of(report), {}), report["analysis"]["contrasts"][0]
    assert "all patients differ by the same amount: no interval and no t test" in page
    assert (found["estimate"], found["ci_low"]) == (0.0, None)
    assert "no interval can be given" in claim_of(report_of(report)).sentence


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # means of nothing, in the analysis
def test_what_has_no_score_is_not_drawn():
    totals = {(arm.name, f"p{p}", 0): [np.nan, 3.0] for arm in PAIR for p in range(3)}
    report = analyzed_report(ratings_of(PAIR, totals, ("one", "two")))
    assert scores_figure(report_of(report)) is None
    assert forest_figure(report_of(report)) is None
    page = render_html(report_of(report))
    for gap in (
        "No session has a total score",
        "No difference has an estimate",
        "no pair of sessions to compare",
    ):
        assert gap in page
    assert all(draw(report_of({})) is None for draw in DRAW)


def test_the_sections_show_every_part_of_the_analysis(crossed, figures):
    page = " ".join(re.sub(r"<[^>]+>", " ", render_html(report_of(crossed), figures)).split())
    found = crossed["analysis"]
    length, level, bound = found["length"], found["levels"][1], found["bounds"][0]
    rank, slope, least = length["spearman"], length["covariate"], length["at_least"]["contrasts"][0]
    halo, share = found["agreement"]["halo"][0], found["completion"]["contrasts"][0]
    for text in (
        f"{fixed(rank['r'], 2, signed=True)} (95 % interval {span(rank['ci_low'], rank['ci_high'], 2)}) over",
        f"goes with {fixed(slope['slope'], 2, signed=True)} points (95 % interval {span(slope['ci_low'], slope['ci_high'], 2)}",
        "6 turns and more",
        f"{fixed(least['estimate'], 2, signed=True)} {span(least['ci_low'], least['ci_high'], 2)}",
        span(bound["worst_low"], bound["worst_high"], 2),
        f"{level['n']} 40 {level['at_or_above']}",
        f"{share['id']} : {fixed(100 * share['estimate'], 2, signed=True)}".replace(" :", ":"),
        "test over 6 patients",
        f"{fixed(halo['alpha']['estimate'], 2)} {span(halo['alpha']['ci_low'], halo['alpha']['ci_high'], 2)}",
        "One judge rated these sessions",
        "The judge was not probed",
    ):  # fmt: skip
        assert text in page
    assert "was not computed" not in page
    report = crossed
    bare = " ".join(re.sub(r"<[^>]+>", " ", render_html(report_of({**report, "analysis": {}}), {})).split())
    for gap in (
        *(
            "No comparison between therapists was computed.",
            "Shares at the cut-off, the floor and the ceiling were not",
        ),
        *("Sensitivity to length was not computed", "Bounds for missing scores were not computed."),
        *("how many sessions have a score was not computed", "Domains were not compared one by one"),
    ):
        assert gap in bare


@needs_scores
def test_the_studys_scores():
    report = analyzed_report(read_ratings(SCORES2024), {"min": 1, "max": 10, "total_max": 110})
    figures = figures_of(report_of(report))
    assert "all bases: tuned − instruct: +11.23 points, interval 7.43 to 15.03" in figures["forest"].alt
    assert len(re.findall(r"forest-estimate-\d", figures["forest"].page)) == 7
    assert "67.86 ± 7.24, n 100" in figures["scores"].page
    assert "Pacing and Efficient Use of Time" in figures["heatmap"].page
