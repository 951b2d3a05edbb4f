"""What the bundled suite promises: real SAEs, an honest naive baseline, proven matchings."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from saematch import SAE, fold_thresholds, load_suite, match
from saematch.matching.strategies import factors
from saematch.types import part_weights

PAIRS = list(pairwise(range(12, 20)))


@pytest.fixture(scope="module")
def saes() -> dict[int, SAE]:
    return {sae.layer: sae for sae in load_suite("bundled:smollm2-135m")}


@pytest.mark.parametrize(("t", "u"), PAIRS)
def test_proven_optimal_and_scipy_agrees(saes: dict[int, SAE], t: int, u: int) -> None:
    found = match(saes[t], saes[u])
    assert found.gap is not None
    assert found.gap <= 1e-6
    weights = part_weights(("decoder", "encoder", "bias"))
    a, b = (
        factors(fold_thresholds(saes[x]), weights)[~saes[x].degenerate].double().numpy()
        for x in (t, u)
    )
    costs = cdist(a, b, "sqeuclidean")
    rows, columns = linear_sum_assignment(costs)
    total = found.cost[found.counted].sum()
    assert total == pytest.approx(costs[rows, columns].sum(), rel=1e-9)
    assert total == pytest.approx(found.summary()["total_cost"], rel=1e-12)


def test_folded_unfolded_naive_random(saes: dict[int, SAE]) -> None:
    """Decoder MSE over the live features of A: folded < unfolded but for the pair where most partners are
    degenerate, both well below naive, and naive is chance."""

    def mse(t: int, u: int, strategy: str, seed: int = 0) -> float:
        return match(saes[t], saes[u], strategy=strategy, seed=seed).summary()["mse_decoder"]

    for t, u in PAIRS:
        draws = [mse(t, u, "random", seed) for seed in range(20)]
        naive, folded, unfolded = (mse(t, u, s) for s in ("naive", "folded", "unfolded"))
        assert (folded < unfolded) == ((t, u) != (17, 18)), (t, u)
        assert max(folded, unfolded) < 0.9 * naive
        assert abs(naive - np.mean(draws)) < 6 * np.std(draws)


def test_sparsity_and_dead_features(saes: dict[int, SAE]) -> None:
    l0 = {}
    for layer, sae in saes.items():
        assert sae.firing is not None
        assert sae.firing.tokens >= 100_000
        assert float((sae.firing.counts == 0).double().mean()) <= 0.2
        l0[layer] = float(sae.firing.counts.sum()) / sae.firing.tokens
        assert 40 <= l0[layer] <= 70
    for t, u in PAIRS:
        assert abs(l0[u] - l0[t]) <= 0.2 * l0[t]


def test_saelens_opens_it(saes: dict[int, SAE]) -> None:
    import torch
    from sae_lens import SAE as SAELensSAE

    folder = Path(__file__).parents[1] / "src/saematch/bundled/smollm2-135m"
    x = torch.randn(16, 576, generator=torch.Generator().manual_seed(0)) * 4
    for layer, sae in saes.items():
        theirs = SAELensSAE.load_from_disk(folder / str(layer))
        with torch.no_grad():
            torch.testing.assert_close(sae.reconstruct(x), theirs(x), rtol=1e-4, atol=1e-3)


def test_fits_in_44_megabytes_and_its_descriptions_in_10() -> None:
    folder = Path(__file__).parents[1] / "src/saematch/bundled/smollm2-135m"
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    described = sum(size for path, size in sizes.items() if path.parent.name == "described")
    assert sum(sizes.values()) - described <= 44e6
    assert 0 < described <= 10e6


def test_seeds_differ_and_the_model_is_recorded(saes: dict[int, SAE]) -> None:
    seeds = [sae.metadata["seed"] for sae in saes.values()]
    assert len(set(seeds)) == len(seeds)
    assert len({sae.metadata["model_weights_sha256"] for sae in saes.values()}) == 1
    json.dumps([dict(sae.metadata) for sae in saes.values()])
