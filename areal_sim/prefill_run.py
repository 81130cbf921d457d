"""A run of prefill steps at once: what a closed form saves after every weight update.

When interrupted rollouts come back, a server prefills for dozens of steps before it decodes again.
If nothing comes between, all but the last of these are full, so T tokens take ceil(T / chunk)
steps; and since t s + t (t + 1) / 2 summed over the chunks of one context does not depend on where
it is cut, so is the run's time known without the steps. If something does come between, nothing
has been changed yet, and the run is walked step by step up to then.
"""

from __future__ import annotations

from heapq import heappop, heappush

from areal_sim.costs.protocol import FS_PER_NS
from areal_sim.request import Request
from areal_sim.steps import ADMISSION_BITS, ADMISSION_MASK, IDLE, Steps

RUN = 3
"""A run of prefill steps as the kind of the step in progress, beside those in `steps`."""


class PrefillRuns(Steps):
    """Steps of an engine, runs of prefill steps taken together.

    A run in progress has changed nothing but ``_kind`` and ``_end_fs``; `Engine.advance` to a
    moment inside it leaves the step of that moment in progress instead.
    """

    __slots__ = ("_run", "_run_kv_tokens", "_run_least_left")

    def _begin(self) -> None:
        """Begin a run where more than one prefill step is to come, else a step or jump."""
        waiting = self.waiting
        if (len(waiting) > 1 or self._prefilling) and not self.closed and self._begin_run():
            return
        Steps._begin(self)

    def _begin_run(self) -> bool:
        # Rule 2 for one request after the other, as the steps themselves would apply it.
        run: list[Request] = []
        tokens = pairs = kv_tokens = 0
        least_left = 1 << 62
        for request in self._prefilling:
            done = request.prefilled_tokens
            context = request.prompt_tokens + request.generated_tokens
            tokens += context - done
            pairs += context * (context + 1) // 2 - done * (done + 1) // 2
            least_left = min(least_left, request.total_tokens - request.generated_tokens - 1)
            run.append(request)
        admitted = len(self.running) + len(run)
        most = self.max_running_rollouts
        reserve = self.kv_reserve_tokens
        free = self.kv_cache_tokens - self.kv_tokens
        for request in self.waiting:
            generated = request.generated_tokens
            context = request.prompt_tokens + generated
            admitted += 1
            if admitted > most or kv_tokens + context + reserve * admitted > free:
                break
            kv_tokens += context
            tokens += context
            pairs += context * (context + 1) // 2
            left = request.total_tokens - generated - 1
            if left < least_left:
                least_left = left
            run.append(request)
        chunk = self.prefill_chunk_tokens
        if tokens <= chunk or not least_left:
            # One step; or one in which a rollout finishes, which has to be seen.
            return False
        self._run = run
        self._run_kv_tokens = kv_tokens
        self._run_least_left = least_left
        self._kind = RUN
        self._end_fs = (
            self._clock_fs
            + self._prefill_base_fs * -(-tokens // chunk)
            + self._prefill_rollout_fs * len(run)
            + self._prefill_token_fs * tokens
            + self._prefill_pair_fs * pairs
        )
        return True

    def _end_run(self) -> None:
        """Do what all steps of the run would have done."""
        steps = self._steps
        admission = self._admissions
        running = self.running
        heap = self._finish
        waiting = self.waiting
        for _ in range(len(self._run) - len(self._prefilling)):
            waiting.popleft()
        self._prefilling.clear()
        recompute_fs = 0
        for request in self._run:
            done = request.prefilled_tokens
            generated = request.generated_tokens
            self.prefilled_tokens += request.prompt_tokens + generated - done
            again = request.seen_tokens - done
            if again > 0:
                self.recomputed_tokens += again
                recompute_fs += self._prefill_token_fs * again
                recompute_fs += self._prefill_pair_fs * (again * done + again * (again + 1) // 2)
            if request.seen_tokens:
                recompute_fs += self._prefill_rollout_fs
            request.prefilled_tokens = 0
            request.generated_tokens = generated = generated + 1
            admission += 1
            request.admission = admission
            request.joined_step = steps
            running[admission] = request
            heappush(heap, steps + request.total_tokens - generated << ADMISSION_BITS | admission)
        self._admissions = admission
        self.generated_tokens += len(self._run)
        self.kv_tokens += self._run_kv_tokens
        self.recompute_fs += recompute_fs
        self.prefill_fs += self._end_fs - self._clock_fs - recompute_fs
        self._clock_fs = self._end_fs
        self._run = []

    def _walk_into(self, now_fs: int) -> None:
        """Walk the run up to now: the prefill step of this moment is in progress, if any is."""
        self._run = []
        Steps._begin(self)
        while self._end_fs <= now_fs:
            self._end_prefill([])
            if self._clock_fs == now_fs:
                self._kind = IDLE
                return
            Steps._begin(self)

    def _run_visible_fs(self) -> int:
        """The first finish after the run, if nothing comes between; see `look_ahead`."""
        running = self.running
        heap = self._finish
        while heap and heap[0] & ADMISSION_MASK not in running:
            heappop(heap)
        n = len(running) + len(self._run)
        kv = self.kv_tokens + self._run_kv_tokens
        k = self._run_least_left
        if heap:
            k = min(k, (heap[0] >> ADMISSION_BITS) - self._steps)
        if kv + n * k > self.kv_cache_tokens:
            k = max(self.kv_cache_tokens - kv, 0) // n
        end_fs = self._end_fs + k * (self._decode_base_fs + self._decode_rollout_fs * n)
        end_fs += self._decode_kv_fs * (k * kv + n * (k * (k - 1) // 2))
        return -(-end_fs // FS_PER_NS) * FS_PER_NS
