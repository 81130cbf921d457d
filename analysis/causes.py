"""What a GPU can spend its time on: every GPU-second has exactly one of these causes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Side: TypeAlias = Literal["generation", "training", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause, how it counts and how it is drawn.

    Attributes:
        key: its name in summaries and tables.
        side: who holds the GPU meanwhile.
        label: its name in pictures.
        meaning: one sentence.
        idle: counts as idle: the GPU waits for something and does nothing itself.
        colour, hatch, hatch_colour: of its bars. Colours are told apart by people with any
            colour vision; hatches keep neighbours apart in black and white.
    """

    key: str
    side: Side
    label: str
    meaning: str
    idle: bool = False
    colour: str
    hatch: str = ""
    hatch_colour: str = "white"

    @property
    def busy(self) -> bool:
        """The GPU works: neither idle nor left over. For energy; shares go by `idle`."""
        return not self.idle and self.side != "none"


_BLUE, _SKY, _GREEN = "#0072b2", "#56b4e9", "#009e73"
_ORANGE, _VERMILION, _PURPLE, _YELLOW = "#e69f00", "#d55e00", "#cc79a7", "#f0e442"
# Okabe and Ito, "Color universal design", 2008: eight colours for any colour vision.

CAUSES: tuple[Cause, ...] = (
    Cause(
        key="decode",
        side="generation",
        label="decode",
        meaning="A server decodes.",
        colour=_BLUE,
    ),
    Cause(
        key="prefill",
        side="generation",
        label="prefill",
        meaning="A server prefills prompts for the first time.",
        colour=_SKY,
    ),
    Cause(
        key="recompute",
        side="generation",
        label="recompute",
        meaning="A server prefills again what a KV cache had held before an interruption.",
        colour=_SKY,
        hatch="////",
        hatch_colour=_BLUE,
    ),
    Cause(
        key="load_weights",
        side="generation",
        label="load weights",
        meaning="A server loads new weights.",
        colour=_ORANGE,
        hatch="\\\\\\\\",
        hatch_colour="#7a5400",
    ),
    Cause(
        key="paused",
        side="generation",
        label="paused",
        meaning="Interrupted rollouts wait on a server to be resumed, or generation is held.",
        idle=True,
        colour=_YELLOW,
        hatch="....",
        hatch_colour="#857d10",
    ),
    Cause(
        key="idle_generation",
        side="generation",
        label="idle (generation)",
        meaning="A server has nothing to generate.",
        idle=True,
        colour="#f5f5f5",
        hatch="xxx",
        hatch_colour="#d2d2d2",
    ),
    Cause(
        key="server_down",
        side="generation",
        label="server down",
        meaning="A server has failed, or has not joined yet.",
        idle=True,
        colour="#000000",
    ),
    Cause(
        key="proximal",
        side="training",
        label="proximal log-probs",
        meaning="The trainer recomputes log-probabilities under the proximal policy.",
        colour=_PURPLE,
    ),
    Cause(
        key="minibatch",
        side="training",
        label="minibatch updates",
        meaning="The trainer runs forward and backward passes.",
        colour=_GREEN,
    ),
    Cause(
        key="optimizer",
        side="training",
        label="optimizer",
        meaning="The trainer updates its parameters.",
        colour=_GREEN,
        hatch="////",
        hatch_colour="#004d38",
    ),
    Cause(
        key="publish",
        side="training",
        label="publish weights",
        meaning="The trainer hands out new weights.",
        colour=_VERMILION,
        hatch="\\\\\\\\",
        hatch_colour="#ffd2b3",
    ),
    Cause(
        key="save",
        side="training",
        label="save and evaluate",
        meaning="The trainer saves a checkpoint and evaluates.",
        colour="#8a5a44",
        hatch="....",
        hatch_colour="#e8d6cd",
    ),
    Cause(
        key="overhead",
        side="training",
        label="other overhead",
        meaning="The trainer does what belongs to no other phase, such as packing.",
        colour="#a6a6a6",
    ),
    Cause(
        key="switch",
        side="training",
        label="switch",
        meaning="Colocated GPUs change hands between generation and training.",
        colour="#444444",
        hatch="||||",
        hatch_colour="#bbbbbb",
    ),
    Cause(
        key="waiting",
        side="training",
        label="waiting (training)",
        meaning="A training GPU waits for a slower data-parallel rank or for the pipeline to fill.",
        idle=True,
        colour="#dcdcdc",
        hatch="----",
        hatch_colour="#9a9a9a",
    ),
    Cause(
        key="idle_training",
        side="training",
        label="idle (training)",
        meaning="The trainer holds the GPU and waits for a batch.",
        idle=True,
        colour="#f5f5f5",
        hatch="+++",
        hatch_colour="#cacaca",
    ),
    Cause(
        key="trainer_down",
        side="training",
        label="trainer down",
        meaning="The trainer has failed.",
        idle=True,
        colour="#000000",
        hatch="xx",
    ),
    Cause(
        key="unused",
        side="none",
        label="unused",
        meaning="The GPU belongs to neither generation nor training at that time.",
        colour="#ffffff",
        hatch="oo",
        hatch_colour="#d0d0d0",
    ),
)
"""All causes, in the order in which they are listed and drawn."""

CAUSE: dict[str, Cause] = {cause.key: cause for cause in CAUSES}
"""Cause by key."""

SERVER_CAUSE = {
    "generate": "decode",
    "load": "load_weights",
    "paused": "paused",
    "idle": "idle_generation",
    "down": "server_down",
    "lent": "idle_training",
}
"""Server activity to its cause, where that does not split further (``generate``) or belong to the
trainer's own spans (``lent``)."""

TRAINER_CAUSE = {
    "switch": "switch",
    "proximal": "proximal",
    "minibatch": "minibatch",
    "optimizer": "optimizer",
    "overhead": "overhead",
    "publish": "publish",
    "save": "save",
    "idle": "idle_training",
    "down": "trainer_down",
}
"""Trainer activity to its cause, for the part of it that is not ``waiting``."""
