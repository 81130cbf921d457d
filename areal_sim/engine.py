"""One inference engine: continuous batching, in closed form between events.

The model, step by step, as SGLang schedules (its default, without mixed chunks):

1. The engine does one step after another. Rollouts that came during a step wait for its end; those
   that come at its very end are in time for the next.
2. Where a waiting rollout can be admitted, the step is a *prefill*: up to ``prefill_chunk_tokens``
   tokens, first come first served; a longer context takes several steps. A rollout is admitted if
   there is room in the step, fewer than ``max_running_rollouts`` are running or prefilling, and the
   KV cache holds its context beside ``kv_reserve_tokens`` for it and each of those; its whole
   context is reserved at once. The step that completes a context also yields its next token.
3. Otherwise it is a *decode* step: each running rollout gets one token and one more KV entry.
   Where those do not fit, the rollout admitted last is preempted first: its KV cache is dropped
   and it waits again, ahead of the others.
4. A rollout leaves at the end of the step that makes its last token, with its KV cache.

Between a change of the batch and the next nothing else happens, so k decode steps of n rollouts
with kv resident tokens take k(a + b n + c kv) + c n k(k-1)/2, and the engine jumps. Time is integer
femtoseconds, in which all coefficients are whole numbers: the jump equals the walk exactly
(tests/sim/reference_engine.py walks). A step at whose end a rollout finishes, or for whose end
`Engine.boundary_fs` was asked, ends on a whole nanosecond, rounded up; the wait is part of it.
"""

from __future__ import annotations

from areal_sim.costs.protocol import FS_PER_NS, ServerCost, decode_time_fs, steps_within_fs
from areal_sim.look_ahead import first_finish_fs
from areal_sim.prefill_run import RUN, PrefillRuns
from areal_sim.request import Request
from areal_sim.steps import ADMISSION_BITS, DECODE, IDLE, PREFILL

__all__ = ["Engine", "Request"]


