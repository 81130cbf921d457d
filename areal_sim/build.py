"""From a configuration to the parts of a run."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from areal_sched import packing
from areal_sched.errors import ConfigError
from areal_sched.load import built_in
from areal_sched.packing import PackedStep
from areal_sim.config import RunConfig, WorkloadConfig, config_sha256
from areal_sim.config.fault_schedule import joining
from areal_sim.costs import CostProvider, FittedCosts, Roofline, TableCosts
from areal_sim.costs.tables import fit_decode_table
from areal_sim.faults import Faults
from areal_sim.memory import ServerMemory, colocated_memory, server_memory, trainer_memory
from areal_sim.simulation import Setup
from traces import (
    LogNormalGroups,
    LogNormalPrompts,
    Mixture,
    ResampledWorkload,
    SyntheticWorkload,
    TraceError,
    WorkloadSource,
    constant,
    constant_prompts,
    load,
    preset,
)
from traces.presets import MATH_PROMPTS


def setup_of(config: RunConfig) -> Setup:
    """Everything a simulation of `config` is made of.

    Raises:
        ConfigError: a trace or cost file cannot be read, or does not fit the rest.
        DoesNotFit: the model does not fit into the GPUs' memory.
    """
    sim = config.sim
    memory = None if config.measured else server_memory_of(config)
    kv_cache_tokens = sim.server.kv_cache_tokens
    most_running = sim.server.max_running_rollouts
    if memory is not None:
        kv_cache_tokens = kv_cache_tokens or memory.kv_cache_tokens
        most_running = most_running or memory.max_running_rollouts
    assert kv_cache_tokens is not None
    assert most_running is not None
    return Setup(
        limits=config.limits(),
        steps=config.workload.steps,
        servers=config.servers // sim.slice,
        colocated=config.cluster.colocated,
        max_running_rollouts=most_running,
        kv_cache_tokens=kv_cache_tokens,
        prefill_chunk_tokens=sim.server.prefill_chunk_tokens,
        kv_reserve_tokens=max(1, sim.server.kv_reserve_tokens_per_rollout),
        costs=costs_of(config, kv_cache_tokens),
        layout=layout_of(config),
        source=source_of(config.workload, sim.seed),
        max_response_tokens=config.workload.max_response_tokens,
        reward_workers=max(1, sim.rewards.workers // sim.slice),
        reward_service_s=sim.rewards.service_s,
        reward_service_variation=sim.rewards.service_variation,
        save_s=sim.evaluation.pause_s,
        recompute_proximal=sim.trainer.recompute_proximal,
        faults=Faults(**{f.name: getattr(sim.faults, f.name) for f in dataclasses.fields(Faults)}),
        seed=sim.seed,
    )


def server_memory_of(config: RunConfig) -> ServerMemory:
    """Memory of one server, after checking that server and trainer fit.

    Raises:
        DoesNotFit: they do not; the message says by how much and what would help.
    """
    gpu = config.hardware().gpu
    model, server, trainer = config.model_shape(), config.server_layout(), config.trainer_layout()
    # Admission keeps a reserve free beside a rollout; without room for it nothing would start.
    context = config.workload.max_context_tokens + config.sim.server.kv_reserve_tokens_per_rollout
    if config.cluster.colocated:
        both = colocated_memory(gpu, model, server, trainer, context_tokens=context)
        return both.server
    trainer_memory(gpu, model, trainer)
    return server_memory(gpu, model, server, context_tokens=context)


def costs_of(config: RunConfig, kv_cache_tokens: int) -> CostProvider:
    """The provider of all times; `kv_cache_tokens` is the room of one server."""
    cost = config.sim.cost
    if cost.provider == "fitted":
        assert cost.file is not None
        return FittedCosts.load(cost.file)
    roofline = Roofline(
        cluster=config.hardware(),
        model=config.model_shape(),
        server_layout=config.server_layout(),
        trainer_layout=config.trainer_layout(),
        servers=config.servers,
        weight_transfer=config.sim.weights.transport,
        factors=cost.factors,
    )
    if cost.provider == "roofline":
        return roofline
    assert cost.file is not None
    fit = fit_decode_table(
        cost.file,
        tensor_parallel=config.sim.server.tensor_parallel,
        max_kv_tokens=kv_cache_tokens,
        system=cost.system,
        model=cost.model,
    )
    return TableCosts(
        fit=fit,
        rest=roofline,
        step_overhead_s=cost.factors.server_step_overhead_s,
        rollout_overhead_s=cost.factors.server_rollout_overhead_s,
    )


def layout_of(config: RunConfig) -> Callable[[Sequence[int]], PackedStep]:
    """How one training step's sequences are packed."""
    trainer = config.sim.trainer
    algorithm = getattr(packing, trainer.packing)
    balance = getattr(packing, trainer.balance)
    ranks = config.data_parallel_ranks // config.sim.slice

    def layout(sizes: Sequence[int]) -> PackedStep:
        return packing.pack(
            sizes,
            capacity=trainer.micro_batch_tokens,
            ranks=ranks,
            minibatches=trainer.minibatches,
            algorithm=algorithm,
            balance=balance,
        )

    return layout


