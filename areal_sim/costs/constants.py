"""Every constant of the roofline model: value, unit, source, and how it was come by.

``basis`` says how far to trust one: ``fitted`` to a measurement named in the source, or
``assumed``. None was measured on the cluster of the paper, so an uncalibrated simulation of it is
an estimate.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from areal_sched.errors import ConfigError, nearest

Basis = Literal["assumed", "fitted", "configured"]

_KERNELS = (
    "least squares of relative error over 598 cells of decode steps composed from measured kernels"
    " (aiconfigurator-core 0.12.0, H100 SXM, 1.5B to 32B, tensor parallel 1 to 8)"
)


def _factor(
    default: float, unit: str, basis: Literal["assumed", "fitted"], source: str, **limits: float
) -> Any:
    metadata = {"unit": unit, "basis": basis, "source": source, **limits}
    return dataclasses.field(default=default, metadata=metadata)


def _share(default: float, basis: Literal["assumed", "fitted"], source: str) -> Any:
    return _factor(default, "1", basis, source, highest=1.0, above=0.0)


def _rate(default: float, unit: str, basis: Literal["assumed", "fitted"], source: str) -> Any:
    return _factor(default, unit, basis, source, above=0.0)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class FactorInfo:
    """One factor as used: name, value, unit, basis and source."""

    name: str
    value: float
    unit: str
    basis: Basis
    source: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """Efficiencies, overheads and rates of `Roofline`. `describe` lists units and sources."""

    decode_bandwidth_efficiency: float = _share(
        0.87, "fitted", f"peak memory bandwidth reached while reading weights; {_KERNELS}"
    )
    decode_kv_bandwidth_efficiency: float = _share(
        0.89,
        "fitted",
        f"the same while attention reads the KV cache; {_KERNELS}. The A100 cells of that database"
        " would give 0.44; a served vLLM on A40 gave 0.85",
    )
    decode_compute_exposed: float = _share(
        0.40,
        "fitted",
        "share of a rollout's matrix products, timed at peak, that is not hidden behind reading"
        f" weights; {_KERNELS}",
    )
    decode_layer_latency_s: float = _factor(
        26e-6, "s", "fitted", f"a layer's kernels at batch 1 beyond reading weights; {_KERNELS}"
    )
    all_reduce_latency_s: float = _factor(
        3.7e-6, "s", "fitted", f"one small all-reduce within a node; {_KERNELS}"
    )
    all_reduce_efficiency: float = _share(
        0.42,
        "fitted",
        f"link bandwidth (one direction) reached by all-reduces of decode size; {_KERNELS}",
    )
    server_step_overhead_s: float = _factor(
        2.5e-3,
        "s",
        "assumed",
        "what kernels leave out of a decode step in an SGLang 0.4.6-era engine: scheduling,"
        " sampling, norms, rotary. Differences between served and composed steps: 0 to 2.6 ms"
        " (Qwen3-32B, H100, TP 2 to 8, batch 16 and 64, context inferred from the slope),"
        " 3 ms (vLLM, 1.5B, A40), 3 to 4 ms (RLinf's verl case, 1.5B, H100, TP 2)",
    )
    server_layer_overhead_s: float = _factor(
        0.0,
        "s",
        "assumed",
        "the same, per layer: launches of kernels one by one. None where CUDA graphs are replayed",
    )
    tensor_parallel_wait_s: float = _factor(
        0.0,
        "s",
        "assumed",
        "ranks that launch kernels one by one wait for each other at every all-reduce. None"
        " where CUDA graphs are replayed",
    )
    server_rollout_overhead_s: float = _factor(
        20e-6,
        "s",
        "assumed",
        "the same, per rollout in the batch. Differences: 15 us (Qwen3-32B, H100, TP 8), 90 us"
        " (vLLM, 1.5B, A40)",
    )
    prefill_efficiency: float = _share(
        0.55, "assumed", "peak compute reached by prefill of long prompts, counting causal FLOPs"
    )
    training_efficiency: float = _share(
        0.43,
        "fitted",
        "peak compute reached in forward + backward + recomputation, counting causal FLOPs: the"
        " mean of the AReaL paper's Figure 6a, dynamic micro-batching (427, 455, 388 of 989 TFLOP/s"
        " a GPU), taken at face value. If that figure counts as the released code does (4 forwards,"
        " attention over all pairs, embedding counted) it would be 0.33 here; RLinf's verl case"
        " (1.5B, H100) gives 0.26",
    )
    forward_efficiency: float = _share(
        0.33,
        "assumed",
        "the same for forward-only passes; RLinf's verl case has both equal within 5 %",
    )
    micro_batch_overhead_s: float = _factor(
        5e-3, "s", "assumed", "launches and point-to-point transfers of one micro-batch and stage"
    )
    optimizer_bandwidth_efficiency: float = _share(
        0.7, "assumed", "peak memory bandwidth reached by a fused Adam"
    )
    collective_efficiency: float = _share(
        0.7, "assumed", "link bandwidth reached by large reduce-scatter, all-gather and broadcast"
    )
    optimizer_overhead_s: float = _factor(
        0.05, "s", "assumed", "gradient norm, loss-scale check and launches of one optimizer step"
    )
    train_step_overhead_s: float = _factor(
        5.0,
        "s",
        "assumed",
        "per training step: data movement, packing, advantages, logging. Published steps leave 11"
        " to 19 s beside their named phases on 8 GPUs, rewards and weight transfer included",
    )
    weight_publish_overhead_s: float = _factor(
        1.0, "s", "assumed", "barrier, naming and metadata before a version can be loaded"
    )
    weight_load_overhead_s: float = _factor(
        0.5, "s", "assumed", "pausing an engine, flushing its cache, resuming"
    )
    disk_write_bytes_per_s: float = _rate(
        3e9, "byte/s", "assumed", "shared file system, all trainer ranks writing one checkpoint"
    )
    disk_read_bytes_per_s: float = _rate(3e9, "byte/s", "assumed", "shared file system to one node")
    disk_read_total_bytes_per_s: float = _rate(
        40e9, "byte/s", "assumed", "shared file system to all nodes together"
    )
    broadcast_bytes_per_s: float = _rate(
        3.7e9,
        "byte/s",
        "fitted",
        "trainer-to-server NCCL broadcast as shipped, tensor by tensor: geometric mean over"
        " Qwen2.5 7B, 32B and 72B on H100 (5.75, 17.9 and 28.8 s)",
    )
    host_bytes_per_s: float = _rate(
        25e9, "byte/s", "assumed", "GPU to pinned host memory, one direction, PCI Express 4.0 x16"
    )
    switch_overhead_s: float = _factor(
        1.0, "s", "assumed", "colocated: freeing and building allocator pools and CUDA graphs"
    )

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check(field.name, getattr(self, field.name), field.metadata)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], *, where: str = "cost") -> Factors:
        """Defaults, with some replaced, as from a ``[cost]`` table.

        Raises:
            ConfigError: an unknown key (the message names the nearest) or a value out of range.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        for key, value in mapping.items():
            if key not in known:
                raise ConfigError(f"{where}.{key}: no such factor{nearest(key, known)}")
            _check(f"{where}.{key}", value, known[key].metadata)
        return cls(**{key: float(value) for key, value in mapping.items()})

    def describe(self) -> tuple[FactorInfo, ...]:
        """Every factor with unit and source; a changed value has the basis "configured"."""
        infos = []
        for field in dataclasses.fields(self):
            value, default = getattr(self, field.name), field.default
            changed = value != default
            infos.append(
                FactorInfo(
                    name=field.name,
                    value=value,
                    unit=field.metadata["unit"],
                    basis="configured" if changed else field.metadata["basis"],
                    source=f"configuration; default {default}"
                    if changed
                    else field.metadata["source"],
                )
            )
        return tuple(infos)


def _check(name: str, value: Any, limits: Mapping[str, Any]) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"{name} = {value!r}: expected a finite number")
    if "above" in limits and value <= limits["above"]:
        raise ConfigError(f"{name} = {value!r}: must be greater than {limits['above']:g}")
    if value < 0:
        raise ConfigError(f"{name} = {value!r}: must not be negative")
    if "highest" in limits and value > limits["highest"]:
        raise ConfigError(f"{name} = {value!r}: must be at most {limits['highest']:g}")
