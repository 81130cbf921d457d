"""Packing: the sequences of a training step into minibatches, ranks and micro-batches.

`pack` is the whole path; the simulated and the real trainer both call it. The parts are usable
alone: `algorithm_1` (the paper's), `first_fit_decreasing` and `padded_static` fill micro-batches,
`karmarkar_karp` and `longest_processing_time` balance ranks. All are pure and deterministic: ties
are settled by position, and nothing depends on hashing or on the clock.
"""

from areal_sched.packing.checks import OversizedSequence, PackingError
from areal_sched.packing.micro_batches import (
    Packer,
    algorithm_1,
    first_fit_decreasing,
    padded_static,
    padded_tokens,
)
from areal_sched.packing.ranks import Balancer, karmarkar_karp, longest_processing_time
from areal_sched.packing.step import PackedStep, pack, pack_equally

__all__ = [
    "Balancer",
    "OversizedSequence",
    "PackedStep",
    "Packer",
    "PackingError",
    "algorithm_1",
    "first_fit_decreasing",
    "karmarkar_karp",
    "longest_processing_time",
    "pack",
    "pack_equally",
    "padded_static",
    "padded_tokens",
]
