"""GPUs, clusters, and how a model is laid out on them.

Figures are the makers' own: dense (not 2:4 sparse) bf16/fp16 tensor throughput, and link speeds
in *one direction* (data sheets print both directions together). ``memory_bytes`` is what the
driver reports as total, since that, not the rounded product name, is what an engine divides up.
"""

from __future__ import annotations

import dataclasses

from areal_sched.errors import ConfigError, nearest
from areal_sim.power import GPU_POWER, GpuPower

MIB = 1024 * 1024
TERA = 10**12
GIGA = 10**9


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One GPU model.

    Attributes:
        name: as used in configuration files.
        memory_bytes: total memory the driver reports.
        hbm_bytes_per_s: peak memory bandwidth.
        dense_flops: peak dense bf16/fp16 tensor throughput, operations per second.
        nvlink_bytes_per_s: bandwidth to the other GPUs of the node, one direction, per GPU. For
            cards without an NVLink switch this is PCI Express.
        power: what it draws and costs, each number with its basis and source.
        source: where the other numbers come from.
    """

    name: str
    memory_bytes: int
    hbm_bytes_per_s: float
    dense_flops: float
    nvlink_bytes_per_s: float
    power: GpuPower
    source: str

    def __post_init__(self) -> None:
        for field in ("memory_bytes", "hbm_bytes_per_s", "dense_flops", "nvlink_bytes_per_s"):
            value = getattr(self, field)
            if not value > 0:
                raise ConfigError(f"gpu {self.name}: {field} = {value!r}: must be positive")

    @property
    def busy_watts(self) -> float:
        """Board power of the data sheet, watts: an upper bound of what a busy GPU draws."""
        return self.power.busy_watts.value

    @property
    def idle_watts(self) -> float:
        """What it draws while it waits with a model loaded, watts."""
        return self.power.idle_watts.value

    @property
    def host_watts(self) -> float:
        """Its share of what the rest of its node draws, watts."""
        return self.power.host_watts.value

    @property
    def usd_per_hour(self) -> float:
        """Rent on demand, USD an hour."""
        return self.power.usd_per_hour.value


def _row(
    name: str, mib: int, hbm_gb: float, teraflops: float, link_gb: float, source: str
) -> tuple[str, Gpu]:
    return name, Gpu(
        name=name,
        memory_bytes=mib * MIB,
        hbm_bytes_per_s=hbm_gb * GIGA,
        dense_flops=teraflops * TERA,
        nvlink_bytes_per_s=link_gb * GIGA,
        power=GPU_POWER[name],
        source=f"{source}; memory: total reported by nvidia-smi",
    )


_A100 = "NVIDIA A100 data sheet (SXM4): 312 TFLOP/s bf16, NVLink 600 GB/s both directions"
_HOPPER = "989 TFLOP/s bf16 dense"
_PCIE4 = "GPU to GPU over PCI Express 4.0 x16, 32 GB/s a direction"

GPUS: dict[str, Gpu] = dict(
    [
        _row("A100-40GB", 40960, 1555, 312, 300, f"{_A100}, 1555 GB/s"),
        _row("A100-80GB", 81920, 2039, 312, 300, f"{_A100}, 2039 GB/s"),
        _row(
            "H100",
            81559,
            3350,
            989,
            450,
            f"NVIDIA H100 data sheet (SXM5): {_HOPPER}, 3.35 TB/s, NVLink 900 GB/s both directions",
        ),
        _row(
            "H800",
            81559,
            3350,
            989,
            200,
            f"NVIDIA H800 data sheet (SXM5): as H100 ({_HOPPER}, 3.35 TB/s), NVLink 400 GB/s both"
            " directions",
        ),
        _row(
            "H200",
            143771,
            4800,
            989,
            450,
            f"NVIDIA H200 data sheet (SXM5): {_HOPPER}, 4.8 TB/s, NVLink 900 GB/s both directions",
        ),
        _row(
            "H20",
            97871,
            4000,
            148,
            450,
            "NVIDIA H20 product brief: 148 TFLOP/s bf16 dense, 4.0 TB/s, NVLink 900 GB/s both"
            " directions",
        ),
        _row(
            "B200",
            183359,
            8000,
            2250,
            900,
            "NVIDIA HGX B200 data sheet: 2.25 PFLOP/s bf16 dense and 8 TB/s a GPU, NVLink 1.8 TB/s"
            " both directions",
        ),
        _row(
            "L40S",
            46068,
            864,
            362.05,
            32,
            f"NVIDIA L40S data sheet: 362 TFLOP/s bf16 dense, 864 GB/s; {_PCIE4}",
        ),
        _row(
            "A40",
            46068,
            696,
            149.7,
            32,
            f"NVIDIA A40 data sheet: 149.7 TFLOP/s bf16 dense, 696 GB/s; {_PCIE4} (an NVLink"
            " bridge joins pairs only)",
        ),
        _row(
            "RTX4090",
            24564,
            1008,
            165.2,
            32,
            "NVIDIA Ada GPU architecture paper: 165.2 TFLOP/s bf16 dense with fp32 accumulation,"
            f" 1008 GB/s; {_PCIE4}",
        ),
    ]
)


def gpu(name: str) -> Gpu:
    """Look a GPU up by name, in any case.

    Raises:
        ConfigError: the name is unknown; the message names the nearest one.
    """
    by_folded = {known.casefold(): known for known in GPUS}
    if (found := by_folded.get(name.casefold())) is None:
        raise ConfigError(f"gpu = {name!r}: no such GPU{nearest(name.upper(), GPUS)}")
    return GPUS[found]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A set of equal nodes.

    Attributes:
        gpu: the GPU every node holds.
        nodes: number of nodes.
        gpus_per_node: GPUs in a node, joined by ``gpu.nvlink_bytes_per_s``.
        network_bytes_per_s_per_node: bandwidth between nodes, one direction, whole node.
        cpu_cores_per_node: 0 if unknown.
        host_memory_bytes_per_node: 0 if unknown.
    """

    gpu: Gpu
    nodes: int
    gpus_per_node: int = 8
    network_bytes_per_s_per_node: float
    cpu_cores_per_node: int = 0
    host_memory_bytes_per_node: int = 0

    def __post_init__(self) -> None:
        for field in ("nodes", "gpus_per_node", "network_bytes_per_s_per_node"):
            value = getattr(self, field)
            if not value > 0:
                raise ConfigError(f"cluster.{field} = {value!r}: must be positive")

    @property
    def gpus(self) -> int:
        """GPUs in the whole cluster."""
        return self.nodes * self.gpus_per_node

    @property
    def network_bytes_per_s_per_gpu(self) -> float:
        """Share of the node's network a GPU has when all of them send at once, one direction."""
        return self.network_bytes_per_s_per_node / self.gpus_per_node

    def group_bytes_per_s(self, group_gpus: int) -> float:
        """Per-GPU bandwidth, one direction, of a collective over that many neighbouring GPUs."""
        if group_gpus <= self.gpus_per_node:
            return self.gpu.nvlink_bytes_per_s
        return min(self.gpu.nvlink_bytes_per_s, self.network_bytes_per_s_per_gpu)

    def nodes_of(self, gpus: int) -> int:
        """Nodes that this many GPUs fill, the last one perhaps in part."""
        return -(-gpus // self.gpus_per_node)


def paper_cluster(nodes: int = 64) -> Cluster:
    """The cluster of the AReaL paper (arXiv 2505.24298, section 7).

    Nodes of 8 H800 80 GB, NVLink inside, RoCE with 3.2 Tbit/s a node between, 48 cores, 1 TB.
    """
    return Cluster(
        gpu=gpu("H800"),
        nodes=nodes,
        gpus_per_node=8,
        network_bytes_per_s_per_node=3.2 * TERA / 8,
        cpu_cores_per_node=48,
        host_memory_bytes_per_node=TERA,
    )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServerLayout:
    """How one inference server lies on its GPUs.

    Attributes:
        tensor_parallel: GPUs of one server.
        static_memory_fraction: share of GPU memory for weights and KV cache together (the
            engine's "static memory fraction"); the rest is for activations and CUDA graphs.
    """

    tensor_parallel: int = 1
    static_memory_fraction: float = 0.8

    def __post_init__(self) -> None:
        _positive("server", "tensor_parallel", self.tensor_parallel)
        if not 0 < self.static_memory_fraction <= 1:
            raise ConfigError(
                f"server.static_memory_fraction = {self.static_memory_fraction!r}: must lie in"
                " (0, 1]"
            )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TrainerLayout:
    """How the trainer lies on its GPUs.

    Attributes:
        tensor_parallel: GPUs that share every layer; also the sequence-parallel group.
        pipeline_parallel: pipeline stages.
        data_parallel: replicas; the optimizer state is sharded over them.
        micro_batch_tokens: most tokens in one micro-batch.
        recompute: full activation recomputation; costs one more forward pass of the layers.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    micro_batch_tokens: int = 32_768
    recompute: bool = True

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if field.name != "recompute":
                _positive("trainer", field.name, getattr(self, field.name))

    @property
    def pipeline_gpus(self) -> int:
        """GPUs of one data-parallel rank."""
        return self.tensor_parallel * self.pipeline_parallel

    @property
    def gpus(self) -> int:
        """GPUs of the whole trainer."""
        return self.pipeline_gpus * self.data_parallel


def _positive(section: str, field: str, value: int) -> None:
    if value < 1:
        raise ConfigError(f"{section}.{field} = {value!r}: must be at least 1")
