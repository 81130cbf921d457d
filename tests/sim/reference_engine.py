"""The rules of `areal_sim.engine` step by step: slow, and written to be seen to be right.

One iteration of the loop in `ReferenceEngine.advance` is one prefill or decode step. There is no
jump, no look-ahead, no heap and no counter that something else could be derived from: the KV use,
for instance, is summed up anew each time. It shares with the engine under test only the record of
the coefficients and the order of calls: `advance`, whatever happens at this instant, `plan`.
"""

from __future__ import annotations

import dataclasses

from areal_sim.costs.protocol import FS_PER_NS, ServerCost


@dataclasses.dataclass(eq=False)
class ReferenceRequest:
    """One rollout.

    Attributes:
        cached_tokens: entries it has in the KV cache now.
        seen_tokens: entries it ever had in a KV cache at once.
    """

    rollout_id: int
    prompt_tokens: int
    total_tokens: int
    generated_tokens: int = 0
    cached_tokens: int = 0
    seen_tokens: int = 0

    @property
    def context_tokens(self) -> int:
        return self.prompt_tokens + self.generated_tokens

    @property
    def done(self) -> bool:
        return self.generated_tokens == self.total_tokens

    def drop_cache(self) -> None:
        self.seen_tokens = max(self.seen_tokens, self.cached_tokens)
        self.cached_tokens = 0


@dataclasses.dataclass
class Step:
    """A step in progress. Without chunks it is a decode step."""

    chunks: list[tuple[ReferenceRequest, int]]
    begin_fs: int
    end_fs: int


