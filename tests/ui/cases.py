"""What the tests of the page share."""

from __future__ import annotations

from areal_sim.plan import Question, offers

SCRIPT = "areal_sim/ui/script.py"


def small(**changes: object) -> Question:
    """A question that is estimated at once and simulated in tenths of a second."""
    known: dict[str, object] = {
        "model": "1.5b",
        "gpus": offers(["16xH100"]),
        "prompts_per_step": 32,
        "group_size": 4,
        "steps": 20,
        "max_response_tokens": 4096,
    }
    return Question(**{**known, **changes})  # type: ignore[arg-type]
