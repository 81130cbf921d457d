"""The simulated trainer: what a step is made of, how long it takes, and in which order it tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched import (
    Event,
    StartTrainStep,
    TrainerReady,
    TrainerSpan,
    TrainStepFinished,
    WeightVersion,
)
from areal_sched.ids import RolloutId
from areal_sched.packing import PackedStep, pack
from areal_sim.clock import Clock
from areal_sim.costs import TrainerCost
from areal_sim.trainer import Trainer, phases
from tests.sim.setups import costs, trainer_cost

SIZES = [7, 3, 5, 9, 2, 4]

COST = TrainerCost(
    update_base_s=0.5,
    update_per_token_s=0.02,
    update_per_token_pair_s=0.001,
    forward_base_s=0.25,
    forward_per_token_s=0.01,
    forward_per_token_pair_s=0.0005,
    pipeline_stages=1,
    optimizer_s=0.125,
    step_overhead_s=2.0,
)
"""Forward passes take half as long as updates."""


def update_s(sizes: Sequence[int]) -> float:
    """One micro-batch of these sequences, by `TrainerCost`."""
    return 0.5 + 0.02 * sum(sizes) + 0.001 * sum(size * size for size in sizes)


def test_one_micro_batch_on_one_rank() -> None:
    told = phases(COST, [[[list(range(6))]]], SIZES)
    assert [p.activity for p in told] == ["overhead", "proximal", "minibatch", "optimizer"]
    whole = update_s(SIZES)
    assert [p.seconds for p in told] == pytest.approx([2.0, whole / 2, whole, 0.125])
    assert [p.waiting_s for p in told] == pytest.approx([0, 0, 0, 0])
    assert [p.micro_batches for p in told] == [0, 1, 1, 0]


def test_ranks_wait_for_the_slowest() -> None:
    """Rank 0 has two micro-batches, rank 1 one: the step takes rank 0's time."""
    packed = [[[[0, 1], [2]], [[3, 4, 5]]]]
    busy = [update_s([7, 3]) + update_s([5]), update_s([9, 2, 4])]
    _, proximal, minibatch, _ = phases(COST, packed, SIZES)
    assert minibatch.seconds == pytest.approx(max(busy))
    assert minibatch.waiting_s == pytest.approx(max(busy) - sum(busy) / 2)
    assert (minibatch.micro_batches, proximal.micro_batches) == (3, 3)
    assert proximal.waiting_s == pytest.approx(minibatch.waiting_s / 2)


def test_a_pipeline_fills_and_drains() -> None:
    """Four stages, two equal micro-batches: (2 + 4 - 1) / 2 of the time without; the rest waits."""
    cost = TrainerCost(**{**{f: getattr(COST, f) for f in COST.__slots__}, "pipeline_stages": 4})
    _, _, minibatch, _ = phases(cost, [[[[0, 1, 2], [3, 4, 5]]]], [7, 3, 5, 7, 3, 5])
    busy = 2 * update_s([7, 3, 5])
    assert minibatch.seconds == pytest.approx(busy * 5 / 2)
    assert minibatch.waiting_s == pytest.approx(busy * 3 / 2)


def test_a_rank_without_sequences_only_waits() -> None:
    _, _, minibatch, _ = phases(COST, [[[[0]], []]], [7])
    assert minibatch.seconds == pytest.approx(update_s([7]))
    assert minibatch.waiting_s == pytest.approx(update_s([7]) / 2)


def test_the_proximal_pass_is_over_the_whole_batch_before_the_first_update() -> None:
    packed = [[[[0, 1, 2]]], [[[3, 4, 5]]]]
    told = phases(COST, packed, SIZES)
    assert [p.activity for p in told] == [
        *("overhead", "proximal"),
        *("minibatch", "optimizer", "minibatch", "optimizer"),
    ]
    minibatches = [p.seconds for p in told if p.activity == "minibatch"]
    assert minibatches == pytest.approx([update_s([7, 3, 5]), update_s([9, 2, 4])])
    assert told[1].seconds == pytest.approx(sum(minibatches) / 2)


@given(
    sizes=st.lists(st.integers(1, 50), min_size=1, max_size=30),
    ranks=st.integers(1, 4),
    minibatches=st.integers(1, 3),
    stages=st.integers(1, 3),
)
def test_an_average_gpu_is_busy_or_waits(
    sizes: list[int], ranks: int, minibatches: int, stages: int
) -> None:
    """Busy and waiting time of all ranks add up to the phase: nothing is counted twice or lost."""
    packed = pack(sizes, capacity=60, ranks=ranks, minibatches=minibatches)
    cost = TrainerCost(
        **{**{f: getattr(COST, f) for f in COST.__slots__}, "pipeline_stages": stages}
    )
    told = [p for p in phases(cost, packed, sizes) if p.activity == "minibatch"]
    micro_batches = [micro for group in packed for rank in group for micro in rank]
    work = sum(update_s([sizes[i] for i in micro]) for micro in micro_batches)
    busy = sum(p.seconds - p.waiting_s for p in told) * ranks
    assert busy == pytest.approx(work)
    assert all(-1e-12 <= p.waiting_s <= p.seconds for p in told)
    assert sum(p.micro_batches for p in told) == len(micro_batches)


