"""Decode coefficients fitted to a measured table; everything else from another provider.

The table is a CSV with at least the columns ``tp, batch, ctx, step_ms``: one decode step of
``batch`` rollouts that hold ``ctx`` tokens each. Columns ``system`` and ``model`` are matched if
present; other columns are ignored.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from areal_sched.errors import ConfigError, nearest

from .protocol import FS_PER_S, ClientCost, CostProvider, HostCost, Phase, ServerCost, TrainerCost

if TYPE_CHECKING:
    from numpy.typing import NDArray

_COLUMNS = ("tp", "batch", "ctx", "step_ms")
_SELECTORS = ("system", "model")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class DecodeFit:
    """Decode step seconds = base + per_rollout * n + per_kv_token * kv, and how well it fits.

    Attributes:
        base_s: seconds a step.
        per_rollout_s: seconds a rollout in the batch.
        per_kv_token_s: seconds a token in the KV cache.
        cells: cells of the table it was fitted to.
        median_relative_error: over those cells.
        largest_relative_error: over those cells.
    """

    base_s: float
    per_rollout_s: float
    per_kv_token_s: float
    cells: int
    median_relative_error: float
    largest_relative_error: float

    def step_s(self, n: int, kv: int) -> float:
        """Seconds of one step of n rollouts that hold kv tokens together."""
        return self.base_s + self.per_rollout_s * n + self.per_kv_token_s * kv


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TableCosts:
    """A `CostProvider`: decode from a fit, the rest from `rest`.

    Attributes:
        fit: the fitted decode step.
        rest: provider of prefill, trainer, weights and switching; normally a `Roofline`.
        step_overhead_s: added to every decode step. A table composed from kernels has no engine
            overhead in it; one measured on a served engine has, and then this is 0.
        rollout_overhead_s: the same, per rollout.
    """

    fit: DecodeFit
    rest: CostProvider
    step_overhead_s: float
    rollout_overhead_s: float

    def __post_init__(self) -> None:
        for name in ("step_overhead_s", "rollout_overhead_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{name} = {value!r}: expected a finite number >= 0")

    def server(self) -> ServerCost:
        """The rest's server with its decode coefficients replaced."""
        fit = self.fit
        return dataclasses.replace(
            self.rest.server(),
            decode_base_fs=round((fit.base_s + self.step_overhead_s) * FS_PER_S),
            decode_per_rollout_fs=round((fit.per_rollout_s + self.rollout_overhead_s) * FS_PER_S),
            decode_per_kv_token_fs=round(fit.per_kv_token_s * FS_PER_S),
        )

    def trainer(self) -> TrainerCost:
        """The rest's trainer."""
        return self.rest.trainer()

    def weight_publish_s(self) -> float:
        """The rest's."""
        return self.rest.weight_publish_s()

    def weight_load_s(self) -> float:
        """The rest's."""
        return self.rest.weight_load_s()

    def weight_load_shared_s(self) -> float:
        """As the provider of the rest."""
        return self.rest.weight_load_shared_s()

    def switch_s(self, to: Phase) -> float:
        """The rest's."""
        return self.rest.switch_s(to)

    def client(self) -> ClientCost:
        """The rest's."""
        return self.rest.client()

    def host(self) -> HostCost:
        """The rest's."""
        return self.rest.host()


def fit_decode_table(
    path: str | Path,
    *,
    tensor_parallel: int,
    max_kv_tokens: int,
    system: str | None = None,
    model: str | None = None,
) -> DecodeFit:
    """Fit the decode step to a table, by non-negative least squares on relative error.

    Args:
        path: the CSV file.
        tensor_parallel: only rows with this ``tp``.
        max_kv_tokens: only rows with ``batch * ctx`` up to this; give the server's KV capacity,
            for a table may hold cells that could never run.
        system: only rows of this ``system``, if the file has that column.
        model: likewise.

    Raises:
        ConfigError: an unreadable file, a missing column, a bad number (file, line, column and
            value are named), or fewer than three rows that match.
    """
    path = Path(path)
    wanted = {"system": system, "model": model}
    cells = _read(path, tensor_parallel, max_kv_tokens, wanted)
    if len(cells) < 3:
        chosen = ", ".join(f"{key} {value!r}" for key, value in wanted.items() if value is not None)
        raise ConfigError(
            f"{path.name}: {len(cells)} rows with tp {tensor_parallel}"
            f"{', ' + chosen if chosen else ''} and at most {max_kv_tokens} KV tokens; a fit needs"
            " three"
        )
    return fit_decode(cells)


