"""A run of prefill steps and the decode steps behind it at once.

Where rollouts wait, a server prefills before it decodes again: for one step where a rollout has
taken the place of another, for dozens after a weight update. If nothing comes between, all but the
last of these steps are full, so T tokens take ceil(T / chunk) steps; and since t s + t (t + 1) / 2
summed over the chunks of one context does not depend on where it is cut, so is their time known
without the steps, and with it the jump to the next finish. If something does come between, nothing
has been changed yet, and the prefill steps are walked one by one up to then.
"""

from __future__ import annotations

from heapq import heappop, heappush

from areal_sim.request import Request
from areal_sim.steps import ADMISSION_BITS, ADMISSION_MASK, DECODE, IDLE, Steps

RUN = 3
"""A run as the kind of the step in progress, beside those in `steps`."""


class PrefillRuns(Steps):
    """Steps of an engine, runs of prefill steps taken together with the jump that follows.

    A run in progress has changed nothing but ``_kind``, ``_end_fs``, ``_jump`` (decode steps behind
    its prefill steps, to the next finish or as far as the KV cache reaches) and the slots here;
    `Engine.advance` to a moment inside it leaves the step or jump of that moment in progress.
    """

    __slots__ = ("_run", "_run_end_fs", "_run_kv_tokens")

    def _begin(self) -> None:
        """Begin a run where there is something to prefill, else a jump; see `Steps._begin`."""
        if (self.waiting or self._prefilling) and not self.closed and self._begin_run():
            return
        Steps._begin(self)

    def _begin_run(self) -> bool:
        # Rule 2 for one request after the other, as the steps themselves would apply it.
        run: list[Request] = []
        tokens = pairs = kv_tokens = 0
        least_left = 1 << 62
        if self._prefilling:
            for request in self._prefilling:
                done = request.prefilled_tokens
                context = request.prompt_tokens + request.generated_tokens
                tokens += context - done
                pairs += context * (context + 1) // 2 - done * (done + 1) // 2
                least_left = min(least_left, request.total_tokens - request.generated_tokens - 1)
                run.append(request)
        running = self.running
        n = len(running) + len(run)
        most = self.max_running_rollouts
        reserve = self.kv_reserve_tokens
        kv = self.kv_tokens
        free = self.kv_cache_tokens - kv
        for request in self.waiting:
            generated = request.generated_tokens
            context = request.prompt_tokens + generated
            if n >= most or kv_tokens + context + reserve * (n + 1) > free:
                break
            n += 1
            kv_tokens += context
            tokens += context
            pairs += context * (context + 1) // 2
            left = request.total_tokens - generated - 1
            if left < least_left:
                least_left = left
            run.append(request)
        if not run or not least_left:
            # Nobody is admitted; or one finishes with its prefill, which has to be seen.
            return False
        chunk = self.prefill_chunk_tokens
        self._run = run
        self._run_kv_tokens = kv_tokens
        self._run_end_fs = end_fs = (
            self._clock_fs
            + self._prefill_base_fs * (1 if tokens <= chunk else -(-tokens // chunk))
            + self._prefill_rollout_fs * len(run)
            + self._prefill_token_fs * tokens
            + self._prefill_pair_fs * pairs
        )
        heap = self._finish
        while heap and heap[0] & ADMISSION_MASK not in running:
            heappop(heap)
        k = least_left
        if heap:
            first = (heap[0] >> ADMISSION_BITS) - self._steps
            if first < k:
                k = first
        kv += kv_tokens
        if kv + n * k > self.kv_cache_tokens:
            k = max(self.kv_cache_tokens - kv, 0) // n
        self._kind = RUN
        self._jump = k
        self._end_fs = (
            end_fs
            + k * (self._decode_base_fs + self._decode_rollout_fs * n)
            + self._decode_kv_fs * (k * kv + n * (k * (k - 1) // 2))
        )
        return True

    def _end_run(self, finished: list[Request]) -> None:
        """Do what all steps of the run would have done."""
        self._end_prefills()
        if self._jump:
            self._end_decode(finished)

    def _end_prefills(self) -> None:
        """Do what the prefill steps of the run would have done."""
        steps = self._steps
        admission = self._admissions
        running = self.running
        heap = self._finish
        waiting = self.waiting
        run = self._run
        prefilling = self._prefilling
        for _ in range(len(run) - len(prefilling)):
            waiting.popleft()
        prefilling.clear()
        prefilled = recompute_fs = 0
        for request in run:
            done = request.prefilled_tokens
            generated = request.generated_tokens
            prefilled += request.prompt_tokens + generated - done
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
        self.prefilled_tokens += prefilled
        self.generated_tokens += len(run)
        self.kv_tokens += self._run_kv_tokens
        end_fs = self._run_end_fs
        self.recompute_fs += recompute_fs
        self.prefill_fs += end_fs - self._clock_fs - recompute_fs
        self._clock_fs = end_fs

    def _walk_into(self, now_fs: int) -> None:
        """Walk the run up to now: the step or jump of this moment is in progress, if any is."""
        if self._run_end_fs <= now_fs:
            self._end_prefills()
            self._kind = IDLE if self._clock_fs == now_fs else DECODE
            return
        Steps._begin(self)
        while self._end_fs <= now_fs:
            self._end_prefill([])
            if self._clock_fs == now_fs:
                self._kind = IDLE
                return
            Steps._begin(self)
