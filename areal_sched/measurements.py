"""Measurements: what devices did with their time. They go into the journal beside the decisions.

No scheduler sees them and replay passes over them; analysis and calibration live on them. Both
worlds write the same ones, so every field is one that a live cluster can measure.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from areal_sched.ids import ServerId, WeightVersion
from areal_sched.messages import message

ServerActivity: TypeAlias = Literal["generate", "load", "paused", "idle", "down", "lent"]
"""``paused``: interrupted rollouts wait to be resumed, or generation is held.
``lent``: a colocated trainer has the GPUs."""

TrainerActivity: TypeAlias = Literal[
    "switch", "proximal", "minibatch", "optimizer", "overhead", "publish", "save", "idle", "down"
]

EngineActivity: TypeAlias = Literal["prefill", "decode"]


@message
class ServerSpan:
    """One server did one thing from ``start_ns`` to ``end_ns``.

    For ``generate`` the time splits further: ``prefill_ns`` (first prefill of prompts) and
    ``recompute_ns`` (prefill of what had been in a KV cache before); the rest is decode.
    ``generated_tokens`` and ``recomputed_tokens`` count what the span produced.
    """

    server_id: ServerId
    activity: ServerActivity
    start_ns: int
    end_ns: int
    prefill_ns: int
    recompute_ns: int
    generated_tokens: int
    recomputed_tokens: int


@message
class TrainerSpan:
    """The trainer did one thing from ``start_ns`` to ``end_ns``.

    ``waiting_ns``: the part of it that an average GPU waited for a slower data-parallel rank or
    for the pipeline to fill. ``weight_version``: the version in the making, or held when idle.
    """

    activity: TrainerActivity
    weight_version: WeightVersion
    start_ns: int
    end_ns: int
    waiting_ns: int
    micro_batches: int


@message
class EngineSteps:
    """Steps in a row of a server's engine, of one kind and each on as many rollouts.

    What costs are fitted to (`analysis.calibration`). A simulated server does not tell: its steps
    follow from its coefficients.

    ``start_ns`` is the end of the step before, or when the server began to generate, as they became
    known: single steps may look longer or shorter than they were, their sums are right.
    ``steps`` steps worked on ``rollouts`` rollouts each. Summed over them: ``forward_ns`` in which
    the model ran, by the engine's own clock; ``context_tokens`` (already in KV caches) and
    ``new_tokens`` (prefilled).
    """

    server_id: ServerId
    activity: EngineActivity
    start_ns: int
    end_ns: int
    forward_ns: int
    steps: int
    rollouts: int
    context_tokens: int
    new_tokens: int


Measurement: TypeAlias = ServerSpan | TrainerSpan | EngineSteps
