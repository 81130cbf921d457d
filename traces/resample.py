"""Workloads drawn from the measured lengths of a workload table."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from traces.lengths import LogNormalPrompts, check_limits, student_t, tokens_from_log
from traces.schema import validate
from traces.source import Floats, GroupBatch, check_request, check_seed, chunks

if TYPE_CHECKING:
    import pandas as pd

Mode = Literal["by_prompt", "pooled"]

_RESAMPLED_STREAM: Final = 2
# Rows of uniform numbers per group: which prompt, its length where a model gives it, then the
# responses.
_PROMPT_ROW: Final = 0
_PROMPT_LENGTH_ROW: Final = 1
_FIRST_SAMPLE_ROW: Final = 3


class ResampledWorkload:
    """A `WorkloadSource` that draws prompts and their responses from a table.

    Group g depends only on the table, the seed, g and the group size. The training step has no
    influence: a table is one moment.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        *,
        seed: int,
        max_response_tokens: int,
        max_prompt_tokens: int,
        mode: Mode = "by_prompt",
        length_scale: float = 1.0,
        prompt_model: LogNormalPrompts | None = None,
    ) -> None:
        """Keep the table's lengths, sorted by prompt.

        Args:
            table: a workload; all groups of a prompt are drawn from together.
            seed: from 0 to 2**64 - 1.
            max_response_tokens: responses are clipped here, after scaling.
            max_prompt_tokens: prompts are clipped here.
            mode: "by_prompt" draws a prompt, each as likely, and then its responses: without
                replacement where it has as many as the group, else with. This keeps the
                correlation within a prompt. "pooled" draws every response from the whole table.
            length_scale: responses are made this many times as long, then rounded.
            prompt_model: prompt lengths in place of the table's.

        Raises:
            TraceError: the table is not a workload.
            ValueError: an argument is out of range, or the table does not record the lengths of
                prompts and there is no ``prompt_model``.
        """
        check_seed(seed)
        check_limits(max_response_tokens, max_prompt_tokens)
        if mode not in ("by_prompt", "pooled"):
            raise ValueError(f"mode must be 'by_prompt' or 'pooled', got {mode!r}")
        if not (math.isfinite(length_scale) and length_scale > 0):
            raise ValueError(f"length_scale must be finite and above 0, got {length_scale}")
        table = validate(table)
        order = np.argsort(_column(table, "prompt_id"), kind="stable")
        prompt_ids = _column(table, "prompt_id")[order]
        prompt_tokens = _column(table, "prompt_tokens")[order]
        if prompt_model is None and bool(np.any(prompt_tokens == 0)):
            raise ValueError("the table does not record prompt lengths: give a prompt_model")
        scaled = np.rint(_column(table, "response_tokens")[order] * length_scale)
        self._responses = np.clip(scaled, 1, max_response_tokens).astype(np.int64)
        _, starts = np.unique(prompt_ids, return_index=True)
        if mode == "pooled":
            # One pool of responses, but prompt lengths still come prompt by prompt.
            self._starts = np.zeros(len(starts), np.int64)
            self._sizes = np.full(len(starts), len(prompt_ids))
        else:
            self._starts = starts.astype(np.int64)
            self._sizes = np.diff(np.append(starts, len(prompt_ids)))
        self._prompts = np.clip(prompt_tokens[starts], 1, max_prompt_tokens)
        self._prompt_model = prompt_model
        self._max_prompt_tokens = max_prompt_tokens
        self._seed = seed
        self._mode = mode

    def groups(self, first_group: int, count: int, *, group_size: int, step: float) -> GroupBatch:
        """Return token counts of consecutive groups; see `WorkloadSource.groups`."""
        check_request(first_group, count, group_size, step)
        prompt_tokens = np.empty(count, np.int64)
        response_tokens = np.empty((count, group_size), np.int64)
        rows = _FIRST_SAMPLE_ROW + group_size
        for chunk in chunks(self._seed, _RESAMPLED_STREAM, first_group, count, rows):
            uniforms = chunk.uniforms
            prompt = _pick(uniforms[_PROMPT_ROW], len(self._prompts))
            chosen = self._samples(uniforms[_FIRST_SAMPLE_ROW:], self._sizes[prompt])
            responses = self._responses[self._starts[prompt] + chosen]
            prompt_tokens[chunk.target] = self._prompt_tokens(uniforms, prompt)[chunk.wanted]
            response_tokens[chunk.target] = responses[:, chunk.wanted].T
        return GroupBatch(prompt_tokens, response_tokens)

    def _prompt_tokens(self, uniforms: Floats, prompt: NDArray[np.int64]) -> NDArray[np.int64]:
        if self._prompt_model is None:
            return self._prompts[prompt]
        normal = student_t(uniforms[_PROMPT_LENGTH_ROW], uniforms[_PROMPT_LENGTH_ROW + 1], math.inf)
        log_tokens = self._prompt_model.mu + self._prompt_model.sigma * normal
        return tokens_from_log(log_tokens, self._max_prompt_tokens)

    def _samples(self, uniforms: Floats, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return which of its prompt's samples each response is, shape (group_size, groups)."""
        chosen = _pick(uniforms, sizes)
        if self._mode == "by_prompt":
            enough = sizes >= len(uniforms)
            chosen[:, enough] = _pick_distinct(uniforms[:, enough], sizes[enough])
        return chosen


def _column(table: pd.DataFrame, name: str) -> NDArray[np.int64]:
    values: NDArray[Any] = table[name].to_numpy()
    return values.astype(np.int64)


def _pick(uniforms: Floats, sizes: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """Return whole numbers in [0, sizes), uniform."""
    # A uniform number just below 1 times a large size may round up to the size itself.
    chosen: NDArray[np.int64] = np.minimum((uniforms * sizes).astype(np.int64), sizes - 1)
    return chosen


def _pick_distinct(uniforms: Floats, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return whole numbers in [0, sizes), no two equal in a column.

    The first steps of a Fisher-Yates shuffle in every column at once. Only the places that were
    swapped are remembered, so a prompt with many samples costs no more than one with few.

    Args:
        uniforms: in [0, 1), shape (picks, groups).
        sizes: at least ``picks``, shape (groups,).
    """
    picks, groups = uniforms.shape
    chosen = np.empty((picks, groups), np.int64)
    places = np.empty((picks, groups), np.int64)
    contents = np.empty((picks, groups), np.int64)

    def content(place: NDArray[np.int64], swaps: int) -> NDArray[np.int64]:
        if not swaps:
            return place
        # The latest swap of a place counts, so look at them backwards.
        same = places[:swaps][::-1] == place
        latest = swaps - 1 - np.argmax(same, axis=0)
        return np.where(same.any(axis=0), contents[latest, np.arange(groups)], place)

    for index in range(picks):
        place = index + _pick(uniforms[index], sizes - index)
        chosen[index] = content(place, index)
        contents[index] = content(np.full(groups, index), index)
        places[index] = place
    return chosen
