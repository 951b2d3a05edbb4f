"""Laws of every picture: nothing over an edge, no text upon another, none too small."""

from itertools import combinations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text

from saematch.figures.captions import quiet_glyphs


def shown(figure: Figure) -> list[Text]:
    """Every text that is drawn."""
    beyond = set()  # ticks outside the limits are not drawn
    for ax in figure.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            beyond |= {
                id(tick.label1)
                for tick in axis.get_major_ticks()
                if not min(limits) <= tick.get_loc() <= max(limits)
            }
    return [
        text
        for text in figure.findobj(Text)
        if isinstance(text, Text)
        and text.get_visible()
        and text.get_text().strip()
        and id(text) not in beyond
        and not _switched_off(text)
    ]


def _switched_off(text: Text) -> bool:
    """It belongs to axes that are not drawn."""
    ax = text.axes
    return ax is not None and not ax.axison and text not in ax.texts


def drawn_on_canvas(figure: Figure) -> FigureCanvasAgg:
    canvas = FigureCanvasAgg(figure)
    with quiet_glyphs():
        canvas.draw()
    return canvas


def stays_inside(figure: Figure) -> None:
    """No text reaches over an edge, and none of the legend's, the axes' and the caption's overlaps."""
    renderer = drawn_on_canvas(figure).get_renderer()
    width, height = figure.get_size_inches() * figure.dpi
    for text in shown(figure):
        box = text.get_window_extent(renderer)
        assert box.x0 >= -1, text
        assert box.x1 <= width + 1, text
        assert box.y0 >= -1, text
        assert box.y1 <= height + 1, text
    words = next(text for text in figure.texts if text.get_gid() == "caption")
    below = words.get_window_extent(renderer)
    for ax in figure.axes:
        if ax.axison:
            assert ax.get_tightbbox(renderer).y0 >= below.y1 - 1, ax
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert box.y0 >= below.y1 - 1
        assert all(ax.get_tightbbox(renderer).y0 >= box.y1 - 1 for ax in figure.axes)


def stays_apart(figure: Figure) -> None:
    """No text lies upon another; slanted ones are not looked at, whose boxes overlap where they do not."""
    renderer = drawn_on_canvas(figure).get_renderer()
    boxes = [
        (text, text.get_window_extent(renderer).padded(-1))
        for text in shown(figure)
        if text.get_rotation() in (0, 90)
    ]
    for (one, box), (other, its) in combinations(boxes, 2):
        assert not box.overlaps(its), (one, other)
