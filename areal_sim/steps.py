"""The steps of an inference engine: which comes next, how long it takes, what it changes.

The rules are those in `areal_sim.engine`, whose numbers the comments give.
"""

from __future__ import annotations

from collections import deque
from heapq import heapify, heappop, heappush

from areal_sim.costs.protocol import FS_PER_NS, ServerCost, decode_time_fs, steps_within_fs
from areal_sim.request import Request

IDLE, PREFILL, DECODE = 0, 1, 2
"""Kinds of the step in progress."""

ADMISSION_BITS = 40
"""A heap key is finish step << ADMISSION_BITS | admission: one int compares faster than a tuple."""

ADMISSION_MASK = (1 << ADMISSION_BITS) - 1


class Steps:
    """State of an engine and the steps that change it; `areal_sim.engine.Engine` is its outside.

    What holds between calls: the step in progress began at ``_clock_fs`` and ends at ``_end_fs``;
    without one, ``_clock_fs`` is where the last ended or later. ``_prefilling`` is what the prefill
    step in progress works on; every context but the last is completed by it, so that between steps
    there is at most one. A heap key whose admission is not in ``running`` is out of date.
    """

    __slots__ = (
        "_admissions",
        "_clock_fs",
        "_decode_base_fs",
        "_decode_kv_fs",
        "_decode_rollout_fs",
        "_end_fs",
        "_finish",
        "_foreseen_fs",
        "_foreseen_jump",
        "_held",
        "_jump",
        "_kind",
        "_prefill_base_fs",
        "_prefill_pair_fs",
        "_prefill_rollout_fs",
        "_prefill_token_fs",
        "_prefilling",
        "_steps",
        "closed",
        "cost",
        "decode_fs",
        "generated_tokens",
        "kv_cache_tokens",
        "kv_reserve_tokens",
        "kv_tokens",
        "max_running_rollouts",
        "preemptions",
        "prefill_chunk_tokens",
        "prefill_fs",
        "prefilled_tokens",
        "recompute_fs",
        "recomputed_tokens",
        "running",
        "waiting",
    )

    def __init__(
        self,
        cost: ServerCost,
        *,
        max_running_rollouts: int,
        kv_cache_tokens: int,
        prefill_chunk_tokens: int,
        kv_reserve_tokens: int = 1,
    ) -> None:
        for name, value in (
            ("max_running_rollouts", max_running_rollouts),
            ("kv_cache_tokens", kv_cache_tokens),
            ("prefill_chunk_tokens", prefill_chunk_tokens),
            ("kv_reserve_tokens", kv_reserve_tokens),
        ):
            if value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1")
        self._use(cost)
        self.max_running_rollouts = max_running_rollouts
        self.kv_cache_tokens = kv_cache_tokens
        self.prefill_chunk_tokens = prefill_chunk_tokens
        self.kv_reserve_tokens = kv_reserve_tokens
        self.waiting: deque[Request] = deque()
        self.running: dict[int, Request] = {}
        self.kv_tokens = 0
        self.closed = False
        self.decode_fs = 0
        self.prefill_fs = 0
        self.recompute_fs = 0
        self.generated_tokens = 0
        self.prefilled_tokens = 0
        self.recomputed_tokens = 0
        self.preemptions = 0
        self._prefilling: list[Request] = []
        self._finish: list[int] = []  # heap of keys, see ADMISSION_BITS
        self._admissions = 0
        self._steps = 0  # decode steps done; rollouts finish at a number of them
        self._held = False
        self._kind = IDLE
        self._clock_fs = 0
        self._end_fs = 0
        self._jump = 0  # decode steps of the jump in progress
        # The jump after the prefill step in progress and its end, where the look-ahead knows them.
        self._foreseen_jump = 0
        self._foreseen_fs = 0

    def _use(self, cost: ServerCost) -> None:
        self.cost = cost
        self._decode_base_fs = cost.decode_base_fs
        self._decode_rollout_fs = cost.decode_per_rollout_fs
        self._decode_kv_fs = cost.decode_per_kv_token_fs
        self._prefill_base_fs = cost.prefill_base_fs
        self._prefill_rollout_fs = cost.prefill_per_rollout_fs
        self._prefill_token_fs = cost.prefill_per_token_fs
        self._prefill_pair_fs = cost.prefill_per_token_pair_fs

    # ---- beginnings ----------------------------------------------------------------------------

    def _begin(self) -> None:
        """Choose the next step (prefill) or jump (decode) at ``_clock_fs``; rules 2 and 3."""
        if (self.waiting or self._prefilling) and self._begin_prefill():
            return
        running = self.running
        n = len(running)
        if not n:
            return
        heap = self._finish
        while heap[0] & ADMISSION_MASK not in running:
            heappop(heap)
        kv = self.kv_tokens
        k = (heap[0] >> ADMISSION_BITS) - self._steps
        if kv + n * k > self.kv_cache_tokens:
            k = (self.kv_cache_tokens - kv) // n
            if k == 0:
                self._preempt()
                # Nobody preempted can be admitted at once: its context and the reserves of all
                # need at least the room that was not there. So this begins a decode step.
                self._begin()
                return
        self._kind = DECODE
        self._jump = k
        self._end_fs = (
            self._clock_fs
            + k * (self._decode_base_fs + self._decode_rollout_fs * n)
            + self._decode_kv_fs * (k * kv + n * (k * (k - 1) // 2))
        )

    def _begin_prefill(self) -> bool:
        """Begin a prefill step if there is anything to prefill."""
        room = self.prefill_chunk_tokens
        tokens = pairs = 0
        cut = False  # whether the last context is not completed
        prefilling = self._prefilling
        for request in prefilling:
            done = request.prefilled_tokens
            chunk = request.prompt_tokens + request.generated_tokens - done
            if chunk > room:
                chunk = room
                cut = True
            request.chunk_tokens = chunk
            room -= chunk
            tokens += chunk
            pairs += chunk * done + chunk * (chunk + 1) // 2
        waiting = self.waiting
        if waiting and room and not self.closed:
            admitted = len(self.running) + len(prefilling)
            most = self.max_running_rollouts
            reserve = self.kv_reserve_tokens
            free = self.kv_cache_tokens - self.kv_tokens
            while waiting and room and admitted < most:
                request = waiting[0]
                context = request.prompt_tokens + request.generated_tokens
                admitted += 1
                if context + reserve * admitted > free:
                    break
                free -= context
                prefilling.append(waiting.popleft())
                chunk = context
                if chunk > room:
                    chunk = room
                    cut = True
                request.chunk_tokens = chunk
                room -= chunk
                tokens += chunk
                pairs += chunk * (chunk + 1) // 2
            self.kv_tokens = self.kv_cache_tokens - free
        if not prefilling:
            return False
        self._kind = PREFILL
        self._foreseen_jump = 0
        self._end_fs = (
            self._clock_fs
            + self._prefill_base_fs
            + self._prefill_rollout_fs * (len(prefilling) - cut)
            + self._prefill_token_fs * tokens
            + self._prefill_pair_fs * pairs
        )
        return True

    def _admissible(self, request: Request) -> bool:
        """Whether a prefill step could begin with this request now."""
        admitted = len(self.running) + len(self._prefilling) + 1
        needed = request.prompt_tokens + request.generated_tokens
        needed += self.kv_reserve_tokens * admitted
        return (
            not self.closed
            and admitted <= self.max_running_rollouts
            and self.kv_tokens + needed <= self.kv_cache_tokens
        )

    # ---- ends ----------------------------------------------------------------------------------

    def _end_decode(self, finished: list[Request]) -> None:
        k = self._jump
        running = self.running
        grown = len(running) * k
        kv = self.kv_tokens + grown
        end_fs = self._end_fs
        self.generated_tokens += grown
        self._steps = steps = self._steps + k
        heap = self._finish
        while heap and heap[0] >> ADMISSION_BITS == steps:
            request = running.pop(heappop(heap) & ADMISSION_MASK, None)
            if request is not None:
                request.admission = -1
                request.generated_tokens = request.total_tokens
                kv -= request.prompt_tokens + request.total_tokens - 1
                finished.append(request)
        if finished:
            end_fs = -(-end_fs // FS_PER_NS) * FS_PER_NS
        self.kv_tokens = kv
        self.decode_fs += end_fs - self._clock_fs
        self._clock_fs = end_fs

    def _end_prefill(self, finished: list[Request]) -> None:
        recompute_fs = 0
        prefilling = self._prefilling
        begun: Request | None = None
        for request in prefilling:
            done = request.prefilled_tokens
            chunk = request.chunk_tokens
            self.prefilled_tokens += chunk
            if done < request.seen_tokens:
                # What was computed before comes first in the context.
                again = request.seen_tokens - done
                if again > chunk:
                    again = chunk
                self.recomputed_tokens += again
                recompute_fs += self._prefill_token_fs * again
                recompute_fs += self._prefill_pair_fs * (again * done + again * (again + 1) // 2)
            generated = request.generated_tokens
            if done + chunk < request.prompt_tokens + generated:
                request.prefilled_tokens = done + chunk
                begun = request
                break
            if request.seen_tokens:
                recompute_fs += self._prefill_rollout_fs
            request.prefilled_tokens = 0
            request.generated_tokens = generated = generated + 1
            self.generated_tokens += 1
            left = request.total_tokens - generated
            if not left:
                self.kv_tokens -= request.prompt_tokens + generated - 1
                finished.append(request)
                continue
            self._admissions = admission = self._admissions + 1
            request.admission = admission
            request.joined_step = self._steps
            self.running[admission] = request
            heappush(self._finish, self._steps + left << ADMISSION_BITS | admission)
        prefilling.clear()
        if begun is not None:
            prefilling.append(begun)
        end_fs = self._end_fs
        if finished:
            end_fs = -(-end_fs // FS_PER_NS) * FS_PER_NS
        self.recompute_fs += recompute_fs
        self.prefill_fs += end_fs - self._clock_fs - recompute_fs
        self._clock_fs = end_fs

    # ---- changes of course ---------------------------------------------------------------------

    def _cut(self, now_fs: int) -> None:
        """Shorten the jump to the first step boundary at or after `now_fs`.

        If that is `now_fs` itself, the steps before it are done and no step is in progress.
        """
        spent_fs = now_fs - self._clock_fs
        if spent_fs <= 0:
            self._kind = IDLE
            return
        n, kv = len(self.running), self.kv_tokens
        k = steps_within_fs(self.cost, n, kv, spent_fs)
        cut_fs = decode_time_fs(self.cost, n, kv, k)
        if cut_fs < spent_fs:
            k += 1
            cut_fs = decode_time_fs(self.cost, n, kv, k)
        if k >= self._jump:
            return
        self._jump = k
        self._end_fs = self._clock_fs + cut_fs
        if cut_fs == spent_fs:
            self._end_decode([])
            self._kind = IDLE

    def _withdraw(self, now_fs: int) -> None:
        """Undo the beginning of a prefill step at this very instant, with its admissions."""
        if self._clock_fs < now_fs:
            return
        self._kind = IDLE
        prefilling = self._prefilling
        while prefilling and not prefilling[-1].prefilled_tokens:
            request = prefilling.pop()
            self.kv_tokens -= request.prompt_tokens + request.generated_tokens
            self.waiting.appendleft(request)

    def _drop_running(self, request: Request) -> None:
        """Take a request out of the batch with its KV cache, keeping what it generated."""
        del self.running[request.admission]
        request.admission = -1
        request.generated_tokens += self._steps - request.joined_step
        resident = request.prompt_tokens + request.generated_tokens - 1
        self.kv_tokens -= resident
        request.seen_tokens = resident

    def _drop_prefilling(self, request: Request) -> None:
        """The same for a request whose context is not yet complete."""
        self._prefilling.remove(request)
        self.kv_tokens -= request.prompt_tokens + request.generated_tokens
        request.seen_tokens = max(request.seen_tokens, request.prefilled_tokens)
        request.prefilled_tokens = 0

    def _forget_finishes(self) -> None:
        """Remove the heap's keys of requests that were dropped."""
        running = self.running
        self._finish = [key for key in self._finish if key & ADMISSION_MASK in running]
        heapify(self._finish)

    def _preempt(self) -> None:
        """Make room for one decode step (rule 3)."""
        running = self.running
        while self.kv_tokens + len(running) > self.kv_cache_tokens:
            request = running[next(reversed(running))]
            self._drop_running(request)
            self.waiting.appendleft(request)
            self.preemptions += 1
