"""What an inference engine knows of one rollout."""

from __future__ import annotations


class Request:
    """One rollout in an engine.

    Args:
        rollout_id: who it is.
        prompt_tokens: tokens of the prompt; at least 1.
        total_tokens: tokens the whole answer will have; only the simulator knows.

    Attributes:
        generated_tokens: made so far, up to date while the request is not running.
        seen_tokens: context tokens that were in a KV cache once: prefilling them is recomputing.
        prefilled_tokens: context tokens that completed prefill steps put into the KV cache.
        chunk_tokens: those of the prefill step in progress.
        admission: number in the order in which an engine began to decode its requests.
        joined_step: decode steps that engine had done then.
    """

    __slots__ = (
        "admission",
        "chunk_tokens",
        "generated_tokens",
        "joined_step",
        "prefilled_tokens",
        "prompt_tokens",
        "rollout_id",
        "seen_tokens",
        "total_tokens",
    )

    def __init__(self, rollout_id: int, prompt_tokens: int, total_tokens: int) -> None:
        self.rollout_id = rollout_id
        self.prompt_tokens = prompt_tokens
        self.total_tokens = total_tokens
        self.generated_tokens = 0
        self.seen_tokens = 0
        self.prefilled_tokens = 0
        self.chunk_tokens = 0
        self.admission = -1
        self.joined_step = 0
