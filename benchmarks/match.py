"""`saematch.match` of whole SAEs, all three parts: seconds, ratio to one product, memory.

python benchmarks/match.py --d-sae 16384 --d-model 2304
"""

import argparse
import json
import resource
import time

import torch
from problems import product_seconds

import saematch as sm
from saematch.matching.strategies import factors
from saematch.types import part_weights


def sae(d_sae: int, d_model: int, seed: int, like: sm.SAE | None = None) -> sm.SAE:
    """A JumpReLU SAE; 65% of its features are noisy copies of those of `like`, relabelled."""
    generator = torch.Generator().manual_seed(seed)
    W_dec = torch.nn.functional.normalize(torch.randn(d_sae, d_model, generator=generator))
    threshold = 0.5 + torch.rand(d_sae, generator=generator)
    if like is not None:
        order = torch.randperm(d_sae, generator=generator)
        kept = order[: int(0.65 * d_sae)]
        W_dec[kept] = torch.nn.functional.normalize(like.W_dec[: len(kept)] + 0.5 * W_dec[kept])
        threshold[kept] = like.threshold[: len(kept)]
    return sm.SAE(
        W_dec.T.contiguous(), torch.zeros(d_sae), W_dec, torch.zeros(d_model), "jumprelu", threshold
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--d-sae", type=int, default=2304)
    parser.add_argument("--d-model", type=int, default=576)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    a = sae(arguments.d_sae, arguments.d_model, 0)
    b = sae(arguments.d_sae, arguments.d_model, 1, like=a)
    warm = sae(64, 8, 2)
    sm.match(warm, warm)
    inputs = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    weights = part_weights(("decoder", "encoder", "bias"))
    for _ in range(arguments.repeats):
        folded = [factors(sm.fold_thresholds(x), weights) for x in (a, b)]
        product = product_seconds(*folded)
        del folded
        started = time.perf_counter()
        found = sm.match(a, b)
        seconds = time.perf_counter() - started
        assert found.assignment is not None
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        line = {
            "seconds": round(seconds, 3),
            "product": round(product, 3),
            "ratio": round(seconds / product, 3),
            "peak_gib": round(peak / 2**20, 2),
            "over_inputs_gib": round((peak - inputs) / 2**20, 2),
            "gap": found.gap,
            "solver": found.assignment.solver,
            "parts": {name: round(value, 3) for name, value in found.assignment.seconds.items()},
        }
        print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