def fit_decode(cells: list[tuple[int, int, float]]) -> DecodeFit:
    """Fit (rollouts n, KV tokens kv, step seconds) cells; see `fit_decode_table`."""
    rollouts, kv_tokens, seconds = (
        np.array(column, dtype=float) for column in zip(*cells, strict=True)
    )
    terms = np.stack([np.ones_like(rollouts), rollouts, kv_tokens], axis=1)
    coefficients = nonnegative_least_squares(terms / seconds[:, None], np.ones_like(seconds))
    error = np.abs(terms @ coefficients / seconds - 1)
    base, per_rollout, per_kv_token = (float(value) for value in coefficients)
    return DecodeFit(
        base_s=base,
        per_rollout_s=per_rollout,
        per_kv_token_s=per_kv_token,
        cells=len(cells),
        median_relative_error=float(np.median(error)),
        largest_relative_error=float(error.max()),
    )


def nonnegative_least_squares(
    matrix: NDArray[np.float64], target: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The x >= 0 that minimises |matrix @ x - target|, for a handful of columns.

    The optimum is an ordinary least-squares solution on its own support, so trying every subset
    of columns finds it: 2^columns small solves.

    Args:
        matrix: (rows, columns).
        target: (rows,).
    """
    rows, columns = matrix.shape
    scale = np.linalg.norm(matrix, axis=0)
    scale[scale == 0] = 1.0
    best, best_residual = np.zeros(columns), float(np.linalg.norm(target))
    for size in range(1, min(rows, columns) + 1):
        for support in itertools.combinations(range(columns), size):
            part = list(support)
            solution = np.linalg.lstsq(matrix[:, part] / scale[part], target, rcond=None)[0]
            if np.any(solution < 0):
                continue
            residual = float(np.linalg.norm(matrix[:, part] / scale[part] @ solution - target))
            if residual < best_residual:
                best, best_residual = np.zeros(columns), residual
                best[part] = solution / scale[part]
    return best


def _read(
    path: Path, tensor_parallel: int, max_kv_tokens: int, wanted: dict[str, str | None]
) -> list[tuple[int, int, float]]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            rows = ((reader.line_num, row) for row in reader)
            return _select(path.name, header, rows, tensor_parallel, max_kv_tokens, wanted)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(f"{path.name}: cannot be read: {error}") from None


def _select(
    name: str,
    header: list[str],
    rows: Iterable[tuple[int, list[str]]],
    tensor_parallel: int,
    max_kv_tokens: int,
    wanted: dict[str, str | None],
) -> list[tuple[int, int, float]]:
    for column in _COLUMNS:
        if column not in header:
            raise ConfigError(f"{name}:1: missing column {column!r}{nearest(column, header)}")
    seen: dict[str, set[str]] = {key: set() for key in _SELECTORS if key in header}
    cells = []
    for line, row in rows:
        if not row:
            continue
        where = f"{name}:{line}"
        if len(row) != len(header):
            raise ConfigError(f"{where}: {len(row)} fields, the header has {len(header)}")
        value = dict(zip(header, row, strict=True))
        if any(wanted[key] not in (None, value[key]) for key in seen):
            continue
        for key in seen:
            seen[key].add(value[key])
        tp, batch, ctx, step_ms = (_number(where, column, value[column]) for column in _COLUMNS)
        if tp == tensor_parallel and batch * ctx <= max_kv_tokens:
            cells.append((int(batch), int(batch * ctx), step_ms / 1000))
    for key, values in seen.items():
        if len(values) > 1:
            raise ConfigError(
                f"{name}: column {key!r} has {', '.join(sorted(values))}: choose one of them"
            )
    return cells


def _number(where: str, column: str, text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    whole = column == "step_ms" or number == math.floor(number) if math.isfinite(number) else False
    if not (whole and number > 0):
        kind = "number" if column == "step_ms" else "integer"
        raise ConfigError(f"{where}: column {column!r}: {text!r}: expected a positive {kind}")
    return number