class ReferenceEngine:
    """Takes the same arguments and calls as `areal_sim.engine.Engine`."""

    def __init__(
        self,
        cost: ServerCost,
        *,
        max_running_rollouts: int,
        kv_cache_tokens: int,
        prefill_chunk_tokens: int,
        kv_reserve_tokens: int = 1,
    ) -> None:
        self.cost = cost
        self.max_running_rollouts = max_running_rollouts
        self.kv_cache_tokens = kv_cache_tokens
        self.prefill_chunk_tokens = prefill_chunk_tokens
        self.kv_reserve_tokens = kv_reserve_tokens
        self.waiting: list[ReferenceRequest] = []
        self.prefilling: list[ReferenceRequest] = []
        self.running: list[ReferenceRequest] = []
        self.step: Step | None = None
        self.now_fs = 0  # where the last step ended, or later
        self.closed = False
        self.held = False
        self.decode_fs = 0
        self.prefill_fs = 0
        self.recompute_fs = 0
        self.generated_tokens = 0
        self.prefilled_tokens = 0
        self.recomputed_tokens = 0
        self.preemptions = 0

    # ---- what one sees -------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        return not self.running and not self.prefilling

    @property
    def busy(self) -> bool:
        return self.step is not None

    @property
    def kv_tokens(self) -> int:
        reserved = sum(request.context_tokens for request in self.prefilling)
        return reserved + sum(request.cached_tokens for request in self.running)

    def next_visible_fs(self) -> int | None:
        return None if self.step is None else whole_ns(self.step.end_fs)

    # ---- calls ---------------------------------------------------------------------------------

    def submit(self, request: ReferenceRequest, now_fs: int) -> None:
        self.waiting.append(request)

    def advance(self, now_fs: int) -> list[ReferenceRequest]:
        """Walk to `now_fs`, but begin no step there: more may happen at this instant."""
        while self.step is not None and self.step.end_fs <= now_fs:
            finished = self.end_step(self.step)
            self.step = None
            if finished:
                assert self.now_fs == now_fs, "a finish was passed over"
                return finished
            if self.now_fs < now_fs:
                self.begin_step()
        if self.step is None:
            self.now_fs = now_fs
        return []

    def plan(self) -> None:
        if self.step is None and not self.held:
            self.begin_step()

    def boundary_fs(self, now_fs: int) -> int:
        """Somebody will look at the end of this step, so it is a whole nanosecond."""
        if self.step is None:
            return now_fs
        self.step.end_fs = whole_ns(self.step.end_fs)
        return self.step.end_fs

    def settle(self, now_fs: int) -> None:
        """Nothing to do: nothing here is ever behind."""

    def hold(self, now_fs: int) -> None:
        assert self.step is None
        self.held = True

    def release(self, now_fs: int) -> None:
        self.held = False
        self.now_fs = now_fs

    def take(self, now_fs: int, rollout_ids: set[int] | None = None) -> list[ReferenceRequest]:
        """Remove rollouts; a step in progress (a lost server) comes to nothing."""
        self.step = None
        self.now_fs = now_fs
        taken = []
        for place in (self.running, self.prefilling, self.waiting):
            for request in list(place):
                if rollout_ids is None or request.rollout_id in rollout_ids:
                    place.remove(request)
                    request.drop_cache()
                    taken.append(request)
        return taken

    # ---- rule 1: one step after another --------------------------------------------------------

    def begin_step(self) -> None:
        chunks = self.next_chunks()
        if chunks:
            duration_fs = self.prefill_duration_fs(chunks)
        elif self.running:
            self.preempt()
            duration_fs = (
                self.cost.decode_base_fs
                + self.cost.decode_per_rollout_fs * len(self.running)
                + self.cost.decode_per_kv_token_fs * self.kv_tokens
            )
        else:
            return
        self.step = Step(chunks, self.now_fs, self.now_fs + duration_fs)

    def end_step(self, step: Step) -> list[ReferenceRequest]:
        recompute_fs = 0
        if step.chunks:
            for request, tokens in step.chunks:
                recompute_fs += self.end_chunk(request, tokens)
        else:
            for request in self.running:
                request.cached_tokens += 1
                self.make_token(request)
        finished = [request for request in self.running if request.done]
        self.running = [request for request in self.running if not request.done]
        self.now_fs = whole_ns(step.end_fs) if finished else step.end_fs
        spent_fs = self.now_fs - step.begin_fs
        if step.chunks:
            self.recompute_fs += recompute_fs
            self.prefill_fs += spent_fs - recompute_fs
        else:
            self.decode_fs += spent_fs
        return finished

    def make_token(self, request: ReferenceRequest) -> None:
        request.generated_tokens += 1
        self.generated_tokens += 1

    # ---- rule 2: prefill -----------------------------------------------------------------------

    def next_chunks(self) -> list[tuple[ReferenceRequest, int]]:
        """Fill a prefill step: first the contexts begun, then the waiting, first come first."""
        chunks = []
        room = self.prefill_chunk_tokens
        begun = list(self.prefilling)
        while room > 0:
            if begun:
                request = begun.pop(0)
            elif self.waiting and self.admissible(self.waiting[0]):
                request = self.waiting.pop(0)
                self.prefilling.append(request)
            else:
                break
            tokens = min(room, request.context_tokens - request.cached_tokens)
            room -= tokens
            chunks.append((request, tokens))
        return chunks

    def admissible(self, request: ReferenceRequest) -> bool:
        others = len(self.running) + len(self.prefilling)
        if self.closed or others >= self.max_running_rollouts:
            return False
        reserve = self.kv_reserve_tokens * (others + 1)
        return self.kv_tokens + request.context_tokens + reserve <= self.kv_cache_tokens

    def prefill_duration_fs(self, chunks: list[tuple[ReferenceRequest, int]]) -> int:
        duration_fs = self.cost.prefill_base_fs
        for request, tokens in chunks:
            for position in range(request.cached_tokens, request.cached_tokens + tokens):
                duration_fs += self.token_duration_fs(position)
            if request.cached_tokens + tokens == request.context_tokens:
                duration_fs += self.cost.prefill_per_rollout_fs
        return duration_fs

    def token_duration_fs(self, position: int) -> int:
        """A token attends to those before it and to itself."""
        pair_fs = self.cost.prefill_per_token_pair_fs
        return self.cost.prefill_per_token_fs + pair_fs * (position + 1)

    def end_chunk(self, request: ReferenceRequest, tokens: int) -> int:
        """Returns the time that went into what had been in a cache before."""
        recompute_fs = 0
        for _ in range(tokens):
            position = request.cached_tokens
            self.prefilled_tokens += 1
            if position < request.seen_tokens:
                self.recomputed_tokens += 1
                recompute_fs += self.token_duration_fs(position)
            request.cached_tokens += 1
        if request.cached_tokens == request.context_tokens:
            if request.seen_tokens:
                recompute_fs += self.cost.prefill_per_rollout_fs
            self.prefilling.remove(request)
            self.running.append(request)
            self.make_token(request)
        return recompute_fs

    # ---- rule 3: where a decode step does not fit ----------------------------------------------

    def preempt(self) -> None:
        while self.kv_tokens + len(self.running) > self.kv_cache_tokens:
            request = self.running.pop()
            request.drop_cache()
            self.waiting.insert(0, request)
            self.preemptions += 1


def whole_ns(time_fs: int) -> int:
    """Rounded up to whole nanoseconds, in femtoseconds."""
    return -(-time_fs // FS_PER_NS) * FS_PER_NS
