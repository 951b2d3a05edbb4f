"""The page's own files, as packaged: a fixed list, read once."""

from functools import cache
from importlib.resources import files

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
INDEX = "index.html"


@cache
def page_files() -> dict[str, bytes]:
    """Every file by its name; nothing else can be asked for."""
    folder = files("saematch.explorer") / "static"
    return {
        entry.name: entry.read_bytes()
        for entry in folder.iterdir()
        if entry.is_file() and f".{entry.name.rpartition('.')[2]}" in TYPES
    }


def type_of(name: str) -> str:
    """The media type of one of them."""
    return TYPES[f".{name.rpartition('.')[2]}"]
