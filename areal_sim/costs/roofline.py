"""Analytic costs: bytes over bandwidth, FLOPs over peak, times named efficiencies.

Uncalibrated. Without engine overhead, decode steps against composed kernels (aiconfigurator-core
0.12.0; cells whose KV fits): median error 2 % on H100, which the factors were fitted to, 3 % on
H200, which they were not, and 31 % too fast on A100. Overheads, prefill, training and transfers
rest on the assumptions that `Factors.describe` lists.

Times add where a true roofline takes the larger of two; the efficiencies are fitted to that form.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from areal_sched.errors import ConfigError
from areal_sim.hardware import Cluster, ServerLayout, TrainerLayout
from areal_sim.memory import ACTIVATION_BYTES, GRADIENT_BYTES, OPTIMIZER_BYTES, PARAMETER_BYTES
from areal_sim.models import ModelShape

from .constants import Factors
from .protocol import FS_PER_S, ClientCost, HostCost, Phase, ServerCost, TrainerCost

# All-reduces of one layer under tensor parallelism (Megatron-LM, arXiv 1909.08053): after the
# attention output and after the MLP, of one hidden vector a token.
ALL_REDUCES_PER_LAYER = 2

# Backward costs two forwards (gradients of inputs and of weights).
BACKWARD_FORWARDS = 2

# Bytes Adam moves a parameter: gradient read (4); master, two moments read and written (24); fp16
# parameter written (2).
ADAM_BYTES = 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Roofline:
    """A `CostProvider` from hardware, shapes and layouts.

    Attributes:
        cluster: the GPUs and the links between them.
        model: the model, both served and trained.
        server_layout: one inference server.
        trainer_layout: the trainer.
        servers: inference servers that load weights at once.
        weight_transfer: ``disk``: the trainer writes, every server reads; ``collective``:
            broadcast from trainer to servers over the network.
        factors: efficiencies and overheads.
    """

    cluster: Cluster
    model: ModelShape
    server_layout: ServerLayout
    trainer_layout: TrainerLayout
    servers: int = 1
    weight_transfer: Literal["disk", "collective"] = "disk"
    factors: Factors = dataclasses.field(default_factory=Factors)

    def __post_init__(self) -> None:
        if self.weight_transfer not in ("disk", "collective"):
            raise ConfigError(
                f"weight_transfer = {self.weight_transfer!r}: expected 'disk' or 'collective'"
            )
        if self.servers < 1:
            raise ConfigError(f"servers = {self.servers!r}: must be at least 1")
        self.model.check_tensor_parallel(self.server_layout.tensor_parallel)
        self.model.check_tensor_parallel(self.trainer_layout.tensor_parallel)

    def server(self) -> ServerCost:
        """Decode bound by memory bandwidth, prefill by compute, both with engine overhead.

        A prefill step reads the weights once, so its base is that of a decode step. Of a chunk
        only the last token goes through the LM head, which is neglected.
        """
        model, factors, gpu = self.model, self.factors, self.cluster.gpu
        tp = self.server_layout.tensor_parallel
        weights_s = model.streamed_weight_bytes / (
            tp * gpu.hbm_bytes_per_s * factors.decode_bandwidth_efficiency
        )
        reduces = ALL_REDUCES_PER_LAYER * model.num_layers if tp > 1 else 0
        base_s = (
            weights_s
            + model.num_layers * (factors.decode_layer_latency_s + factors.server_layer_overhead_s)
            + reduces * (factors.all_reduce_latency_s + factors.tensor_parallel_wait_s)
            + factors.server_step_overhead_s
        )
        reduce_s = self._all_reduce_s_per_token(tp, factors.all_reduce_efficiency)
        token_flops = model.layers_flops_per_token + model.head_flops_per_token
        rollout_s = (
            factors.decode_compute_exposed * token_flops / (tp * gpu.dense_flops)
            + reduce_s
            + factors.server_rollout_overhead_s
        )
        kv_s = model.kv_bytes_per_token_per_gpu(tp) / (
            gpu.hbm_bytes_per_s * factors.decode_kv_bandwidth_efficiency
        )
        prefill_flops_per_s = tp * gpu.dense_flops * factors.prefill_efficiency
        return ServerCost(
            decode_base_fs=_fs(base_s),
            decode_per_rollout_fs=_fs(rollout_s),
            decode_per_kv_token_fs=_fs(kv_s),
            prefill_base_fs=_fs(base_s),
            prefill_per_token_fs=_fs(model.layers_flops_per_token / prefill_flops_per_s + reduce_s),
            prefill_per_token_pair_fs=_fs(model.attention_flops_per_pair / prefill_flops_per_s),
        )

    def trainer(self) -> TrainerCost:
        """FLOPs of a micro-batch over the rank's GPUs: update = forward + 2 forwards (+ recompute).

        Recomputation repeats the layers, not the LM head. The efficiency covers tensor-parallel
        communication and uneven stages; the pipeline's filling and draining is apart.
        """
        model, factors, layout = self.model, self.factors, self.trainer_layout
        peak = layout.pipeline_gpus * self.cluster.gpu.dense_flops
        update, forward = peak * factors.training_efficiency, peak * factors.forward_efficiency
        passes = 1 + BACKWARD_FORWARDS
        layer_passes = passes + 1 if layout.recompute else passes
        layers, head = model.layers_flops_per_token, model.head_flops_per_token
        pair = model.attention_flops_per_token_squared
        return TrainerCost(
            update_base_s=layer_passes * factors.micro_batch_overhead_s,
            update_per_token_s=(layer_passes * layers + passes * head) / update,
            update_per_token_pair_s=layer_passes * pair / update,
            forward_base_s=factors.micro_batch_overhead_s,
            forward_per_token_s=(layers + head) / forward,
            forward_per_token_pair_s=pair / forward,
            pipeline_stages=layout.pipeline_parallel,
            optimizer_s=self._optimizer_s(),
            step_overhead_s=factors.train_step_overhead_s,
        )

    def weight_publish_s(self) -> float:
        """Gather the shards of one replica; by disk, also write them."""
        factors, layout, size = self.factors, self.trainer_layout, self.model.weight_bytes
        missing = size * (1 - 1 / layout.pipeline_gpus)
        link = self.cluster.group_bytes_per_s(layout.pipeline_gpus)
        seconds = factors.weight_publish_overhead_s + missing / (
            link * factors.collective_efficiency
        )
        if self.weight_transfer == "disk":
            seconds += size / factors.disk_write_bytes_per_s
        return seconds

    def weight_load_s(self) -> float:
        """Disk: a node reads once for all its servers. Broadcast: all servers receive at once."""
        factors, size = self.factors, self.model.weight_bytes
        if self.weight_transfer == "disk":
            nodes = self.cluster.nodes_of(self.servers * self.server_layout.tensor_parallel)
            rate = min(factors.disk_read_bytes_per_s, factors.disk_read_total_bytes_per_s / nodes)
        else:
            link = self.cluster.network_bytes_per_s_per_gpu * factors.collective_efficiency
            rate = min(factors.broadcast_bytes_per_s, link)
        return factors.weight_load_overhead_s + size / rate

    def weight_load_shared_s(self) -> float:
        """None: `weight_load_s` is that of all servers at once."""
        return 0.0

    def switch_s(self, to: Phase) -> float:
        """Colocated: move one GPU's parameters and optimizer shard to or from host memory."""
        if to not in ("generate", "train"):
            raise ConfigError(f"switch to {to!r}: expected 'generate' or 'train'")
        layout = self.trainer_layout
        per_parameter = PARAMETER_BYTES + OPTIMIZER_BYTES / layout.data_parallel
        moved = per_parameter * self.model.parameters / layout.pipeline_gpus
        return self.factors.switch_overhead_s + moved / self.factors.host_bytes_per_s

    def client(self) -> ClientCost:
        """Nothing: milliseconds, where a step of the engine takes tens of them."""
        return ClientCost()

    def host(self) -> HostCost:
        """None: GPUs are not shared."""
        return HostCost()

    def _all_reduce_s_per_token(self, tensor_parallel: int, efficiency: float) -> float:
        """Time on the wire of one token's all-reduces; a ring moves 2 (tp - 1) / tp of the data."""
        reduces = ALL_REDUCES_PER_LAYER * self.model.num_layers
        size = reduces * self.model.hidden_size * ACTIVATION_BYTES
        moved = size * 2 * (tensor_parallel - 1) / tensor_parallel
        return moved / (self.cluster.group_bytes_per_s(tensor_parallel) * efficiency)

    def _optimizer_s(self) -> float:
        """Reduce-scatter fp32 gradients, Adam on a shard, all-gather fp16 parameters."""
        factors, layout = self.factors, self.trainer_layout
        shard = self.model.parameters / layout.pipeline_gpus
        dp = layout.data_parallel
        # Ranks run over tensor, then data, then pipeline parallelism, as in Megatron-Core.
        link = self.cluster.group_bytes_per_s(layout.tensor_parallel * dp)
        moved = shard * (GRADIENT_BYTES + PARAMETER_BYTES) * (dp - 1) / dp
        adam = (
            ADAM_BYTES
            * shard
            / dp
            / (self.cluster.gpu.hbm_bytes_per_s * factors.optimizer_bandwidth_efficiency)
        )
        return factors.optimizer_overhead_s + moved / (link * factors.collective_efficiency) + adam


def _fs(seconds: float) -> int:
    return round(seconds * FS_PER_S)
