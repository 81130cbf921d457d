"""Cost models: how long things take, behind one protocol (`CostProvider`).

`Roofline` is analytic, `FittedCosts` reads coefficients from a file, `TableCosts` fits the decode
coefficients to a measured table.
"""

from .constants import FactorInfo, Factors
from .fitted import FittedCosts
from .pipeline import train_ranks_s
from .protocol import (
    CostProvider,
    ServerCost,
    TrainerCost,
    decode_time_fs,
    prefill_time_fs,
    steps_within_fs,
)
from .roofline import Roofline
from .tables import DecodeFit, TableCosts

__all__ = [
    "CostProvider",
    "DecodeFit",
    "FactorInfo",
    "Factors",
    "FittedCosts",
    "Roofline",
    "ServerCost",
    "TableCosts",
    "TrainerCost",
    "decode_time_fs",
    "prefill_time_fs",
    "steps_within_fs",
    "train_ranks_s",
]
