"""Any number of arms: looks that differ without colour, short labels, figures in which no text covers another."""

import re
from itertools import pairwise

import pytest
from analyzed import analyzed_report, random_ratings
from covered_text import covered
from fake_report import fake_report, report_of

from cbtrain.eval.analysis.arms import Arm
from cbtrain.eval.report.arm_looks import ArmLook, looks_of
from cbtrain.eval.report.figures import style
from cbtrain.eval.report.figures.draw import figures_of
from cbtrain.eval.report.flow import STAGES
from cbtrain.eval.report.markdown import render_markdown
from cbtrain.eval.report.render import render_html

VARIANTS = ("untuned", "placebo", "prompted", "tuned")
LONG = "meta-llama/Llama-3.1-8B-Instruct with the prompt of session structure and few shots, "


def report_with(arms):
    return report_of({"arms": [{"name": arm.name, "base": arm.base, "variant": arm.variant} for arm in arms]})


def crossed(bases, variants):
    return [Arm(f"{base}-{variant}", base, variant) for base in bases for variant in variants]


def test_eight_bases_of_four_variants_differ_without_colour():
    looks = looks_of(report_with(crossed("ABCDEFGH", VARIANTS)))
    assert len({(look.shape, look.tone) for look in looks.values()}) == 32
    for base in "ABCDEFGH":
        own = [looks[f"{base}-{variant}"] for variant in VARIANTS]
        assert [look.tone for look in own] == [0, 1, 2, 3]
        assert len({(look.hue, look.shape) for look in own}) == 1
    marks = [{**style.arm_mark(look), "mfc": "", "mec": ""} for look in looks.values()]
    hollow = [look.tone == 0 for look in looks.values()]
    assert len({(mark["marker"], mark["fillstyle"], empty) for mark, empty in zip(marks, hollow, strict=True)}) == 32


def test_looks_of_few_and_of_many_of_one_base():
    assert looks_of(report_of(fake_report() | {"analysis": {}})) == {
        "base": ArmLook(0, 0, 0),
        "tuned": ArmLook(0, 0, 3),
    }
    prompts = [Arm(f"p{number}", "llama", "untuned") for number in range(12)]
    looks = looks_of(report_with(prompts))
    assert len(set(looks.values())) == 12
    assert {look.hue for look in looks.values()} == {0}
    unknown = looks_of(report_with([Arm(name, "", "") for name in "abc"]))
    assert [(look.hue, look.tone) for look in unknown.values()] == [(0, 3), (1, 3), (2, 3)]


def lightness(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 116 * (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]) ** (1 / 3) - 16


def test_tones_differ_in_grey():
    for tones in style.ARMS:
        greys = [lightness(colour) for colour in tones]
        assert all(one - other >= 8 for one, other in pairwise(greys)), tones
    colours = [colour for tones in style.ARMS for colour in tones]
    colours += [style.INK, style.MUTED, style.LINE, style.PAPER, style.HEAT]
    assert len(set(colours)) == 37  # each is replaced by one variable of the page


def test_long_names_are_short_and_differ():
    names = [f"{LONG}{number}" for number in range(3)] + [
        "short",
        "眠れない患者さん" * 9,
        f"a{'b' * 99}c",
        f"a{'b' * 98}c",
    ]
    short = style.short_labels(names, 30)
    assert len(set(short)) == len(names)
    assert max(map(style.columns, short)) <= 31
    assert short[0].startswith("meta-llam…")
    assert [text[-1] for text in short[:3]] == ["0", "1", "2"]
    assert short[3] == "short"


def many(count, name="{base}-{variant}"):
    """A report of ``count`` arms in bases of two or three."""
    per_base = 2 if count < 6 else 3
    arms = [
        Arm(name.format(base=base, variant=variant), base, variant)
        for base in "ABCD"[: count // per_base]
        for variant in (("untuned", "tuned") if per_base == 2 else ("untuned", "placebo", "tuned"))
    ]
    assert len(arms) == count
    return analyzed_report(random_ratings(arms, 5, 2), {"cutoff": 40}, draws=20)


@pytest.mark.parametrize(
    ("count", "name"), [(2, "{base}-{variant}"), (6, LONG + "{base} {variant}"), (12, "{base}-{variant}")]
)
def test_no_text_covers_another(count, name):
    figures = figures_of(report_of(many(count, name)))
    assert list(figures) == ["flow", "forest", "scores", "heatmap", "length"]
    for drawn in figures.values():
        assert not covered(drawn.figure), drawn.name
        width, height = drawn.figure.get_size_inches()
        box = drawn.figure.get_tightbbox()
        assert box.x0 >= -0.02, drawn.name
        assert box.x1 <= width + 0.02, drawn.name
        assert max(width, height) < 45


def test_twelve_arms_have_one_order_everywhere():
    content = many(12, LONG + "{base} {variant}")
    names = [arm["name"] for arm in content["arms"]]
    page, text = render_html(report_of(content), {}), render_markdown(report_of(content), {})
    flow = page[page.index('<figure class="flow">') :]
    flow = flow[: flow.index("</figure>")]
    assert re.findall(r'<th role="rowheader"[^>]*>.*?</span>(.*?)</th>', flow) == names
    assert re.findall(r'data-stage="([^"]+)"', flow) == list(STAGES) * 12
    assert flow.count('class="new-base"') == 3
    assert page.index('<figure class="flow">') == page.index("<figure")
    place = [
        [text.index(f"\n| {name} |", text.index(head)) for name in names] for head in ("## Participant", "## Scores")
    ]
    assert all(places == sorted(places) for places in place)
    # The whole names of what figures shorten are listed.
    (listed,) = re.findall(r"Names that figures shorten: (.*?)</p>", render_html(report_of(content), {}))
    assert [pair.rpartition(" is ")[2] for pair in listed.removesuffix(".").split("; ")] == names
    assert "Names that figures shorten" not in render_html(report_of(many(2)), {})
