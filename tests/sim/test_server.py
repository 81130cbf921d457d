"""One simulated server on its own: what it reports of its time, and when commands take effect."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from areal_sched import (
    Event,
    RolloutFailed,
    RolloutsInterrupted,
    ServerId,
    ServerSpan,
    UpdateMode,
    WeightsLoaded,
    WeightVersion,
)
from areal_sim.clock import Clock
from areal_sim.engine import Engine, Request
from areal_sim.server import Server
from tests.sim.setups import server_cost

LOAD_NS = 500

V0, V1, V2 = WeightVersion(0), WeightVersion(1), WeightVersion(2)


class Bench:
    """A server, a clock and somebody who writes down what it says.

    A decode step takes 100 ns and a prefill 10, unless other coefficients are given.
    """

    def __init__(self, most: int = 8, **coefficients: float) -> None:
        self.env = Clock()
        self.said: list[tuple[int, Event]] = []
        self.ended: list[tuple[int, int, int]] = []  # when, rollout, weights
        self.spans: list[ServerSpan] = []
        self._touched: list[Server] = []
        cost = server_cost(**{"base_ns": 100, "prefill_base_ns": 10, **coefficients})

        def engine() -> Engine:
            return Engine(
                cost, max_running_rollouts=most, kv_cache_tokens=1000, prefill_chunk_tokens=500
            )

        self.server = Server(self.env, ServerId(0), self, engine, lambda: LOAD_NS, V0)

    # ---- host ----------------------------------------------------------------------------------

    def emit(self, event: Event) -> None:
        self.said.append((self.env.now, event))

    def finished(self, request: Request, server: Server) -> None:
        self.ended.append((self.env.now, request.rollout_id, server.weight_version))

    def touched(self, server: Server) -> None:
        self._touched.append(server)

    def measure(self, span: ServerSpan) -> None:
        self.spans.append(span)

    def end_instant(self) -> None:
        while self._touched:
            self._touched.pop().settle()

    # ---- what tests say ------------------------------------------------------------------------

    def at(self, time_ns: int, act: Callable[[], object]) -> None:
        """Let time pass up to an instant, then do something in it, before all else."""
        if time_ns > self.env.now:
            self.env.run(until=time_ns)
        act()
        self.end_instant()

    def send(self, rollout_id: int, tokens: int, time_ns: int = 0, prompt: int = 1) -> Request:
        request = Request(rollout_id, prompt, tokens)
        self.at(time_ns, lambda: self.server.submit(request))
        return request

    def rest(self) -> None:
        """Until nothing happens any more."""
        self.env.run()
        self.server.close()

    def activities(self) -> list[tuple[str, int, int]]:
        """(activity, start, end) of all spans, which follow each other without gap."""
        starts = [span.start_ns for span in self.spans]
        assert starts == [0, *(span.end_ns for span in self.spans[:-1])]
        return [(span.activity, span.start_ns, span.end_ns) for span in self.spans]


def test_an_answer_takes_a_prefill_and_a_step_a_token_but_one() -> None:
    bench = Bench()
    bench.send(7, tokens=4)
    bench.rest()
    assert bench.ended == [(310, 7, 0)]
    assert bench.activities() == [("generate", 0, 310)]
    (span,) = bench.spans
    assert (span.prefill_ns, span.recompute_ns, span.generated_tokens) == (10, 0, 4)


def test_it_idles_until_something_comes_and_after_it_ended() -> None:
    bench = Bench()
    bench.send(0, tokens=1, time_ns=50)
    bench.at(1000, lambda: None)
    bench.rest()
    assert bench.activities() == [("idle", 0, 50), ("generate", 50, 60), ("idle", 60, 1000)]


@pytest.mark.parametrize("mode", ["interrupt", "in_place", "drain"])
def test_an_update_takes_effect_where_its_mode_says(mode: UpdateMode) -> None:
    """Asked for at 150 ns, in the second step of five: at its end, or when all are done."""
    bench = Bench()
    bench.send(0, tokens=6)
    bench.at(150, lambda: bench.server.load(V1, mode))
    bench.rest()
    begins = {"interrupt": 210, "in_place": 210, "drain": 510}[mode]
    assert (begins + LOAD_NS, WeightsLoaded(server_id=ServerId(0), weight_version=V1)) in bench.said
    reports = [(t, e) for t, e in bench.said if isinstance(e, RolloutsInterrupted)]
    if mode == "interrupt":
        ((when, report),) = reports
        assert (when, report.progress, report.weight_version) == (210, ((0, 3),), 0)
        assert bench.ended == []
        assert bench.activities()[:2] == [("generate", 0, 210), ("load", 210, 710)]
    else:
        assert reports == []
        ended = {"in_place": (510 + LOAD_NS, 0, 1), "drain": (510, 0, 0)}[mode]
        assert bench.ended == [ended]


def test_what_was_interrupted_waits_and_is_computed_again() -> None:
    bench = Bench(prefill_token_ns=1)
    request = bench.send(0, tokens=6, prompt=20)  # prefill: 10 + 20
    bench.at(150, lambda: bench.server.load(V1, "interrupt"))
    bench.at(1000, lambda: bench.server.submit(request))
    bench.rest()
    # It had 3 tokens at 230 ns. 10 + 23 ns bring the context back and the fourth; two are left.
    assert bench.ended == [(1000 + 33 + 200, 0, 1)]
    assert bench.activities() == [
        ("generate", 0, 230),
        ("load", 230, 730),
        ("paused", 730, 1000),
        ("generate", 1000, 1233),
    ]
    last = bench.spans[-1]
    assert (last.recomputed_tokens, last.recompute_ns) == (22, 22)
    assert last.prefill_ns == 11, "the step's own cost, and the token that was in no cache yet"


def test_what_comes_during_an_update_runs_on_the_new_weights() -> None:
    bench = Bench()
    bench.at(5, lambda: bench.server.load(V1, "in_place"))
    bench.send(0, tokens=2, time_ns=100)
    bench.rest()
    assert bench.ended == [(5 + LOAD_NS + 10 + 100, 0, 1)]


def test_what_comes_while_the_step_ends_is_not_interrupted() -> None:
    """Sent between the command and the end of the step: nothing of it was done, so none is kept."""
    bench = Bench()
    bench.send(0, tokens=9)
    bench.at(150, lambda: bench.server.load(V1, "interrupt"))
    bench.send(1, tokens=2, time_ns=160)
    bench.rest()
    reports = [event for _, event in bench.said if isinstance(event, RolloutsInterrupted)]
    assert [report.progress for report in reports] == [((0, 3),)]
    assert bench.ended == [(210 + LOAD_NS + 10 + 100, 1, 1)]


def test_an_update_during_another_waits_for_it() -> None:
    bench = Bench()
    bench.at(0, lambda: bench.server.load(V1, "in_place"))
    bench.at(100, lambda: bench.server.load(V2, "interrupt"))
    bench.rest()
    loaded = [(t, e.weight_version) for t, e in bench.said if isinstance(e, WeightsLoaded)]
    assert loaded == [(LOAD_NS, 1), (2 * LOAD_NS, 2)]


def test_rollouts_are_removed_at_the_end_of_the_step() -> None:
    bench = Bench()
    for rollout_id in range(3):
        bench.send(rollout_id, tokens=9)
    bench.at(250, lambda: bench.server.remove({1}, None))
    bench.at(260, lambda: bench.server.remove({2}, "aborted"))
    bench.rest()
    (when, report), (after, failed) = bench.said
    assert isinstance(report, RolloutsInterrupted)
    assert (when, report.progress) == (310, ((1, 4),))
    assert (after, failed) == (310, RolloutFailed(rollout_id=2, reason="aborted"))  # type: ignore[arg-type]
    assert [rollout_id for _, rollout_id, _ in bench.ended] == [0]


def test_one_that_waits_for_an_update_is_removed_at_once() -> None:
    bench = Bench()
    bench.at(0, lambda: bench.server.load(V1, "in_place"))
    bench.send(0, tokens=2, time_ns=100)
    bench.at(150, lambda: bench.server.remove({0}, None))
    bench.rest()
    when, report = bench.said[0]
    assert isinstance(report, RolloutsInterrupted)
    assert (when, report.progress) == (150, ((0, 0),))
    assert bench.ended == []


def test_one_that_ends_before_the_step_does_is_not_removed() -> None:
    bench = Bench()
    bench.send(0, tokens=3)
    bench.at(150, lambda: bench.server.remove({0}, None))
    bench.rest()
    assert bench.ended == [(210, 0, 0)]
    assert bench.said == []


def test_a_loan_begins_with_the_step_and_keeps_what_runs() -> None:
    """A colocated trainer gets the GPUs at 210 ns and gives them back at 1000."""
    lent: list[int] = []
    bench = Bench()
    bench.send(0, tokens=6)
    bench.at(150, lambda: bench.server.lend(lambda: lent.append(bench.env.now)))
    bench.at(1000, bench.server.give_back)
    bench.rest()
    assert lent == [210]
    assert bench.ended == [(1000 + 300, 0, 0)]
    assert bench.activities() == [
        ("generate", 0, 210),
        ("lent", 210, 1000),
        ("generate", 1000, 1300),
    ]


def test_a_loan_waits_for_an_update_and_an_update_for_a_loan() -> None:
    lent: list[int] = []
    bench = Bench()
    bench.at(10, lambda: bench.server.load(V1, "in_place"))
    bench.at(20, lambda: bench.server.lend(lambda: lent.append(bench.env.now)))
    bench.at(700, lambda: bench.server.load(V2, "in_place"))
    bench.at(900, bench.server.give_back)
    bench.rest()
    assert lent == [10 + LOAD_NS]
    loaded = [(t, e.weight_version) for t, e in bench.said if isinstance(e, WeightsLoaded)]
    assert loaded == [(510, 1), (900 + LOAD_NS, 2)]


@pytest.mark.parametrize("mode", ["in_place", "interrupt", "drain"])
def test_an_update_waits_for_a_loan_that_waits_for_a_step(mode: UpdateMode) -> None:
    """Not both at the end of the step: weights would be loaded on GPUs that the trainer has."""
    bench = Bench()
    bench.send(0, tokens=6)
    bench.at(150, lambda: bench.server.lend(lambda: None))
    bench.at(160, lambda: bench.server.load(V1, mode))
    bench.at(1000, bench.server.give_back)
    bench.rest()
    begin_ns = 1300 if mode == "drain" else 1000
    loaded = [t for t, e in bench.said if isinstance(e, WeightsLoaded)]
    assert loaded == [begin_ns + LOAD_NS]
    assert ("lent", 210, 1000) in bench.activities()


def test_a_loan_that_is_not_wanted_any_more_is_not_waited_for() -> None:
    """The trainer is lost before the step ends that its loan waits for."""
    lent: list[int] = []
    bench = Bench()
    bench.send(0, tokens=6)
    bench.at(150, lambda: bench.server.lend(lambda: lent.append(bench.env.now)))
    bench.at(160, lambda: bench.server.load(V1, "in_place"))
    bench.at(170, bench.server.give_back)
    bench.rest()
    assert lent == []
    loaded = [t for t, e in bench.said if isinstance(e, WeightsLoaded)]
    assert loaded == [210 + LOAD_NS]


def test_a_loss_voids_everything_and_the_return_is_a_new_beginning() -> None:
    bench = Bench()
    bench.send(0, tokens=9)
    bench.at(150, lambda: bench.server.load(V1, "drain"))
    late = Request(1, 1, 9)
    bench.at(160, lambda: bench.server.submit(late))
    lost: list[Request] = []
    bench.at(170, lambda: lost.extend(bench.server.lose()))
    assert [request.rollout_id for request in lost] == [0, 1]
    assert lost[0].generated_tokens == 2, "the step in progress comes to nothing"
    bench.at(300, lambda: bench.server.rejoin(V2))
    bench.send(2, tokens=2, time_ns=400)
    bench.at(600, bench.server.close)
    assert bench.said == [], "no word of the update"
    assert bench.ended == [(510, 2, 2)]
    assert bench.activities() == [
        ("generate", 0, 170),
        ("down", 170, 300),
        ("idle", 300, 400),
        ("generate", 400, 510),
        ("idle", 510, 600),
    ]
    assert [span.generated_tokens for span in bench.spans] == [2, 0, 0, 2, 0]


def test_a_loss_while_weights_load_ends_the_loading() -> None:
    bench = Bench()
    bench.at(0, lambda: bench.server.load(V1, "interrupt"))
    bench.at(100, bench.server.lose)
    bench.at(200, lambda: bench.server.rejoin(V1))
    bench.at(250, lambda: bench.server.load(V2, "interrupt"))
    bench.rest()
    loaded = [(t, e.weight_version) for t, e in bench.said if isinstance(e, WeightsLoaded)]
    assert loaded == [(250 + LOAD_NS, 2)], "the first timer must not end the second load"


def test_parts_of_a_span_never_exceed_it() -> None:
    """Prefill at half a nanosecond a token, half of it computed before: 10.5 ns of each kind.

    Cut to whole nanoseconds one by one, two such spans in a row are 10 and 11 of 21 ns each time;
    the second would have 11 and 11.
    """
    bench = Bench(prefill_base_ns=0, prefill_token_ns=0.5)
    for time_ns in (0, 100):
        request = Request(time_ns, 42, 1)
        request.seen_tokens = 21
        bench.at(time_ns, lambda request=request: bench.server.submit(request))  # type: ignore[misc]
    bench.rest()
    parts = [(s.prefill_ns, s.recompute_ns) for s in bench.spans if s.activity == "generate"]
    assert len(parts) == 2
    assert all(prefill + recompute <= 21 for prefill, recompute in parts)
    assert sum(s.recomputed_tokens for s in bench.spans) == 42


def test_the_end_of_the_run_counts_the_tokens_of_the_jump_in_progress() -> None:
    bench = Bench()
    bench.send(0, tokens=100)
    bench.at(5055, bench.server.close)
    (span,) = bench.spans
    assert (span.end_ns, span.generated_tokens) == (5055, 1 + 50)
