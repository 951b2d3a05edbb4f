"""A figure as the bytes of a file: the same figure gives the same bytes."""

import hashlib
import io
import re
from html import escape

from matplotlib.figure import Figure

from saematch.figures.captions import caption_of, quiet_glyphs

PIXELS_PER_INCH = 150
_ID = re.compile(r'(?<=id=")[A-Za-z]([0-9a-f]{10})(?=")')
"""Id of a clip path, a marker or a hatch: matplotlib hashes its geometry."""


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element, its title and caption as <title> and <desc>.

    Text stays text: it can be searched, read aloud and copied.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "saematch", "svg.fonttype": "none"}), quiet_glyphs():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = _renamed(text[text.index("<svg") :])
    title, words = caption_of(figure)
    if not title:
        return text
    tag, _, rest = text.partition(">")
    about = f"<title>{escape(title)}</title>\n <desc>{escape(words)}</desc>"
    return f'{tag} role="img">\n {about}{rest}'


def _renamed(text: str) -> str:
    """Ids by what the figure shows, and by their order in it.

    matplotlib's come from unrounded coordinates, whose last bits the layout does not repeat; ids of
    several figures on one page must still differ.
    """
    old = list(dict.fromkeys(match[0] for match in _ID.finditer(text)))
    for number, one in enumerate(old):
        text = text.replace(one, f"\0{number}\0")  # what no text of a figure holds
    digest = hashlib.sha256(text.encode()).hexdigest()[:10]
    for number, one in enumerate(old):
        text = text.replace(f"\0{number}\0", f"{one[0]}{digest}-{number}")
    return text


def to_png(figure: Figure, pixels_per_inch: int = PIXELS_PER_INCH) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with quiet_glyphs():
        figure.savefig(buffer, format="png", dpi=pixels_per_inch, metadata={"Software": None})
    return buffer.getvalue()
