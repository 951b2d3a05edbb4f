"""What describing features costs, compared with the language model's own pass over the same text.

python benchmarks/describing.py --tokens 200000

Times everything that describing does, and, within it, the model's forward passes.  Prints a line of JSON.
"""

import argparse
import json
import time

from saematch import load_sae
from saematch.evaluation.collecting import on_device
from saematch.matching.match import folded
from saematch.models import Documents, LanguageModel, load_corpus, load_language_model
from saematch.semantics.descriptions.describing import ReadTexts, describe_features

CORPORA = ("web", "wiki", "code")


class Timed(LanguageModel):
    """Adds up the seconds that forward passes take."""

    seconds = 0.0

    def capture(self, token_ids, blocks):
        started = time.monotonic()
        streams = super().capture(token_ids, blocks)
        Timed.seconds += time.monotonic() - started
        return streams


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--suite", default="bundled:smollm2-135m")
    parser.add_argument("--layers", default="12,13,14,15,16,17,18,19")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--tokens", type=int, default=200_000)
    parser.add_argument("--document-tokens", type=int, default=1024)
    parser.add_argument("--batch-tokens", type=int, default=2048)
    parser.add_argument("--device", default=None)
    given = parser.parse_args()
    loaded = load_language_model(given.model, device=given.device)
    model = Timed(loaded.model, loaded.tokenizer, loaded.name)
    saes = {
        key: on_device(folded(load_sae(f"{given.suite}/{key}"), None), model.device).sae
        for key in given.layers.split(",")
    }
    share = -(-given.tokens // len(CORPORA))
    corpora = [load_corpus(name, 100, offline=True) for name in CORPORA]
    texts = ReadTexts.of(
        [Documents.of(one, model, given.document_tokens, 100).up_to(share) for one in corpora]
    )
    Timed.seconds = 0.0
    started = time.monotonic()
    found = describe_features(model, texts, saes, batch_tokens=given.batch_tokens)
    whole = time.monotonic() - started
    print(
        json.dumps(
            {
                "tokens": texts.documents.tokens,
                "layers": len(saes),
                "described": sum(len(one.typical) for one in found.values()),
                "model_seconds": round(Timed.seconds, 1),
                "seconds": round(whole, 1),
                "ratio": round(whole / Timed.seconds, 3),
            }
        )
    )


if __name__ == "__main__":
    main()
