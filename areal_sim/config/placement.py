"""How the GPUs of a cluster are divided between generation and training.

Separate placement: ``cluster.generation_share`` of all GPUs, rounded to whole servers, generate
(the paper: 75 %); of the others the trainer takes as many whole data-parallel ranks as fit.
Colocated: as many servers as fit, and as many ranks as fit, on the same GPUs in turn. GPUs left
over stay unused but are paid for: GPU-hours count all of the cluster.
"""

from __future__ import annotations

import dataclasses
import math

from areal_sched.errors import ConfigError
from areal_sim.config.shared import ClusterConfig

_MOST_NODES = 10_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Who has which GPUs.

    Attributes:
        generation_gpus: GPUs of all servers.
        servers: inference servers.
        training_gpus: GPUs of the trainer; the same ones where colocated.
        data_parallel_ranks: replicas of the trainer.
        unused_gpus: GPUs that neither generate nor train.
    """

    generation_gpus: int
    servers: int
    training_gpus: int
    data_parallel_ranks: int
    unused_gpus: int


def place(cluster: ClusterConfig, *, server_gpus: int, rank_gpus: int) -> Placement:
    """Divide the GPUs.

    Args:
        cluster: the GPUs and the kind of placement.
        server_gpus: GPUs of one server, its tensor parallelism.
        rank_gpus: GPUs of one data-parallel rank: tensor times pipeline parallelism.

    Raises:
        ConfigError: not one server or not one rank fits; the message says what would.
    """
    servers, ranks = _fit(cluster, cluster.nodes, server_gpus, rank_gpus)
    if servers < 1 or ranks < 1:
        raise ConfigError(_why(cluster, server_gpus, rank_gpus))
    generating, training = servers * server_gpus, ranks * rank_gpus
    both = max(generating, training) if cluster.colocated else generating + training
    return Placement(
        generation_gpus=generating,
        servers=servers,
        training_gpus=training,
        data_parallel_ranks=ranks,
        unused_gpus=cluster.gpus - both,
    )


def _fit(cluster: ClusterConfig, nodes: int, server_gpus: int, rank_gpus: int) -> tuple[int, int]:
    """(servers, ranks) on that many nodes."""
    gpus = nodes * cluster.gpus_per_node
    if cluster.generation_share is None:
        return gpus // server_gpus, gpus // rank_gpus
    # Half a server is rounded up: floor(x + 1/2), since round() would round to even.
    servers = math.floor(gpus * cluster.generation_share / server_gpus + 0.5)
    return servers, (gpus - servers * server_gpus) // rank_gpus


def _why(cluster: ClusterConfig, server_gpus: int, rank_gpus: int) -> str:
    """What does not fit, and what would."""
    gpus, share = cluster.gpus, cluster.generation_share
    needs = (
        f"a server needs sim.server.tensor_parallel = {server_gpus}, a data-parallel rank"
        f" sim.trainer.tensor_parallel * pipeline_parallel = {rank_gpus}"
    )
    enough = (
        nodes
        for nodes in range(cluster.nodes + 1, _MOST_NODES)
        if min(_fit(cluster, nodes, server_gpus, rank_gpus)) >= 1
    )
    remedies = [f"cluster.nodes = {nodes}" for nodes in [next(enough, None)] if nodes]
    if share is None:
        if gpus >= server_gpus:
            remedies.append(f"a rank of at most {gpus} GPUs")
        return f"cluster.colocated = true: {gpus} GPUs, but {needs}; would fit: {_or(remedies)}"
    generating = _fit(cluster, cluster.nodes, server_gpus, rank_gpus)[0] * server_gpus
    most = (gpus - rank_gpus) // server_gpus
    if most >= 1:
        low, high = server_gpus / gpus, most * server_gpus / gpus
        between = f"= {low:.4g}" if most == 1 else f"from {low:.4g} to {high:.4g}"
        remedies.append(f"cluster.generation_share {between}")
    if 0 < generating < gpus:
        remedies.append(f"a rank of at most {gpus - generating} GPUs")
    return (
        f"cluster.generation_share = {share!r}: of {gpus} GPUs {min(generating, gpus)} generate and"
        f" {max(gpus - generating, 0)} train, but {needs}; would fit: {_or(remedies)}"
    )


def _or(remedies: list[str]) -> str:
    return ", or ".join(remedies) if remedies else "smaller servers and ranks"
