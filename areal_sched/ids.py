"""Identifiers. Every id is a counter that starts at zero; none is ever used twice in a run."""

from __future__ import annotations

from typing import NewType

RolloutId = NewType("RolloutId", int)
"""One answer being generated (a rollout), later one training record (a trajectory)."""

GroupId = NewType("GroupId", int)
"""The rollouts of one prompt in one pass over the data."""

PromptId = NewType("PromptId", int)
"""One prompt of the data set. The same prompt has a new group in every epoch."""

ServerId = NewType("ServerId", int)
"""One inference server: one engine replica, of one or more GPUs."""

TimerId = NewType("TimerId", int)
"""A timer the scheduler set for itself."""

WeightVersion = NewType("WeightVersion", int)
"""Weights after this many training steps; the first policy is version 0."""
