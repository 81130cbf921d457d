"""Recorders built span by span and rollout by rollout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from analysis.facts import RunFacts
from analysis.recorder import RunRecorder
from areal_sched import Group, Phase, Rollout, ServerSpan, TrainerSpan

FACTS = RunFacts(
    name="by hand",
    gpus=7,
    generation_gpus=4,
    gpus_per_server=2,
    servers=2,
    training_gpus=3,
    colocated=False,
    unused_gpus=0,
    group_size=2,
    train_batch_rollouts=2,
    steps=1,
    seed=0,
    config_sha256="",
    scheduler="m:Areal",
)


def recorder(
    servers: dict[int, list[tuple[Any, ...]]],
    trainer: list[tuple[Any, ...]],
    begin_ns: int = 0,
    /,
    **facts: Any,
) -> RunRecorder:
    """A recorder whose devices did one thing after another.

    Args:
        servers: server id to its (activity, length_ns[, prefill_ns, recompute_ns, tokens]); a
            server's first entry may be ("joins", at_ns).
        trainer: its (activity, length_ns[, waiting_ns]).
        begin_ns: where the trainer's account begins.
        facts: what differs from `FACTS`.
    """
    result = RunRecorder(replace(FACTS, **facts))
    for server_id, spans in servers.items():
        now = 0
        for activity, length, *more in spans:
            if activity == "joins":
                now = length
                continue
            prefill, recompute, tokens = (*more, 0, 0, 0)[:3]
            result.measured(
                ServerSpan(
                    server_id=server_id,
                    activity=activity,
                    start_ns=now,
                    end_ns=now + length,
                    prefill_ns=prefill,
                    recompute_ns=recompute,
                    generated_tokens=tokens,
                    recomputed_tokens=0,
                )
            )
            now += length
    now = begin_ns
    for activity, length, *more in trainer:
        result.measured(
            TrainerSpan(
                activity=activity,
                weight_version=1,
                start_ns=now,
                end_ns=now + length,
                waiting_ns=more[0] if more else 0,
                micro_batches=0,
            )
        )
        now += length
    return result


def rollout(rollout_id: int, phase: Phase = Phase.TRAINED, **fields: Any) -> Rollout:
    """A rollout in a phase, with these fields set."""
    group = Group(rollout_id // 2, 0, 2, fields.pop("prompt_tokens", 100))
    result = Rollout(
        rollout_id, group, fields.pop("server_id", 0), fields.pop("first_version", 0), 0
    )
    result.phase = phase
    for name, value in fields.items():
        setattr(result, name, value)
    return result
