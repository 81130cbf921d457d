"""Decisions as text that people can read."""

from __future__ import annotations

from areal_sched import ReplayDiverged, RolloutsInterrupted, StartTrainStep
from areal_sched.spelling import difference, spelled
from tests.sched.bench import start, trained


def step(*ids: int) -> StartTrainStep:
    return StartTrainStep(weight_version=1, rollout_ids=ids)  # type: ignore[arg-type]


def test_only_the_first_difference_is_written_out() -> None:
    first, second, third = start(0, 0), start(1, 1), start(2, 2)
    assert difference((first, second, third), (first, third)) == (
        1,
        "StartRollouts(group_id=1, rollout_ids=(1,), server_id=0), and 1 more",
        "StartRollouts(group_id=2, rollout_ids=(2,), server_id=0)",
    )
    assert difference((first,), ()) == (0, spelled(first), "no command")
    assert difference((first,), (first, second)) == (1, "no more commands", spelled(second))
    assert difference((), ()) == (0, "no command", "no command")
    assert difference("KeyError: 3", (first,)) == (0, "KeyError: 3", spelled(first))


def test_long_lists_are_shown_where_they_differ() -> None:
    ids = tuple(range(1000))
    other = (*ids[:500], 7777, *ids[501:])
    assert spelled(step(*ids)) == (
        "StartTrainStep(weight_version=1, rollout_ids=(0, 1, 2, 3, ... [1,000 in all]))"
    )
    _, mine, theirs = difference((step(*ids),), (step(*other),))
    assert "(..., 499, 500, 501, 502, ... [1,000 in all])" in mine
    assert "(..., 499, 7777, 501, 502, ... [1,000 in all])" in theirs
    _, mine, theirs = difference((step(*ids),), (step(*ids[:999]),))
    assert "(..., 996, 997, 998, 999 [1,000 in all])" in mine
    assert "[999 in all]" in theirs
    assert spelled(step(*range(8))).endswith("rollout_ids=(0, 1, 2, 3, 4, 5, 6, 7))")


def test_what_is_no_message_is_spelt_as_it_is() -> None:
    assert spelled("nonsense") == "nonsense"
    assert spelled(StartTrainStep) == str(StartTrainStep)


def test_the_message_names_entry_event_and_both_decisions() -> None:
    progress = tuple((i, 5) for i in range(100))
    event = RolloutsInterrupted(server_id=3, weight_version=1, progress=progress)  # type: ignore[arg-type]
    told = ReplayDiverged(
        entry=9,
        now_ns=70,
        event=event,
        recorded=(start(0, 0), start(1, 1)),
        replayed=(start(0, 0),),
    )
    first, journal, replayed = str(told).splitlines()
    assert first == (
        "replay diverged at entry 9 (t = 70 ns) on RolloutsInterrupted(server_id=3, "
        "weight_version=1, progress=((0, 5), (1, 5), (2, 5), (3, 5), ... [100 in all])), "
        "after 1 equal command"
    )
    assert journal == "  journal:  StartRollouts(group_id=1, rollout_ids=(1,), server_id=0)"
    assert replayed == "  replayed: no more commands"
    assert "line 4, t = 1 ns" in str(
        ReplayDiverged(entry=2, line=4, now_ns=1, event=trained(1), recorded=(), replayed="Bug: x")
    )
