"""One inference engine: continuous batching, in closed form between events.

The model, step by step, as SGLang schedules (its default, without mixed chunks):

1. The engine does one step after another. Rollouts that came during a step wait for its end.
2. Where a waiting rollout can be admitted, the step is a *prefill*: up to ``prefill_chunk_tokens``
   tokens, first come first served; a longer context takes several steps. A rollout is admitted if
   fewer than ``max_running_rollouts`` are running or prefilling and the KV cache holds its context
   beside ``kv_reserve_tokens`` for it and each of those; its whole context is reserved at once.
   The step that completes a context also yields its next token.
3. Otherwise it is a *decode* step: each running rollout gets one token and one more KV entry.
   Where those do not fit, the rollout admitted last is preempted first: its KV cache is dropped
   and it waits again, ahead of the others.
4. A rollout leaves at the end of the step that makes its last token, with its KV cache.

Between a change of the batch and the next nothing else happens, so k decode steps of n rollouts
with kv resident tokens take k(a + b n + c kv) + c n k(k-1)/2, and the engine jumps. Time is integer
femtoseconds, in which all coefficients are whole numbers: the jump equals the walk exactly
(tests/sim/reference_engine.py walks). A step at whose end somebody outside may notice something
ends on a whole nanosecond, rounded up.
"""

from __future__ import annotations

from collections import deque
from heapq import heappop, heappush

from areal_sim.costs.protocol import FS_PER_NS, ServerCost, decode_time_fs, steps_within_fs


