"""Numbers that the AReaL paper published (arXiv 2505.24298), as they are printed there.

Traps, so that nobody compares what cannot be compared:

- "2.77x" is AReaL against its own synchronous variant, not against verl.
- Figure 4's tokens/s are several times below what Table 1 of the same paper implies (the tokens of
  a PPO minibatch divided by the time of a whole step would explain a factor of 4). Its ratios and
  its shape can be used. They were read off the vector plot, within 0.7 %.
- verl's hours were estimated by the authors from measured throughput.
- Table 2's naive row at eta 4 is one seed, far below its neighbours on both sides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SOURCE = "arXiv 2505.24298"

System = Literal["verl", "sync", "areal"]
SYSTEMS: tuple[System, ...] = ("verl", "sync", "areal")
LABELS: dict[System, str] = {"verl": "verl", "sync": "sync.AReaL", "areal": "AReaL"}
"""How the paper writes them."""

Task = Literal["math", "code"]


@dataclass(frozen=True, slots=True)
class Row:
    """One row of Table 1: a model, and the hours of three systems for the same steps."""

    model: str
    task: Task
    nodes: int
    steps: int
    hours: dict[System, float]

    def step_s(self, system: System) -> float:
        """Published seconds of a training step."""
        return self.hours[system] * 3600 / self.steps


TABLE_1: tuple[Row, ...] = (
    Row("1.5b", "math", 16, 250, {"verl": 33.6, "sync": 41.0, "areal": 14.8}),
    Row("7b", "math", 24, 250, {"verl": 52.1, "sync": 57.7, "areal": 25.4}),
    Row("14b", "code", 32, 80, {"verl": 44.4, "sync": 48.8, "areal": 21.9}),
    Row("32b", "code", 48, 60, {"verl": 46.4, "sync": 51.1, "areal": 31.1}),
)

FIGURE_4: dict[tuple[str, int, System], dict[int, float | None]] = {
    # (model, context tokens, system): GPUs: kilotokens/s as plotted; None: out of memory.
    ("1.5b", 16_384, "areal"): {32: 29.2, 64: 55.3, 128: 100.6, 256: 146.0},
    ("1.5b", 16_384, "verl"): {32: 29.4, 64: 45.9, 128: 59.4, 256: 77.2},
    ("1.5b", 32_768, "areal"): {32: 30.2, 64: 55.2, 128: 101.5, 256: 150.8},
    ("1.5b", 32_768, "verl"): {32: 26.5, 64: 39.2, 128: 43.1, 256: 58.7},
    ("7b", 16_384, "areal"): {64: 18.5, 128: 36.1, 256: 63.4, 512: 90.5},
    ("7b", 16_384, "verl"): {64: 21.9, 128: 33.5, 256: 48.0, 512: 61.1},
    ("7b", 32_768, "areal"): {64: 19.6, 128: 34.2, 256: 62.1, 512: 86.2},
    ("7b", 32_768, "verl"): {64: 19.2, 128: 26.2, 256: 33.9, 512: 37.7},
    ("32b", 16_384, "areal"): {256: 18.4, 512: 35.4},
    ("32b", 16_384, "verl"): {256: 11.6, 512: 18.5},
    ("32b", 32_768, "areal"): {256: 18.4, 512: 34.0},
    ("32b", 32_768, "verl"): {256: None, 512: None},
}


@dataclass(frozen=True, slots=True)
class Packing:
    """Figure 6a: TFLOP/s per GPU of a trainer, with dynamic and with static micro-batches."""

    model: str
    nodes: int
    dynamic: float
    static: float

    @property
    def gain(self) -> float:
        """Throughput with dynamic over that with static micro-batches."""
        return self.dynamic / self.static


FIGURE_6A: tuple[Packing, ...] = (
    Packing("1.5b", 1, 427.4, 404.4),  # the figure says "1B"; the paper has no smaller model
    Packing("7b", 2, 454.7, 303.1),
    Packing("32b", 8, 387.7, 283.0),
)

FIGURE_6A_STATIC_MICRO_BATCHES = 32
"""The static baseline's setting, in the text beside Figure 6a."""

FIGURE_6B: dict[str, float] = {"1.5b": 1.12, "7b": 1.17}
"""Generation throughput, interruptible over not interruptible, on 4 nodes."""
FIGURE_6B_NODES = 4

TABLE_2: dict[tuple[int | None, str], tuple[float, float, float, float]] = {
    # (eta, objective): AIME24, AIME25, AMC23, MATH500. None is an unbounded eta; at eta 0 both
    # objectives are the same.
    (0, "either"): (42.0, 32.9, 84.4, 89.2),
    (1, "naive"): (41.8, 30.7, 83.3, 89.9),
    (1, "decoupled"): (42.1, 31.9, 85.2, 89.8),
    (2, "naive"): (40.0, 32.1, 82.3, 89.6),
    (2, "decoupled"): (41.8, 32.5, 84.3, 89.6),
    (4, "naive"): (23.3, 23.1, 58.5, 66.9),
    (4, "decoupled"): (42.2, 32.0, 85.1, 89.5),
    (8, "naive"): (35.7, 27.8, 81.2, 87.8),
    (8, "decoupled"): (41.0, 31.1, 82.9, 89.2),
    (16, "naive"): (35.8, 26.2, 78.4, 87.4),
    (16, "decoupled"): (38.7, 32.5, 83.2, 89.1),
    (None, "naive"): (34.0, 26.9, 79.4, 87.1),
    (None, "decoupled"): (36.9, 29.9, 81.0, 88.1),
}
BENCHMARKS = ("AIME24", "AIME25", "AMC23", "MATH500")
"""The columns of Table 2."""
