"""Whether the Hub answers, asked with little patience, so that nothing waits through a wall of retries."""

import os
import threading
import time

REACH_SECONDS = 3.0
"""How long to wait for the Hub before it counts as out of reach."""
AGAIN_SECONDS = 30.0
"""How long one answer stands."""
_last: tuple[float, str, bool] | None = None


def hub_is_reachable() -> bool:
    """Whether the Hub (or what `$HF_ENDPOINT` names) answers at all, whatever it says.

    False at once with `$HF_HUB_OFFLINE`; else after `REACH_SECONDS` at the latest.
    """
    global _last
    if os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on"):
        return False
    try:
        from huggingface_hub import constants
    except ImportError:
        return False
    if constants.HF_HUB_OFFLINE:
        return False
    endpoint = constants.ENDPOINT
    if _last is None or _last[1] != endpoint or time.monotonic() - _last[0] > AGAIN_SECONDS:
        _last = time.monotonic(), endpoint, _answers(endpoint)
    return _last[2]


def give_up() -> None:
    """Count the Hub as out of reach for `AGAIN_SECONDS`: it answered, and then hung."""
    global _last
    from huggingface_hub import constants

    _last = time.monotonic(), constants.ENDPOINT, False


def _answers(endpoint: str) -> bool:
    import huggingface_hub

    found: list[bool] = []

    def ask() -> None:
        try:
            huggingface_hub.get_session().head(endpoint, timeout=REACH_SECONDS)
        except Exception:
            return
        found.append(True)

    # In a thread of its own: timeouts of a socket bound neither name lookup nor several addresses together.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(REACH_SECONDS)
    return bool(found)