class Request:
    """One rollout in an engine.

    Attributes:
        rollout_id: who it is.
        prompt_tokens: tokens of the prompt.
        total_tokens: tokens the whole answer will have; only the simulator knows.
        generated_tokens: made so far, up to date while the request is not running.
        seen_tokens: context tokens that were in a KV cache once: prefilling them is recomputing.
    """

    __slots__ = (
        "admission",
        "finish_step",
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
        self.joined_step = 0
        self.finish_step = -1
        self.admission = -1


class Engine:
    """A closed-form continuous-batching engine; see the module's text for the model.

    Times are femtoseconds. Calls must not go back in time.

    Args:
        cost: coefficients of its steps.
        max_running_rollouts: bound on running and prefilling rollouts.
        kv_cache_tokens: KV entries that fit.
        prefill_chunk_tokens: tokens of one prefill step at most.
        kv_reserve_tokens: see rule 2; at least 1.

    Attributes:
        waiting: requests not yet admitted, in order.
        running: requests decoding, in order of admission.
        kv_tokens: resident or reserved KV entries.
        closed: admit nobody (draining); requests being prefilled go on.
        decode_fs, prefill_fs, recompute_fs: busy time of completed steps, by kind.
        generated_tokens, prefilled_tokens, recomputed_tokens, preemptions: what they did.
    """

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
        self._a = cost.decode_base_fs
        self._b = cost.decode_per_rollout_fs
        self._c = cost.decode_per_kv_token_fs
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
        self._clock_fs = 0  # the last step boundary
        self._steps = 0  # decode steps done; rollouts finish at a number of them
        self._finish: list[tuple[int, int, Request]] = []
        self._prefilling: deque[Request] = deque()  # admitted, contexts not yet complete
        self._admissions = 0
        self._held = False
        self._kind = 0  # the step or jump in progress: 0 none, 1 prefill, 2 decode
        self._end_fs = 0
        self._jump = 0  # decode steps of the jump in progress

    # ---- from outside --------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a step is in progress or could be."""
        return self._kind != 0

    @property
    def empty(self) -> bool:
        """Whether no request is running or prefilling; some may wait."""
        return not self.running and not self._prefilling

    def submit(self, request: Request, now_fs: int) -> None:
        """Queue a request; `advance` to `now_fs` must have been called. `plan` when all are in.

        Raises:
            ValueError: it could never fit into the KV cache.
        """
        needed = request.prompt_tokens + request.total_tokens + self.kv_reserve_tokens
        if needed > self.kv_cache_tokens:
            raise ValueError(
                f"rollout {request.rollout_id} needs {needed} KV tokens, "
                f"the server has {self.kv_cache_tokens}"
            )
        self.waiting.append(request)
        kind = self._kind
        if kind == 0:
            if self._clock_fs < now_fs and not self._held:
                self._clock_fs = now_fs
        elif kind == 2 and len(self.waiting) == 1 and self._admissible(request):
            self._cut(now_fs)

    def advance(self, now_fs: int) -> list[Request]:
        """Do all steps that end by `now_fs`; return the requests they finished, in order.

        A finished request's end is visible: do not advance past `next_visible_fs` without
        looking, or later steps would not know of what came in answer to it.
        """
        finished: list[Request] = []
        while self._kind and self._end_fs <= now_fs and not finished:
            if self._kind == 2:
                self._end_decode(finished)
            else:
                self._end_prefill(finished)
            self._kind = 0
            if not finished:
                self._plan()
        return finished

    def plan(self) -> None:
        """Begin the next step, once everything that happens at this instant is known."""
        if not self._kind and not self._held:
            self._plan()

    def boundary_fs(self, now_fs: int) -> int:
        """End of the step in progress at `now_fs`, on a whole nanosecond; cut a jump there.

        `advance` to `now_fs` must have been called. Idle engines have their boundary now.
        """
        if self._kind == 0:
            return now_fs
        if self._kind == 2:
            self._cut(now_fs)
            if self._kind == 0:
                return now_fs
        return -(-self._end_fs // FS_PER_NS) * FS_PER_NS

    def hold(self, now_fs: int) -> None:
        """Stop at a boundary, KV cache kept; nothing happens until `release`."""
        self._held = True
        self._kind = 0
        self._clock_fs = now_fs

    def release(self, now_fs: int) -> None:
        """Go on after `hold`."""
        self._held = False
        self._clock_fs = now_fs

    def take(self, now_fs: int, rollout_ids: set[int] | None = None) -> list[Request]:
        """Remove requests at a boundary, KV cache dropped; None takes all.

        Returns:
            Them, running ones first, with their progress up to date.
        """
        taken: list[Request] = []
        for request in list(self.running.values()):
            if rollout_ids is None or request.rollout_id in rollout_ids:
                self._drop_running(request)
                taken.append(request)
        kept: deque[Request] = deque()
        for request in self._prefilling:
            if rollout_ids is None or request.rollout_id in rollout_ids:
                self.kv_tokens -= request.prompt_tokens + request.generated_tokens
                request.seen_tokens = max(request.seen_tokens, request.prefilled_tokens)
                request.prefilled_tokens = 0
                taken.append(request)
            else:
                kept.append(request)
        self._prefilling = kept
        if rollout_ids is None:
            taken += self.waiting
            self.waiting.clear()
        else:
            taken += [r for r in self.waiting if r.rollout_id in rollout_ids]
            self.waiting = deque(r for r in self.waiting if r.rollout_id not in rollout_ids)
        self._kind = 0
        self._clock_fs = now_fs
        return taken

    def progress(self, request: Request) -> int:
        """Tokens generated by completed steps."""
        if request.rollout_id in self.running:
            return request.generated_tokens + self._steps - request.joined_step
        return request.generated_tokens

    # ---- planning ------------------------------------------------------------------------------

    def next_visible_fs(self) -> int | None:
        """When the next request finishes if nothing comes between, on a whole nanosecond.

        Where a preemption comes first its time is returned instead: a time to look again. None
        if nothing is in progress.
        """
        kind = self._kind
        if kind == 0:
            return None
        end_fs = self._end_fs
        if kind == 2:
            heap = self._finish
            if heap[0][0] == self._steps + self._jump or not self.waiting:
                return -(-end_fs // FS_PER_NS) * FS_PER_NS
        return self._look_ahead(kind)

    def _look_ahead(self, kind: int) -> int:
        """The first finish beyond a cut jump or a prefill: walks over the prefill steps."""
        n = len(self.running)
        kv = self.kv_tokens
        steps = self._steps
        t = self._end_fs
        heap = self._finish
        while heap and heap[0][2].admission != heap[0][1]:
            heappop(heap)
        first = heap[0][0] if heap else None
        if kind == 2:
            steps += self._jump
            kv += n * self._jump
        cost = self.cost
        # Contexts still to prefill after the step in progress, in order.
        queue: list[tuple[int, int, int]] = []  # tokens done, context, tokens to generate after it
        room = self.prefill_chunk_tokens if kind == 1 else 0
        for r in self._prefilling:
            context = r.prompt_tokens + r.generated_tokens
            done = r.prefilled_tokens
            take = min(room, context - done)
            room -= take
            left = r.total_tokens - r.generated_tokens - 1
            if done + take == context:
                if left == 0:
                    return -(-t // FS_PER_NS) * FS_PER_NS
                n += 1
                if first is None or steps + left < first:
                    first = steps + left
            else:
                queue.append((done + take, context, left))
        admitted = n + len(queue)
        if not self.closed:
            for r in self.waiting:
                context = r.prompt_tokens + r.generated_tokens
                if (
                    admitted >= self.max_running_rollouts
                    or kv + context + self.kv_reserve_tokens * (admitted + 1) > self.kv_cache_tokens
                ):
                    break
                kv += context
                admitted += 1
                queue.append((0, context, r.total_tokens - r.generated_tokens - 1))
        room = 0
        for done, context, left in queue:
            while done < context:
                if room == 0:
                    t += cost.prefill_base_fs
                    room = self.prefill_chunk_tokens
                take = min(room, context - done)
                t += cost.prefill_per_token_fs * take + cost.prefill_per_token_pair_fs * (
                    take * done + take * (take + 1) // 2
                )
                done += take
                room -= take
            if left == 0:
                # Finishes with the step, which the others in it may still lengthen: look then.
                return -(-t // FS_PER_NS) * FS_PER_NS
            n += 1
            if first is None or steps + left < first:
                first = steps + left
        if first is None:
            return -(-t // FS_PER_NS) * FS_PER_NS
        k = first - steps
        fits = (self.kv_cache_tokens - kv) // n
        k = min(k, max(fits, 0))
        t += k * (self._a + self._b * n + self._c * kv) + self._c * n * (k * (k - 1) // 2)
        return -(-t // FS_PER_NS) * FS_PER_NS

    def _admissible(self, request: Request) -> bool:
        if self.closed:
            return False
        admitted = len(self.running) + len(self._prefilling)
        context = request.prompt_tokens + request.generated_tokens
        return (
            admitted < self.max_running_rollouts
            and self.kv_tokens + context + self.kv_reserve_tokens * (admitted + 1)
            <= self.kv_cache_tokens
        )

    def _plan(self) -> None:
        """Choose the next step (prefill) or jump (decode) at the boundary ``_clock_fs``."""
        waiting = self.waiting
        if waiting or self._prefilling:
            room = self.prefill_chunk_tokens
            for r in self._prefilling:
                room -= r.prompt_tokens + r.generated_tokens - r.prefilled_tokens
            while waiting and room > 0 and self._admissible(waiting[0]):
                request = waiting.popleft()
                context = request.prompt_tokens + request.generated_tokens
                self.kv_tokens += context
                request.prefilled_tokens = 0
                self._prefilling.append(request)
                room -= context
            if self._prefilling:
                self._kind = 1
                self._end_fs = self._clock_fs + self._prefill_step_fs()
                return
        n = len(self.running)
        if not n:
            return
        heap = self._finish
        while heap[0][2].admission != heap[0][1]:
            heappop(heap)
        kv = self.kv_tokens
        k = heap[0][0] - self._steps
        if kv + n * k > self.kv_cache_tokens:
            fits = (self.kv_cache_tokens - kv) // n
            if fits == 0:
                self._preempt()
                self._plan()
                return
            if fits < k:
                k = fits
        self._kind = 2
        self._jump = k
        self._end_fs = (
            self._clock_fs
            + k * (self._a + self._b * n + self._c * kv)
            + self._c * n * (k * (k - 1) // 2)
        )

    def _chunks(self) -> list[tuple[Request, int]]:
        room = self.prefill_chunk_tokens
        chunks = []
        for request in self._prefilling:
            if room <= 0:
                break
            left = request.prompt_tokens + request.generated_tokens - request.prefilled_tokens
            take = left if left < room else room
            room -= take
            chunks.append((request, take))
        return chunks

    def _prefill_step_fs(self) -> int:
        cost = self.cost
        total = cost.prefill_base_fs
        for request, take in self._chunks():
            total += cost.prefill_per_token_fs * take + cost.prefill_per_token_pair_fs * (
                take * request.prefilled_tokens + take * (take + 1) // 2
            )
        return total

    def _cut(self, now_fs: int) -> None:
        """Shorten the jump to the first step boundary at or after `now_fs`."""
        n, kv = len(self.running), self.kv_tokens
        spent_fs = max(now_fs - self._clock_fs, 0)
        k = steps_within_fs(self.cost, n, kv, spent_fs)
        if decode_time_fs(self.cost, n, kv, k) < spent_fs:
            k += 1
        if k >= self._jump:
            return
        self._jump = k
        self._end_fs = self._clock_fs + decode_time_fs(self.cost, n, kv, k)
        if k == 0:
            self._kind = 0

    # ---- ends of steps -------------------------------------------------------------------------

    def _end_decode(self, finished: list[Request]) -> None:
        k = self._jump
        n = len(self.running)
        end_fs = self._end_fs
        self.decode_fs += end_fs - self._clock_fs
        self.generated_tokens += n * k
        self.kv_tokens += n * k
        self._steps = steps = self._steps + k
        heap = self._finish
        while heap and heap[0][0] == steps:
            _, admission, request = heappop(heap)
            if request.admission == admission:
                del self.running[request.rollout_id]
                request.generated_tokens += steps - request.joined_step
                self.kv_tokens -= request.prompt_tokens + request.generated_tokens - 1
                finished.append(request)
        if finished:
            rounded = -(-end_fs // FS_PER_NS) * FS_PER_NS
            self.decode_fs += rounded - end_fs
            end_fs = rounded
        self._clock_fs = end_fs

    def _end_prefill(self, finished: list[Request]) -> None:
        cost = self.cost
        chunks = self._chunks()
        recompute_fs = 0
        for request, take in chunks:
            done = request.prefilled_tokens
            self.prefilled_tokens += take
            again = min(request.seen_tokens, done + take) - done
            if again > 0:
                # What was computed before comes first in the context.
                self.recomputed_tokens += again
                recompute_fs += cost.prefill_per_token_fs * again
                recompute_fs += cost.prefill_per_token_pair_fs * (
                    again * done + again * (again + 1) // 2
                )
            request.prefilled_tokens = done + take
            if done + take < request.prompt_tokens + request.generated_tokens:
                continue
            self._prefilling.popleft()
            request.prefilled_tokens = 0
            request.generated_tokens += 1
            self.generated_tokens += 1
            if request.generated_tokens == request.total_tokens:
                self.kv_tokens -= request.prompt_tokens + request.generated_tokens - 1
                finished.append(request)
                continue
            self._admissions += 1
            request.admission = self._admissions
            request.joined_step = self._steps
            finish = self._steps + request.total_tokens - request.generated_tokens
            self.running[request.rollout_id] = request
            heappush(self._finish, (finish, self._admissions, request))
        end_fs = self._end_fs
        if finished:
            end_fs = -(-end_fs // FS_PER_NS) * FS_PER_NS
        self.recompute_fs += recompute_fs
        self.prefill_fs += end_fs - self._clock_fs - recompute_fs
        self._clock_fs = end_fs

    def _drop_running(self, request: Request) -> None:
        """Take a request out of the batch with its KV cache, keeping what it generated."""
        del self.running[request.rollout_id]
        request.generated_tokens += self._steps - request.joined_step
        resident = request.prompt_tokens + request.generated_tokens - 1
        self.kv_tokens -= resident
        request.seen_tokens = resident
        request.admission = -1

    def _preempt(self) -> None:
        """Make room for one decode step (rule 3)."""
        while self.kv_tokens + len(self.running) > self.kv_cache_tokens:
            request = self.running[next(reversed(self.running))]
            self._drop_running(request)
            self.waiting.appendleft(request)
            self.preemptions += 1
