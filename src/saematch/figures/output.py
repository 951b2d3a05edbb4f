"""A figure as the bytes of a file: the same figure gives the same bytes."""

import io
from html import escape

from matplotlib.figure import Figure

from saematch.figures.captions import caption_of, quiet_glyphs

PIXELS_PER_INCH = 150


def to_svg(figure: Figure) -> str:
    """The figure as an <svg> element, its title and caption as <title> and <desc>.

    Text stays text: it can be searched, read aloud and copied.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "saematch", "svg.fonttype": "none"}), quiet_glyphs():
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    title, words = caption_of(figure)
    if not title:
        return text
    tag, _, rest = text.partition(">")
    about = f"<title>{escape(title)}</title>\n <desc>{escape(words)}</desc>"
    return f'{tag} role="img">\n {about}{rest}'


def to_png(figure: Figure, pixels_per_inch: int = PIXELS_PER_INCH) -> bytes:
    """The figure as a PNG file."""
    buffer = io.BytesIO()
    with quiet_glyphs():
        figure.savefig(buffer, format="png", dpi=pixels_per_inch, metadata={"Software": None})
    return buffer.getvalue()
