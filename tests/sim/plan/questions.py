"""Questions that are answered in seconds."""

from __future__ import annotations

import dataclasses
from typing import Any

from areal_sim.plan import Question, offers

SMALL = Question(
    model="1.5b",
    gpus=offers(["8xH100"]),
    prompts_per_step=16,
    group_size=4,
    length_scale=0.15,
    max_prompt_tokens=256,
    max_response_tokens=2048,
    steps=40,
    eta=2,
)


def small(**changes: Any) -> Question:
    """The small question, changed."""
    return dataclasses.replace(SMALL, **changes)


ARGUMENTS = (
    *("--model", "1.5b", "--gpus", "8xH100", "--prompts-per-step", "16", "--group-size", "4"),
    *("--length-scale", "0.15"),
    *("--max-prompt-tokens", "256", "--max-response-tokens", "2048", "--steps", "40", "--eta", "2"),
)
"""The same as a command line."""
