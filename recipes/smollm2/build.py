"""One command from a corpus to a suite of SAEs; see README.md next to this file.

python recipes/smollm2/build.py --corpus mixture.jsonl.gz --work work
"""

import argparse
import dataclasses
import json
import typing
from pathlib import Path

from activations import collect
from card import card
from export import export
from jobs import jobs
from measure import measure
from saematch import load_sae
from settings import Settings
from train import train_all


def parse() -> Settings:
    parser = argparse.ArgumentParser(description=__doc__)
    for field in dataclasses.fields(Settings):
        flag = "--" + field.name.replace("_", "-")
        if field.name == "group_weights":
            parser.add_argument(flag, nargs="*", default=None, metavar="GROUP=WEIGHT")
        elif typing.get_origin(field.type) is tuple:
            kind = typing.get_args(field.type)[0]
            parser.add_argument(flag, nargs="*", type=kind, default=field.default)
        else:
            parser.add_argument(flag, type=field.type, default=field.default)  # type: ignore[arg-type]
    values = vars(parser.parse_args())
    for name, value in values.items():
        if name == "group_weights":
            given = [pair.split("=") for pair in value or []]
            values[name] = (
                tuple((group, float(weight)) for group, weight in given)
                if value is not None
                else Settings.group_weights
            )
        elif isinstance(value, list):
            values[name] = tuple(value)
    return Settings(**values)


def export_and_measure(settings: Settings) -> None:
    """Write every trained SAE the way it ships, the measurements and the model card."""
    work = Path(settings.work)
    suite = Path(settings.export_suite) if settings.export_suite else work / "export"
    exported = {}
    for job in jobs(settings):
        shipped = job.name in {str(block) for block in settings.blocks}
        exported[job] = (suite if shipped else work / "export") / job.name
        export(settings, job, exported[job])
    first = load_sae(str(exported[jobs(settings)[0]]))
    measured = {
        "model_name": first.model_name,
        "model_weights_sha256": first.metadata["model_weights_sha256"],
        "d_model": first.d_model,
        "collected": json.loads((work / "activations/complete.json").read_text()),
        "saes": measure(settings, exported),
        "machine": settings.machine,
    }
    (work / "measurements.json").write_text(json.dumps(measured, indent=1) + "\n")
    if settings.blocks:  # the card is the suite's
        (work / "card.md").write_text(card(settings, measured))


def main() -> None:
    settings = parse()
    Path(settings.work).mkdir(parents=True, exist_ok=True)
    settings.save(Path(settings.work) / "settings.json")
    collect(settings)
    train_all(settings)
    export_and_measure(settings)


if __name__ == "__main__":
    main()