class Engine(PrefillRuns):
    """A closed-form continuous-batching engine; see the module's text for the model.

    At an instant: `advance` to it, answer what finished, do what else there is to do, then `plan`
    once. `next_visible_fs` says when to come back; coming earlier as well changes nothing. Times
    are femtoseconds on whole nanoseconds and never go back.

    Args:
        cost: coefficients of its steps.
        max_running_rollouts: bound on running and prefilling rollouts.
        kv_cache_tokens: KV entries that fit.
        prefill_chunk_tokens: tokens of one prefill step at most.
        kv_reserve_tokens: see rule 2; at least 1.

    Attributes:
        waiting: requests not yet admitted, in order.
        running: requests decoding, by and in order of admission.
        kv_tokens: resident or reserved KV entries.
        closed: admit nobody (draining); requests being prefilled go on. Open it at a boundary.
        decode_fs, prefill_fs, recompute_fs: busy time of completed steps, by kind.
        generated_tokens, prefilled_tokens, recomputed_tokens, preemptions: what they did.

    Raises:
        ValueError: a limit is below 1.
    """

    __slots__ = ()

    @property
    def busy(self) -> bool:
        """Whether a step is in progress."""
        return self._kind != IDLE

    @property
    def empty(self) -> bool:
        """Whether no request is running or prefilling; some may wait."""
        return not self.running and not self._prefilling

    # ---- at every instant ----------------------------------------------------------------------

    def advance(self, now_fs: int) -> list[Request]:
        """Do all steps that end by `now_fs`; return the requests they finished, in order.

        No step begins at `now_fs` itself: `plan` does that. A finished request's end is visible:
        do not advance past `next_visible_fs` without looking, or later steps would not know of
        what came in answer to it.
        """
        finished: list[Request] = []
        if self._kind == IDLE:
            self._clock_fs = now_fs
            return finished
        while self._end_fs <= now_fs:
            if self._kind == DECODE:
                self._end_decode(finished)
            elif self._kind == RUN:
                self._end_run(finished)
            else:
                self._end_prefill(finished)
                if self._foreseen_jump and self._clock_fs < now_fs:
                    self._kind = DECODE
                    self._jump = self._foreseen_jump
                    self._end_fs = self._foreseen_fs
                    continue
            self._kind = IDLE
            if finished or self._clock_fs == now_fs:
                return finished
            self._begin()
            if self._kind == IDLE:
                return finished
        if self._kind == RUN:
            # Something may come in the midst of it.
            self._walk_into(now_fs)
        return finished

    def submit(self, request: Request, now_fs: int) -> None:
        """Queue a request; `advance` to `now_fs` must have been called. `plan` when all are in.

        Raises:
            ValueError: it could never fit into the KV cache, or has nothing to generate.
        """
        needed = request.prompt_tokens + request.total_tokens + self.kv_reserve_tokens
        if needed > self.kv_cache_tokens:
            raise ValueError(
                f"rollout {request.rollout_id} needs {needed} KV tokens, "
                f"the server has {self.kv_cache_tokens}"
            )
        if request.generated_tokens >= request.total_tokens:
            raise ValueError(
                f"rollout {request.rollout_id} has {request.generated_tokens} of "
                f"{request.total_tokens} tokens: nothing to generate"
            )
        waiting = self.waiting
        waiting.append(request)
        if self._kind == DECODE:
            # Behind others it changes nothing: either they wait for KV cache or a running rollout's
            # place, or the jump was cut for them.
            if len(waiting) == 1 and self._admissible(request):
                self._cut(now_fs)
        elif self._kind == PREFILL:
            self._foreseen_jump = 0
            self._withdraw(now_fs)
        elif self._kind == RUN:
            self._kind = IDLE  # begun at this very instant; it has changed nothing

    def plan(self) -> None:
        """Begin the next step, once everything that happens at this instant is known."""
        if self._kind == IDLE and not self._held:
            self._begin()

    def next_visible_fs(self) -> int | None:
        """When the next request finishes if nothing comes between, on a whole nanosecond.

        May be earlier, but not before the end of the step in progress: a time to look again. None
        if nothing is in progress.
        """
        kind = self._kind
        if kind == IDLE:
            return None
        if kind == RUN or (
            kind == DECODE
            and (not self.waiting or self._finish[0] >> ADMISSION_BITS == self._steps + self._jump)
        ):
            return -(-self._end_fs // FS_PER_NS) * FS_PER_NS
        return first_finish_fs(self)

    # ---- now and then --------------------------------------------------------------------------

    def boundary_fs(self, now_fs: int) -> int:
        """End of the step in progress at `now_fs`, made a whole nanosecond; ends a jump there.

        `advance` to `now_fs` must have been called. If it is `now_fs`, act at once. If later,
        `advance` to it, then act. A step that would begin at `now_fs` has not begun.
        """
        if self._kind == DECODE:
            self._cut(now_fs)
        elif self._kind == PREFILL:
            self._withdraw(now_fs)
        elif self._kind == RUN:
            self._kind = IDLE  # begun at this very instant
        if self._kind == IDLE:
            return now_fs
        self._foreseen_jump = 0
        self._end_fs = -(-self._end_fs // FS_PER_NS) * FS_PER_NS
        return self._end_fs

    def hold(self, now_fs: int) -> None:
        """Stop at a boundary, KV cache kept; nothing happens until `release`."""
        self._stop(now_fs)
        self._held = True

    def release(self, now_fs: int) -> None:
        """Go on after `hold`."""
        self._held = False
        self._clock_fs = now_fs

    def change_cost(self, cost: ServerCost, now_fs: int) -> None:
        """Take so long from now on; at a boundary."""
        self._stop(now_fs)
        self._use(cost)

    def take(self, now_fs: int, rollout_ids: set[int] | None = None) -> list[Request]:
        """Remove requests at a boundary, KV cache dropped; None takes all.

        Not at a boundary (a server is lost), the step in progress comes to nothing.

        Returns:
            Them, running ones first, then prefilling, then waiting ones, with their progress.
        """
        self._stop(now_fs)
        if rollout_ids is None:
            return self._take_all()
        taken: list[Request] = []
        for request in list(self.running.values()):
            if request.rollout_id in rollout_ids:
                self._drop_running(request)
                taken.append(request)
        for request in list(self._prefilling):
            if request.rollout_id in rollout_ids:
                self._drop_prefilling(request)
                taken.append(request)
        waiting = list(self.waiting)
        self.waiting.clear()
        for request in waiting:
            if request.rollout_id in rollout_ids:
                taken.append(request)
            else:
                self.waiting.append(request)
        self._forget_finishes()
        return taken

    def _take_all(self) -> list[Request]:
        # What `_drop_running` and `_drop_prefilling` do for one: an update takes every rollout.
        taken = [*self.running.values()]
        steps = self._steps
        for request in taken:
            request.admission = -1
            generated = request.generated_tokens + steps - request.joined_step
            request.generated_tokens = generated
            request.seen_tokens = request.prompt_tokens + generated - 1
        for request in self._prefilling:
            request.seen_tokens = max(request.seen_tokens, request.prefilled_tokens)
            request.prefilled_tokens = 0
        taken += self._prefilling
        taken += self.waiting
        self.running.clear()
        self._finish.clear()
        self._prefilling.clear()
        self.waiting.clear()
        self.kv_tokens = 0
        return taken

    def settle(self, now_fs: int) -> None:
        """Count the steps that a jump in progress has completed by `now_fs`; changes no result.

        Counters, `kv_tokens` and `progress` are otherwise those of the last jump's end.
        """
        if self._kind != DECODE or now_fs <= self._clock_fs:
            return
        spent_fs = now_fs - self._clock_fs
        done = steps_within_fs(self.cost, len(self.running), self.kv_tokens, spent_fs)
        jump, end_fs = self._jump, self._end_fs
        # The jump's last step is complete at its end only, which may be rounded up.
        done = min(done, jump - 1)
        if done:
            self._jump = done
            self._end_fs = self._clock_fs + decode_time_fs(
                self.cost, len(self.running), self.kv_tokens, done
            )
            self._end_decode([])
            self._jump = jump - done
            self._end_fs = end_fs

    def progress(self, request: Request) -> int:
        """Tokens generated by completed steps; see `settle`."""
        if request.admission in self.running:
            return request.generated_tokens + self._steps - request.joined_step
        return request.generated_tokens

    def _stop(self, now_fs: int) -> None:
        """Leave off the step in progress, if any."""
        self.settle(now_fs)
        if self._kind == PREFILL:
            self._withdraw(now_fs)
        self._kind = IDLE
        self._clock_fs = now_fs
