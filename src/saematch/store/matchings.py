"""A Matching as a table of the run directory, and back."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from saematch.matching.matched import Matching, Side
from saematch.store.schema import MATCHINGS, decode


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


def matching_columns(matching: Matching) -> dict[str, np.ndarray]:
    """The columns of a matching's table."""
    frame = matching.to_frame()
    return {name: frame[name].to_numpy() for name in MATCHINGS.names}


def kept_matching(data: bytes) -> KeptMatching:
    """The Matching of a table's bytes.  `mse_bias`, which tables do not keep, is NaN."""
    table, details = decode(data)
    columns = {name: table[name].to_pandas().to_numpy() for name in table.column_names}
    status_b = np.full(details["d_b"], "live", dtype=object)
    for kind, features in details["not_live_b"].items():
        status_b[features] = kind
    status_a = columns["status"].astype(object)
    price = details["unmatched_cost"]
    return KeptMatching(
        a=Side(details["layer_a"], details["a"], "", details["d_a"], status_a),
        b=Side(details["layer_b"], details["b"], "", details["d_b"], status_b),
        d_model=details["d_model"],
        strategy=details["strategy"],
        parts=details["parts"],
        scale=details["scale"],
        permutation=columns["partner"],
        cost=columns["cost"],
        mse_decoder=columns["mse_decoder"],
        mse_encoder=columns["mse_encoder"],
        mse_bias=np.full(details["d_a"], np.nan),
        cosine=columns["cosine"],
        margin=columns["margin"],
        assignment=None,
        notes=tuple(details["notes"]),
        unmatched_cost=np.array(price) if isinstance(price, list) else price,
        degenerate=details["degenerate"],
        kept_certain=columns["certain"],
        kept_proof=details["proof"],
    )
