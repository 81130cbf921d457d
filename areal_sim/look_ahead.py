"""When an engine's next request finishes, if nothing comes between.

Between a prefill and the next finish lie steps that are not visible outside. This walks over the
prefill steps without doing them and closes with the formula for the decode steps, so that a
simulation wakes once per finish.
"""

from __future__ import annotations

from heapq import heappop

from areal_sim.costs.protocol import FS_PER_NS
from areal_sim.steps import ADMISSION_BITS, ADMISSION_MASK, PREFILL, Steps

NEVER = 1 << 62
"""More decode steps than any rollout takes."""


def first_finish_fs(engine: Steps) -> int:
    """The first finish beyond a prefill or a cut jump, on a whole nanosecond.

    Never too late. Too early, but not before the end of the step in progress, where a preemption
    comes first or a context completes in mid-step with its request's only token.
    """
    running = engine.running
    heap = engine._finish
    while heap and heap[0] & ADMISSION_MASK not in running:
        heappop(heap)
    n = len(running)
    kv = engine.kv_tokens
    steps = engine._steps
    t = engine._end_fs
    k = (heap[0] >> ADMISSION_BITS) - steps if heap else NEVER  # decode steps to the first finish
    prefilling = engine._kind == PREFILL
    if not prefilling:
        k -= engine._jump
        kv += n * engine._jump
    # What the step in progress leaves to prefill: tokens done, context, tokens to generate after.
    queue: list[tuple[int, int, int]] = []
    for request in engine._prefilling:
        generated = request.generated_tokens
        done = request.prefilled_tokens + request.chunk_tokens
        left = request.total_tokens - generated - 1
        if done < request.prompt_tokens + generated:
            queue.append((done, request.prompt_tokens + generated, left))
        elif left:
            n += 1
            if left < k:
                k = left
        else:
            return -(-t // FS_PER_NS) * FS_PER_NS
    if engine.waiting and not engine.closed:
        admitted = n + len(queue)
        for request in engine.waiting:
            context = request.prompt_tokens + request.generated_tokens
            admitted += 1
            if (
                admitted > engine.max_running_rollouts
                or kv + context + engine.kv_reserve_tokens * admitted > engine.kv_cache_tokens
            ):
                break
            kv += context
            queue.append((0, context, request.total_tokens - request.generated_tokens - 1))
    room = 0
    for done, context, left in queue:
        while done < context:
            if not room:
                room = engine.prefill_chunk_tokens
                t += engine._prefill_base_fs
            chunk = min(room, context - done)
            t += engine._prefill_token_fs * chunk
            t += engine._prefill_pair_fs * (chunk * done + chunk * (chunk + 1) // 2)
            done += chunk
            room -= chunk
        t += engine._prefill_rollout_fs
        if not left:
            return -(-t // FS_PER_NS) * FS_PER_NS
        n += 1
        if left < k:
            k = left
    if kv + n * k > engine.kv_cache_tokens:
        k = max(engine.kv_cache_tokens - kv, 0) // n
    t += k * (engine._decode_base_fs + engine._decode_rollout_fs * n)
    t += engine._decode_kv_fs * (k * kv + n * (k * (k - 1) // 2))
    if prefilling and not queue:
        engine._foreseen_jump = k
        engine._foreseen_fs = t
    return -(-t // FS_PER_NS) * FS_PER_NS