# ---- the process -------------------------------------------------------------------------------


class Host:
    """Writes down what the trainer says, in order; lends its servers after `lend_ns`."""

    def __init__(self, lend_ns: int = 0) -> None:
        self.env = Clock()
        self.said: list[tuple[int, object]] = []
        self.spans: list[TrainerSpan] = []
        self._lend_ns = lend_ns

    def emit(self, event: Event) -> None:
        self.said.append((self.env.now, event))

    def end_instant(self) -> None:
        pass

    def measure(self, span: TrainerSpan) -> None:
        self.spans.append(span)

    def lend_servers(self, lent: Callable[[], None]) -> None:
        self.said.append((self.env.now, "lend"))
        self.env.timeout(self._lend_ns).callbacks.append(lambda _: lent())

    def give_back_servers(self) -> None:
        self.said.append((self.env.now, "give back"))


def trained(host: Host, steps: int = 1, **changes: Any) -> Trainer:
    """Train some steps of two sequences, each as soon as the trainer is ready.

    A step: 3 ns overhead, 4 proximal, 6 minibatch, 2 optimizer, then 5 to publish, 7 to save after
    odd versions, and 1 to switch where colocated.
    """
    ns = 1e-9
    cost = trainer_cost(3 * ns, forward_base_s=4 * ns, update_base_s=6 * ns, optimizer_s=2 * ns)
    provider = costs(trainer=cost, publish_s=5 * ns, switch_s=1 * ns)
    known: dict[str, Any] = {
        "layout": lambda sizes: [[[[0, 1]]]],
        "save_s": lambda version, _: 7 * ns * (version % 2),
        "colocated": False,
    }
    known |= changes
    layout: Callable[[Sequence[int]], PackedStep] = known.pop("layout")
    save_s: Callable[[int, int], float] = known.pop("save_s")
    trainer = Trainer(host.env, host, provider, layout, save_s, **known)
    for version in range(1, steps + 1):
        step = StartTrainStep(
            weight_version=WeightVersion(version), rollout_ids=(RolloutId(0), RolloutId(1))
        )
        trainer.start(step, [10, 20])
        host.env.run()
    trainer.close()
    return trainer


def test_a_step_publishes_before_it_saves() -> None:
    """20 ns to the new version, and the trainer is ready when it has saved, if it saves."""
    host = Host()
    trained(host, steps=2)
    assert host.said == [
        (20, TrainStepFinished(weight_version=WeightVersion(1))),
        (27, TrainerReady(weight_version=WeightVersion(1))),
        (47, TrainStepFinished(weight_version=WeightVersion(2))),
        (47, TrainerReady(weight_version=WeightVersion(2))),
    ]
    first = [(s.activity, s.end_ns - s.start_ns) for s in host.spans if s.weight_version == 1]
    assert first == [
        *(("overhead", 3), ("proximal", 4), ("minibatch", 6)),
        *(("optimizer", 2), ("publish", 5), ("save", 7)),
    ]
    ends = [0, *(span.end_ns for span in host.spans)]
    assert [span.start_ns for span in host.spans] == ends[:-1]


def test_naive_ppo_leaves_the_proximal_pass_out() -> None:
    host = Host()
    trained(host, recompute_proximal=False)
    assert "proximal" not in [span.activity for span in host.spans]
    assert host.said[0][0] == 16


def test_a_colocated_step_waits_for_the_gpus_and_keeps_them_until_it_has_saved() -> None:
    """Lent after 9 ns; 1 to switch, 20 to train and publish, 7 to save, 1 to switch back."""
    host = Host(lend_ns=9)
    trained(host, colocated=True)
    assert host.said == [
        (0, "lend"),
        (38, "give back"),
        (38, TrainStepFinished(weight_version=WeightVersion(1))),
        (38, TrainerReady(weight_version=WeightVersion(1))),
    ]
    told = [(s.activity, s.start_ns, s.end_ns) for s in host.spans]
    assert told[0] == ("idle", 0, 9)
    assert [activity for activity, _, _ in told[1:]] == [
        *("switch", "overhead", "proximal", "minibatch"),
        *("optimizer", "publish", "save", "switch"),
    ]


def test_the_end_of_the_run_cuts_the_phase_in_progress() -> None:
    host = Host()
    trainer = Trainer(
        host.env, host, costs(trainer=trainer_cost(1.0)), lambda sizes: [[[[0]]]], lambda v: 0.0,
        colocated=False,
    )  # fmt: skip
    step = StartTrainStep(weight_version=WeightVersion(1), rollout_ids=(RolloutId(0),))
    trainer.start(step, [10])
    host.env.run(until=300)
    trainer.close()
    (span,) = host.spans
    assert (span.activity, span.start_ns, span.end_ns) == ("overhead", 0, 300)
