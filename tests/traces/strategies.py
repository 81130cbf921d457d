"""Workload tables as hypothesis sees them."""

from __future__ import annotations

import itertools
import math

import pandas as pd
from hypothesis import strategies as st

from traces import validate

INT32_MAX = 2**31 - 1
INT64_MAX = 2**63 - 1


@st.composite
def response_spans(draw: st.DrawFn, response_tokens: int) -> tuple[tuple[int, int], ...]:
    inner = st.integers(1, max(1, response_tokens - 1))
    cuts = draw(st.lists(inner, max_size=3, unique=True)) if response_tokens > 1 else []
    edges = [0, *sorted(cuts), response_tokens]
    version = st.integers(0, INT64_MAX)
    return tuple((draw(version), b - a) for a, b in itertools.pairwise(edges))


@st.composite
def workloads(draw: st.DrawFn) -> pd.DataFrame:
    """Any valid workload, rows in any order."""
    ids = st.integers(0, INT64_MAX)
    prompts = draw(st.dictionaries(ids, st.integers(0, INT32_MAX), min_size=1, max_size=3))
    groups = draw(st.dictionaries(ids, st.sampled_from(sorted(prompts)), min_size=1, max_size=4))
    with_arrival, with_reward, with_spans = (draw(st.booleans()) for _ in range(3))
    rewards = st.floats(allow_nan=False, allow_infinity=False) | st.just(math.nan)
    rows = []
    for group_id, prompt_id in groups.items():
        for sample_index in range(draw(st.integers(1, 3))):
            response_tokens = draw(st.integers(1, INT32_MAX))
            row: dict[str, object] = {
                "group_id": group_id,
                "prompt_id": prompt_id,
                "sample_index": sample_index,
                "prompt_tokens": prompts[prompt_id],
                "response_tokens": response_tokens,
            }
            if with_arrival:
                row["arrival_ns"] = draw(st.integers(0, INT64_MAX))
            if with_reward:
                row["reward"] = draw(rewards)
            if with_spans:
                row["version_spans"] = draw(response_spans(response_tokens))
            rows.append(row)
    return validate(pd.DataFrame(draw(st.permutations(rows))))
