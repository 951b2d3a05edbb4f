"""A Matching as tables of the run directory, and back.

A table of matchings has one row per feature, with its strongest partner.  Where features have several
partners, or one of another weight than 1, a table of correspondences has them all; the matching's table names
its sha256, so that whatever is made from the one is made from the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from saematch.matching.correspondence import Correspondence
from saematch.matching.matched import Matching, Side
from saematch.store.directory import KeptFile
from saematch.store.names import correspondence_name
from saematch.store.schema import CORRESPONDENCES, MATCHINGS
from saematch.types import parts_slug

SHA256 = "correspondence"
"""Among a matching's details: the sha256 of the table with all its partners; absent where it has none."""


@dataclass(frozen=True, eq=False)
class KeptMatching(Matching):
    """A Matching read back from its table, which keeps what its proof said but not the duals."""

    kept_certain: np.ndarray | None = None
    kept_proof: Mapping[str, Any] | None = None

    @property
    def gap(self) -> float | None:
        """Relative distance from the proven lower bound; None where nothing was solved."""
        return None if self.kept_proof is None else self.kept_proof["gap"]

    @property
    def slack(self) -> float | None:
        """Absolute distance from the proven lower bound."""
        return None if self.kept_proof is None else self.kept_proof["slack"]

    @property
    def certain(self) -> np.ndarray:
        """[d_a] bool: pairs that every optimal matching contains."""
        assert self.kept_certain is not None
        return self.kept_certain


def details_of(found: Matching) -> dict[str, Any]:
    """The metadata of a matching's table, its proof among it (docs/run-directory.md)."""
    proof, rest, price = found.assignment, found.without_degenerate, found.unmatched_cost
    return {
        "a": found.a.key,
        "b": found.b.key,
        "layer_a": found.a.layer,
        "layer_b": found.b.layer,
        "d_a": found.a.d_sae,
        "d_b": found.b.d_sae,
        **{
            name: getattr(found, name)
            for name in ("d_model", "strategy", "scale", "shares", "notes", "degenerate")
        },
        "parts": dict(found.parts),
        "unmatched_cost": None if price is None else np.asarray(price).tolist(),
        "not_live_b": {
            kind: np.flatnonzero(found.b.status == kind).tolist() for kind in ("dead", "degenerate")
        },
        "proof": None
        if proof is None
        else {
            "gap": found.gap,
            "primal": proof.primal,
            "dual": proof.dual,
            "slack": proof.slack,
            "solver": proof.solver,
            "gap_without_degenerate": rest and rest.gap,
            "slack_without_degenerate": rest and rest.slack,
        },
    }


def encode_matching(
    found: Matching, details: Mapping[str, Any] = {}, partners: KeptFile | None = None
) -> bytes:
    """The table of a matching, with `details_of` it; `partners`: the table of all its partners."""
    about = {} if partners is None else {SHA256: partners.sha256}
    frame = found.to_frame()
    columns = {name: frame[name].to_numpy() for name in MATCHINGS.names}
    return MATCHINGS.encode(columns, {**details_of(found), **about, **details})


def kept_matching(file: KeptFile) -> KeptMatching:
    """The Matching of a table, with all partners of its features.  `mse_bias`, which tables do not keep, is
    NaN."""
    table, details = file.table()
    columns = {name: table[name].to_pandas().to_numpy() for name in table.column_names}
    status_b = np.full(details["d_b"], "live", dtype=object)
    for kind, features in details["not_live_b"].items():
        status_b[features] = kind
    status_a = columns["status"].astype(object)
    price = details["unmatched_cost"]
    found, pair_cosine = _correspondence(file, columns["partner"], columns["cosine"], details)
    return KeptMatching(
        a=Side(details["layer_a"], details["a"], "", details["d_a"], status_a),
        b=Side(details["layer_b"], details["b"], "", details["d_b"], status_b),
        d_model=details["d_model"],
        strategy=details["strategy"],
        parts=details["parts"],
        scale=details["scale"],
        correspondence=found,
        cost=columns["cost"],
        mse_decoder=columns["mse_decoder"],
        mse_encoder=columns["mse_encoder"],
        mse_bias=np.full(details["d_a"], np.nan),
        cosine=columns["cosine"],
        pair_cosine=pair_cosine,
        unexplained=columns["unexplained"],
        margin=columns["margin"],
        assignment=None,
        notes=tuple(details["notes"]),
        unmatched_cost=np.array(price) if isinstance(price, list) else price,
        degenerate=details["degenerate"],
        kept_certain=columns["certain"],
        kept_proof=details["proof"],
    )


def encode_correspondence(matching: Matching, details: Mapping[str, Any] = {}) -> bytes:
    """The table of all partners."""
    frame = matching.correspondence.to_frame().assign(cosine=matching.pair_cosine)
    sizes = {"d_a": matching.a.d_sae, "d_b": matching.b.d_sae}
    columns = {name: frame[name].to_numpy() for name in CORRESPONDENCES.names}
    return CORRESPONDENCES.encode(columns, {**details, **sizes})


def kept_correspondence(file: KeptFile) -> tuple[Correspondence, np.ndarray, dict[str, Any]]:
    """The map in such a table, the cosine of each pair, and the metadata."""
    table, details = file.table()
    features, partners, weights, cosines = (
        table[name].to_numpy() for name in ("feature", "partner", "weight", "cosine")
    )
    found = Correspondence.of_pairs(features, partners, weights, details["d_a"], details["d_b"])
    return found, cosines, details


def _correspondence(
    file: KeptFile, partners: np.ndarray, cosine: np.ndarray, details: Mapping[str, Any]
) -> tuple[Correspondence, np.ndarray]:
    if SHA256 not in details:
        found = Correspondence.of_permutation(partners, details["d_b"])
        return found, cosine[found.features]
    slug = parts_slug(details["parts"])
    name = correspondence_name(details["a"], details["b"], details["strategy"], slug)
    root = file.path.parents[len(PurePosixPath(file.name).parts) - 1]
    return kept_correspondence(KeptFile(name, root / name, details[SHA256]))[:2]