def source_of(workload: WorkloadConfig, seed: int) -> WorkloadSource:
    """The workload: prompt and response lengths.

    Raises:
        ConfigError: the trace cannot be read or used.
    """
    prompts = _prompts(workload)
    if workload.trace is not None:
        try:
            return ResampledWorkload(
                load(workload.trace, workload.trace_format),
                seed=seed,
                max_response_tokens=workload.max_response_tokens,
                max_prompt_tokens=workload.max_prompt_tokens,
                mode=workload.resample or "by_prompt",
                length_scale=workload.length_scale,
                prompt_model=prompts,
            )
        except TraceError as exc:
            raise ConfigError(f"workload.trace: {exc}") from None
        except ValueError as exc:
            hint = ""
            if prompts is None and "prompt_model" in str(exc):
                hint = "; here: set workload.prompt_length.mu and .sigma, or .constant"
            raise ConfigError(f"workload.trace = {workload.trace}: {exc}{hint}") from None
    if workload.preset is not None:
        named = preset(workload.preset)
        model, default_prompts = named.model, named.prompt_model
    else:
        length = workload.length
        assert length is not None
        default_prompts = MATH_PROMPTS
        if length.constant is not None:
            model = constant(length.constant)
        else:
            assert length.mu is not None
            assert length.sigma_between is not None
            assert length.sigma_within is not None
            model = LogNormalGroups(
                mu=length.mu,
                sigma_between=length.sigma_between,
                sigma_within=length.sigma_within,
                degrees_of_freedom=length.degrees_of_freedom or 8.0,
                drift_per_step=length.drift_per_step or 0.0,
            )
    return SyntheticWorkload(
        _scaled(model, workload.length_scale),
        prompts or default_prompts,
        seed=seed,
        max_response_tokens=workload.max_response_tokens,
        max_prompt_tokens=workload.max_prompt_tokens,
    )


def _prompts(workload: WorkloadConfig) -> LogNormalPrompts | None:
    given = workload.prompt_length
    if given is None:
        return None
    if given.constant is not None:
        return constant_prompts(given.constant)
    assert given.mu is not None
    assert given.sigma is not None
    return LogNormalPrompts(mu=given.mu, sigma=given.sigma)


def _scaled(model: Any, factor: float) -> Any:
    """The same lengths, all times `factor`, before they are clipped."""
    if factor == 1.0:
        return model
    if isinstance(model, Mixture):
        parts = tuple(_scaled(part, factor) for part in model.components)
        return dataclasses.replace(model, components=parts)
    shift = math.log(factor)
    return dataclasses.replace(
        model,
        mu=model.mu + shift,
        mu_knots=tuple((step, mu + shift) for step, mu in model.mu_knots),
    )


def _unused_gpus(config: RunConfig) -> int:
    """Of the cluster or the slice: all that do nothing."""
    if (part := config.sim.slice) == 1:
        return config.unused_gpus
    generating, training = config.generation_gpus // part, config.training_gpus // part
    both = max(generating, training) if config.cluster.colocated else generating + training
    return config.gpus // part - both


def header_of(config: RunConfig, name: str) -> dict[str, Any]:
    """The journal's header: what replay and analysis need to know of the run.

    Args:
        config: the run's configuration.
        name: the run's name, shown in titles.
    """
    limits = config.limits()
    published = None
    if config.published is not None:
        published = {"hours": config.published_hours, "label": config.published.label}
    path = config.scheduler.class_path
    part = config.sim.slice
    # Servers that join later count from the beginning, as down.
    joined = joining(config.sim.faults.schedule)
    joined_gpus = joined * config.sim.server.tensor_parallel
    return {
        "scheduler": built_in().get(path, path),
        "options": dict(config.scheduler.options),
        "limits": dataclasses.asdict(limits),
        "run": {
            "name": name,
            "gpus": config.gpus // part + joined_gpus,
            "generation_gpus": config.generation_gpus // part + joined_gpus,
            "gpus_per_server": config.sim.server.tensor_parallel,
            "servers": config.servers // part + joined,
            "training_gpus": config.training_gpus // part,
            "colocated": config.cluster.colocated,
            "unused_gpus": _unused_gpus(config),
            "group_size": limits.group_size,
            "train_batch_rollouts": limits.train_batch_rollouts,
            "steps": config.workload.steps,
            "seed": config.sim.seed,
            "config_sha256": config_sha256(config),
            "published": published,
            "power": config.power,
        },
    }
