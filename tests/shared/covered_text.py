"""Texts of a figure that lie over each other."""

from itertools import combinations


def covered(figure):
    """Pairs of texts of which one lies over the other, by their boxes as drawn."""
    figure.draw_without_rendering()
    texts = [text for axes in figure.axes for text in axes.texts]
    shown = [axes for axes in figure.axes if axes.axison]
    texts += [text for axes in shown for text in (axes.xaxis.label, *axes.get_xticklabels())]
    texts += [text for legend in figure.legends for text in legend.get_texts()]
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts if text.get_text() and text.get_visible()]
    return [
        (one, other)
        for (one, a), (other, b) in combinations(boxes, 2)
        if min(a.x1, b.x1) - max(a.x0, b.x0) > 1 and min(a.y1, b.y1) - max(a.y0, b.y0) > 1
    ]
