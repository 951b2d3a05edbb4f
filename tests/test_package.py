"""`import saematch` is cheap, and serves what it says."""

import subprocess
import sys

import pytest

import saematch


def test_importing_imports_nothing_heavy() -> None:
    code = "import sys, saematch; print(*sorted({m.split('.')[0] for m in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    loaded = done.stdout.split()
    assert "saematch" in loaded
    assert not {"torch", "numpy", "pandas", "scipy", "jaxtyping", "typer"} & set(loaded)


@pytest.mark.parametrize("name", saematch.__all__)
def test_every_name_is_there(name: str) -> None:
    served = getattr(saematch, name)
    assert served.__name__ == name
    assert served.__module__.startswith("saematch.")


def test_all_is_what_is_served() -> None:
    assert sorted(saematch.__all__) == sorted(saematch._HOME_OF)
    assert len(set(saematch.__all__)) == len(saematch.__all__)
    assert dir(saematch) == sorted([*saematch.__all__, "__version__"])


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'unfold'"):
        _ = saematch.unfold
    assert not hasattr(saematch, "torch")
