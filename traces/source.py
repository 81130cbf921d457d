"""What the simulator asks of a workload: the token counts of groups g, g + 1, ... on demand.

Sources here are random-access and deterministic: group g depends on the seed, g and the training
step alone, never on what was asked before. The randomness is Philox, a counter-based generator
(Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11): the block of groups is part
of its counter, so any block can be drawn without the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd

Floats = NDArray[np.float64]

BLOCK_GROUPS: Final = 64
"""Groups drawn together. Small requests pay for a whole block, large ones per-block overhead."""
_CHUNK_BLOCKS: Final = 16
"""Blocks computed together: few enough for their arrays to stay in the processor's cache."""
MAX_SEED: Final = 2**64 - 1


@dataclass(frozen=True, slots=True)
class GroupBatch:
    """Token counts of consecutive groups.

    Attributes:
        prompt_tokens: int64, shape (count,).
        response_tokens: int64, shape (count, group_size).
    """

    prompt_tokens: NDArray[np.int64]
    response_tokens: NDArray[np.int64]


class WorkloadSource(Protocol):
    """A workload as a function of the group's number."""

    def groups(self, first_group: int, count: int, *, group_size: int, step: float) -> GroupBatch:
        """Return groups ``first_group`` to ``first_group + count - 1``.

        Args:
            first_group: number of the first group, from 0.
            count: how many groups; ask for many at once, it is much cheaper.
            group_size: responses per prompt.
            step: training step at which they are sampled, for workloads that drift.

        Raises:
            ValueError: a negative number, or a group size below 1.
        """
        ...


def check_request(first_group: int, count: int, group_size: int, step: float) -> None:
    """Raise ValueError where the arguments of `WorkloadSource.groups` make no sense."""
    for name, value, least in (
        ("first_group", first_group, 0),
        ("count", count, 0),
        ("group_size", group_size, 1),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}, got {value}")
    if not (math.isfinite(step) and step >= 0):
        raise ValueError(f"step must be a finite number of at least 0, got {step}")


def check_seed(seed: int) -> None:
    """Raise ValueError where ``seed`` is no seed."""
    if not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed must be from 0 to 2**64 - 1, got {seed}")


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some blocks of groups, and which part of them was asked for.

    Attributes:
        uniforms: in [0, 1), shape (rows, groups of the blocks), the same for a group however the
            request is cut; row r does not depend on how many rows are drawn.
        wanted: the columns of ``uniforms`` that belong to the request.
        target: where they go among the groups of the request.
    """

    uniforms: Floats
    wanted: slice
    target: slice


def chunks(seed: int, stream: int, first_group: int, count: int, rows: int) -> Iterator[Chunk]:
    """Yield the random numbers of a request, some blocks at a time.

    Args:
        seed: the workload's seed.
        stream: keeps different kinds of workload with one seed apart.
        first_group: first group of the request.
        count: groups in the request.
        rows: uniform numbers per group.
    """
    end_group = first_group + count
    width = _CHUNK_BLOCKS * BLOCK_GROUPS
    # Blocks, not requests, decide where a chunk starts, and a block is always computed whole:
    # so a group's numbers meet the same vector instructions however the request is cut.
    for start in range(first_group - first_group % BLOCK_GROUPS, end_group, width):
        blocks = min(_CHUNK_BLOCKS, -(-(end_group - start) // BLOCK_GROUPS))
        uniforms = np.empty((rows, blocks, BLOCK_GROUPS))
        for index in range(blocks):
            counter = (stream << 192) | ((start // BLOCK_GROUPS + index) << 64)
            generator = np.random.Generator(np.random.Philox(key=seed, counter=counter))
            uniforms[:, index, :] = generator.random((rows, BLOCK_GROUPS))
        low, high = max(start, first_group), min(start + blocks * BLOCK_GROUPS, end_group)
        yield Chunk(
            uniforms=uniforms.reshape(rows, blocks * BLOCK_GROUPS),
            wanted=slice(low - start, high - start),
            target=slice(low - first_group, high - first_group),
        )


def tabulate(
    source: WorkloadSource, *, count: int, group_size: int, first_group: int = 0, step: float = 0.0
) -> pd.DataFrame:
    """Return groups of a source as a workload table, one prompt per group.

    Raises:
        ValueError: as `WorkloadSource.groups`; also where ``count`` is 0.
    """
    import pandas as pd

    from traces.schema import validate

    batch = source.groups(first_group, count, group_size=group_size, step=step)
    group_id = np.repeat(np.arange(first_group, first_group + count), group_size)
    return validate(
        pd.DataFrame(
            {
                "group_id": group_id,
                "prompt_id": group_id,
                "sample_index": np.tile(np.arange(group_size), count),
                "prompt_tokens": np.repeat(batch.prompt_tokens, group_size),
                "response_tokens": batch.response_tokens.reshape(-1),
            }
        )
    )
