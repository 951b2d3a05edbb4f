"""What an evaluation costs, compared with its bound: one full pass, and the suffix of every intervention.

python benchmarks/evaluation.py --pairs 12,13 13,14 --documents 4 --tokens 256

Counts block executions (no prefix may run twice) and times `collect` against the model's own passes,
alternating between the two.  Prints a line of JSON.
"""

import argparse
import json
import statistics
import time

import torch

from saematch import fold_thresholds, load_sae, match
from saematch.evaluation.collecting import PairInputs, collect, conditions_of, on_device
from saematch.matching.matchers import matcher, usual_in_runs
from saematch.models import Documents, batches, decoder_blocks, load_corpus, load_language_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bundled:smollm2-135m")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--pairs", nargs="+", default=["12,13", "13,14"])
    parser.add_argument("--documents", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--device", default=None)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    model = load_language_model(arguments.model, device=arguments.device)
    corpus = load_corpus("web", arguments.documents, offline=True)
    documents = Documents.of(corpus, model, arguments.tokens, arguments.documents)
    pairs = [tuple(text.split(",")) for text in arguments.pairs]
    folded = {
        key: on_device(fold_thresholds(load_sae(f"{arguments.suite}/{key}")), model.device)
        for pair in pairs
        for key in pair
    }
    saes = {key: one.sae for key, one in folded.items()}
    conditions = {}
    for a, b in pairs:
        ends = folded[a], folded[b]
        matchings = {
            name: match(*ends, strategy=name)
            for name in usual_in_runs()
            if not matcher(name).seeded
        }
        conditions[a, b] = conditions_of(
            PairInputs(*ends, "all", matchings), drawn=["random"], draws=20
        )
    ran = [0]
    for block in decoder_blocks(model.model):
        block.self_attn.register_forward_hook(lambda *_: ran.__setitem__(0, ran[0] + 1))
    cut = list(batches(documents, arguments.batch_tokens, range(len(documents))))
    suffixes = [
        (saes[pair[1]].layer, sum(condition.loss for condition in some))
        for pair, some in conditions.items()
    ]
    expected = len(cut) * (
        model.n_blocks + sum(count * (model.n_blocks - block - 1) for block, count in suffixes)
    )

    def bound() -> float:
        seconds = 0.0
        for batch in cut:
            started = time.perf_counter()
            streams, _ = model.capture_and_predict(
                batch.token_ids, [block for block, _ in suffixes]
            )
            seconds += time.perf_counter() - started
            for block, count in suffixes:
                started = time.perf_counter()
                model.predict_from(batch.token_ids, block, streams[block])
                if model.device.type == "cuda":
                    torch.cuda.synchronize()
                seconds += count * (time.perf_counter() - started)
        return seconds

    bound()
    ratios, measured = [], []
    for _ in range(arguments.repeats):
        least = bound()
        ran[0] = 0
        started = time.perf_counter()
        list(collect(model, documents, saes, conditions, arguments.batch_tokens))
        measured.append(time.perf_counter() - started)
        assert ran[0] == expected, (ran[0], expected)
        ratios.append(measured[-1] / least)
    result = {
        "tokens": documents.tokens,
        "interventions": sum(count for _, count in suffixes),
        "block_executions": ran[0],
        "seconds": statistics.median(measured),
        "over_bound": statistics.median(ratios),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
