"""The fixtures of runs."""

from run_fixtures import (  # noqa: F401
    _memory,
    _nothing_loaded,
    _quick,
    chain_of_four,
    described_model,
    described_run,
    memory,
    plain_report,
    quick_folder,
    suite,
)
