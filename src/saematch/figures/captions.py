"""What stands under a figure: which texts, how many, what was not measured.

A caption is part of the figure, so that a picture that is passed on alone still says what it shows.
Text of strangers (names of corpora, descriptions) passes through `plain`, and is drawn with
`parse_math=False`, or, in labels, passes through `label`: no formula is read from it.
"""

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.textpath import text_to_path

from saematch.matching.matchers import is_matcher, matcher

CAPTION_SIZE = 7.5
LINE = 1.35
"""Height of a line of text over its size."""
MARGIN = 8.0
"""Points around a caption."""
FREE = 0.04
"""Inches left free at a figure's other edges."""
CAPTION = "caption"
_OPEN = re.compile(r"""['"](?:\\[nrt])*""")
"""A quoted token that begins with a blank or a line break, up to it."""
NAMED = 12
"""What was not measured is named up to so many things."""
SLACK = 0.97
"""Share of a width that text is wrapped to: screens round the widths of letters, each in its way."""


def caption(figure: Figure, title: str, *sentences: str) -> Figure:
    """Put a caption under a finished figure, which grows by its height; `title`: for SVG readers."""
    text = plain(" ".join(sentence for sentence in sentences if sentence))
    width, height = figure.get_size_inches()
    lines = wrap(text, width * 72 - 2 * MARGIN, CAPTION_SIZE)
    band = (len(lines) * CAPTION_SIZE * LINE + 2 * MARGIN) / 72
    share = band / (height + band)
    figure.set_size_inches(width, height + band)
    engine = figure.get_layout_engine()
    if engine is not None:
        beside, above = FREE / width, FREE / (height + band)
        rect = (beside, share, 1 - 2 * beside, 1 - share - above)
        engine.set(rect=rect)  # pyright: ignore[reportCallIssue]
    else:
        for ax in figure.axes:
            x, y, w, h = ax.get_position().bounds
            ax.set_position((x, share + y * (1 - share), w, h * (1 - share)))
    for legend in figure.legends:
        # Its place is the figure's lower edge; the layout makes room for it as long as it has no anchor.
        legend.borderaxespad = (band * 72) / legend.prop.get_size_in_points()
    figure.text(
        MARGIN / 72 / width, (band - MARGIN / 72) / (height + band), "\n".join(lines),
        va="top", ha="left", fontsize=CAPTION_SIZE, linespacing=LINE, color="#333333", gid=CAPTION,
        parse_math=False,
    )  # fmt: skip
    figure.set_label(title)
    return figure


def caption_of(figure: Figure) -> tuple[str, str]:
    """Title and caption of a figure; '' where it has none."""
    found = [text.get_text() for text in figure.texts if text.get_gid() == CAPTION]
    return str(figure.get_label()), " ".join(found).replace("\n", " ")


def not_measured(missing: Mapping[str, Sequence[str]], of: int) -> str:
    """The sentence that names what has no value; '' where all have one.

    `missing`: by what is drawn (a strategy, a corpus), the places without a value, such as layer pairs;
    `of`: how many places there are.
    """
    lists = list(missing.values())
    nowhere = [
        place for place in dict.fromkeys(chain(*lists)) if all(place in one for one in lists)
    ]
    said = [_names(nowhere)] if nowhere else []
    for what, places in missing.items():
        rest = [place for place in places if place not in nowhere]
        if rest:
            said.append(what if len(places) == of else f"{what} for {_names(rest)}")
    more = f"; and {len(said) - NAMED} more" if len(said) > NAMED else ""
    return f"Not measured: {'; '.join(said[:NAMED])}{more}." if said else ""


def shared_partners(strategies: Iterable[str]) -> str:
    """The sentence that names the strategies that are not one-to-one; '' where all are."""
    shared = [name for name in strategies if is_matcher(name) and not matcher(name).one_to_one]
    return f"{', '.join(shared)}: several features may share a partner." if shared else ""


def _names(places: Sequence[str]) -> str:
    more = f" and {len(places) - NAMED} more" if len(places) > NAMED else ""
    return ", ".join(places[:NAMED]) + more


def plain(text: str) -> str:
    """Text as it is to be shown: one line, no control characters."""
    shown = "".join(sign if sign.isprintable() else " " for sign in text)
    return " ".join(shown.split())


def label(text: str) -> str:
    """Plain text for an axis, a title or a legend, where a dollar sign would begin a formula."""
    return plain(text).replace("$", r"\$")


def write_lines(ax: Axes, x: float, y: float, lines: Sequence[str], size: float) -> float:
    """Lines of a stranger's text below each other, the first on the baseline `y`; returns the baseline
    that follows.  `ax`: in inches, downwards.

    One by one: within one text signs that are taller than others would push lines apart.
    """
    for line in lines:
        ax.text(x, y, line, fontsize=size, parse_math=False)
        y += size * LINE / 72
    return y


def signed(value: float, form: str = ".2f") -> str:
    """A number with the minus sign that axes have."""
    return format(value, form).replace("-", "−")


def wrap(text: str, width: float, size: float, lines: int | None = None) -> list[str]:
    """Text in lines of at most `width` points at this size; cut with … after so many lines, at the end
    of a word.

    A word that is too long for a line is broken; a quoted token that begins with a blank is not.
    """
    done: list[str] = []
    line = ""
    for word in _pieces(_words(text), SLACK * width, size):
        longer = f"{line} {word}" if line else word
        if line and text_width(longer, size) > SLACK * width:
            done.append(line)
            line = word
        else:
            line = longer
    done.append(line)
    if lines is not None and len(done) > lines:
        done = done[:lines]
        last = done[-1]
        while last and text_width(f"{last}…", size) > SLACK * width:
            *before, _ = _words(last)
            last = " ".join(before) or last[:-1]
        done[-1] = f"{last.rstrip(' ,;:.')}…"
    return done


def lacking(texts: Iterable[str]) -> str:
    """The sentence that says that signs of a text are not in the font; '' where all are."""
    known = get_font(findfont(FontProperties())).get_charmap()
    if all(ord(sign) in known for text in texts for sign in text if not sign.isspace()):
        return ""
    return "Signs that the font lacks are boxes here; the SVG file keeps them."


def text_width(text: str, size: float) -> float:
    """Width in points of one line of text."""
    with quiet_glyphs():
        font = FontProperties(size=size)
        return text_to_path.get_text_width_height_descent(text, font, False)[0]


@contextmanager
def quiet_glyphs() -> Iterator[None]:
    """Signs that the font lacks are drawn as boxes, without a warning for each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph")
        yield


def _words(text: str) -> Iterator[str]:
    """Between blanks, but `' token'` and `'\\n '` of lists of tokens are one word."""
    held = ""
    for word in text.split():
        held = f"{held} {word}" if held else word
        if not _OPEN.fullmatch(held):
            yield held
            held = ""
    if held:
        yield held


def _pieces(words: Iterable[str], width: float, size: float) -> Iterator[str]:
    for word in words:
        while len(word) > 1 and text_width(word, size) > width:
            fits = max(1, int(len(word) * width / text_width(word, size)))
            while fits > 1 and text_width(word[:fits], size) > width:
                fits -= 1
            yield word[:fits]
            word = word[fits:]
        yield word
