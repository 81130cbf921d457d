"""Limits and the two formulas of staleness."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from areal_sched import ConfigError, Limits
from areal_sched.staleness import admission_budget, lag


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"train_batch_rollouts": 0}, r"limits.train_batch_rollouts = 0: expected .* >= 1"),
        ({"train_batch_rollouts": 8.0}, r"limits.train_batch_rollouts = 8.0: expected a whole"),
        ({"train_batch_rollouts": True}, r"limits.train_batch_rollouts = True"),
        ({"group_size": 0}, r"limits.group_size = 0: expected a whole number >= 1"),
        ({"group_size": "2"}, r"limits.group_size = '2'"),
        ({"group_size": 3}, r"train_batch_rollouts = 8 is no multiple of limits.group_size = 3"),
        ({"eta": -1}, r"limits.eta = -1: expected a whole number >= 0"),
        ({"eta": 0.5}, r"limits.eta = 0.5"),
        ({"max_lag": -1}, r"limits.max_lag = -1"),
        ({"max_rollouts_in_flight": 0}, r"limits.max_rollouts_in_flight = 0"),
        (
            {"group_size": 4, "max_rollouts_in_flight": 3},
            r"max_rollouts_in_flight = 3 has no room for one group of 4",
        ),
        ({"max_failures_per_group": -1}, r"limits.max_failures_per_group = -1"),
        ({"max_failures_per_group": None}, r"limits.max_failures_per_group = None"),
    ],
)
def test_a_limit_out_of_range_is_named_with_its_value(bad: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Limits(**{"train_batch_rollouts": 8, **bad})


def test_unbounded_and_zero_are_both_allowed() -> None:
    limits = Limits(train_batch_rollouts=1, eta=None, max_lag=0, max_failures_per_group=0)
    assert (limits.eta, limits.max_lag) == (None, 0)


@given(
    eta=st.integers(0, 20),
    version=st.integers(0, 1000),
    batch=st.integers(1, 2000),
    admitted=st.integers(0, 10**6),
)
def test_the_budget_is_the_most_that_equation_3_allows(
    eta: int, version: int, batch: int, admitted: int
) -> None:
    """Paper, section 5.1: floor((N_r - 1) / B) <= i + eta."""
    budget = admission_budget(
        eta=eta, weight_version=version, train_batch_rollouts=batch, admitted_rollouts=admitted
    )
    assert budget is not None
    most = admitted + budget
    assert (most - 1) // batch <= version + eta
    assert most // batch > version + eta, "one more would be too many"


def test_an_unbounded_budget_is_none() -> None:
    assert (
        admission_budget(
            eta=None, weight_version=0, train_batch_rollouts=1, admitted_rollouts=10**9
        )
        is None
    )


def test_lag_is_counted_from_the_first_token() -> None:
    assert lag(consuming_version=7, first_version=4) == 3
