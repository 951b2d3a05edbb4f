"""Where what can be made or downloaded again is kept between commands."""

import os
from pathlib import Path

from saematch._io.files import user_path


def cache_directory() -> Path:
    """The folder for converted models, downloads and indexes: `$SAEMATCH_CACHE`, else
    `~/.cache/saematch`."""
    configured = os.environ.get("SAEMATCH_CACHE")
    return user_path(configured) if configured else Path.home() / ".cache" / "saematch"
