from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import soak
from benchmarks.soak_samples import Reading, Sample, read_samples
from benchmarks.soak_verdicts import (
    BLOCK_STEPS,
    LEAST_BLOCKS,
    MEMORY_LIMIT_KB_PER_STEP,
    WARM_UP_STEPS,
    Row,
    blocks_of,
    judge,
    passing,
    slope_of,
    text_of,
)

STEPS = 200
MB = 1_000_000


def made(
    steps: int = STEPS,
    memory: Callable[[int], float] = lambda step: 50 * MB,
    fds: Callable[[int], int] = lambda step: 20,
    disk: Callable[[int], dict[str, int]] = lambda step: {"journal": 1000 * step, "weights": MB},
    name: Callable[[int], str] = lambda step: "controller",
) -> list[Sample]:
    """A sample at the start and one at each finished step."""

    def reading(step: int) -> Reading:
        own = round(memory(step))
        return Reading(own, own + 9 * MB, own // 2, MB, fds(step), 4)

    return [
        Sample(float(step), step, {name(step): reading(step)}, disk(step))
        for step in range(steps + 1)
    ]


def row(rows: list[Row], what: str, name: str = "controller") -> Row:
    (found,) = [each for each in rows if each.what == what and each.name == name]
    return found


def noise(mb: float) -> Callable[[int], float]:
    draw = random.Random(1)
    return lambda step: 50 * MB + mb * MB * draw.random()


# ---- slopes ------------------------------------------------------------------------------------


def test_a_line_has_its_slope_and_no_interval() -> None:
    slope = slope_of([(x, 3.0 * x + 7) for x in range(10)])
    assert (slope.per_step, slope.low, slope.high) == pytest.approx((3, 3, 3))


def test_one_outlier_in_eight_moves_nothing() -> None:
    points = [(float(x), 2.0 * x) for x in range(16)]
    points[3], points[12] = (3.0, 1e9), (12.0, -1e9)
    assert slope_of(points).per_step == pytest.approx(2)


def test_the_interval_holds_the_slope_that_made_the_points() -> None:
    """In 400 series of noise about a line, 95 % of the intervals do; 92 to 98 % are let pass."""
    draw = random.Random(5)
    held = 0
    for _ in range(400):
        slope = slope_of([(x, 0.5 * x + draw.gauss(0, 1)) for x in range(16)])
        held += slope.low <= 0.5 <= slope.high
    assert 0.92 <= held / 400 <= 0.99


def test_too_few_points_have_no_slope() -> None:
    with pytest.raises(ValueError, match="5 points: at least 6"):
        slope_of([(x, x) for x in range(LEAST_BLOCKS - 1)])


def test_blocks_leave_out_warm_up_and_what_is_not_full() -> None:
    values = [(step, float(step)) for step in range(36)]
    blocks = blocks_of(values, 10, statistics.median, last_step=35)
    assert blocks == [(15.0, 14.5), (25.0, 24.5)]
    assert blocks_of(values, 10, min, last_step=30) == [(15.0, 10.0), (25.0, 20.0)]


# ---- verdicts ----------------------------------------------------------------------------------


def test_what_is_flat_but_for_noise_is_flat() -> None:
    found = row(judge(made(memory=noise(2))), "memory")
    assert found.kept
    assert found.verdict == "flat: at most 32 kB/step"
    assert abs(found.slope.per_step) < 10e3


def test_what_fills_up_during_warm_up_is_flat() -> None:
    found = row(judge(made(memory=lambda step: min(step, WARM_UP_STEPS) * MB)), "memory")
    assert found.kept
    assert found.slope.per_step == 0


def test_a_leak_is_found_with_its_size() -> None:
    draw = noise(2)
    found = row(judge(made(memory=lambda step: draw(step) + 100e3 * step)), "memory")
    assert not found.kept
    assert found.verdict == "GROWS: above 32 kB/step"
    assert found.slope.per_step == pytest.approx(100e3, rel=0.2)
    assert found.rss is not None
    assert found.rss.per_step == pytest.approx(found.slope.per_step)
    assert found.uss is not None
    assert found.uss.per_step == pytest.approx(found.slope.per_step / 2)


def test_noise_that_could_hide_a_leak_is_not_flat() -> None:
    found = row(judge(made(memory=noise(400))), "memory")
    assert not found.kept
    assert found.slope.low < MEMORY_LIMIT_KB_PER_STEP * 1e3 < found.slope.high
    assert found.verdict.startswith("NOT SHOWN FLAT")


def test_connections_that_come_and_go_are_no_growth() -> None:
    draw = random.Random(2)
    fds = row(judge(made(fds=lambda step: 20 + draw.randrange(33))), "descriptors")
    assert fds.kept
    assert fds.most > 45


def test_a_descriptor_kept_of_each_checkpoint_is_found() -> None:
    found = row(judge(made(fds=lambda step: 20 + step // BLOCK_STEPS)), "descriptors")
    assert not found.kept
    assert found.verdict == "GROWS: +11"


def test_one_file_opened_late_is_no_leak() -> None:
    assert row(judge(made(fds=lambda step: 20 + (step > 100))), "descriptors").kept


def test_histories_may_grow_and_what_is_deleted_again_may_not() -> None:
    rows = judge(made(disk=lambda step: {"journal": 20_000 * step, "weights": 20_000 * step}))
    journal, weights = row(rows, "disk", "journal"), row(rows, "disk", "weights")
    assert journal.kept
    assert journal.verdict.startswith("grows by design")
    assert journal.slope.per_step == pytest.approx(20_000)
    assert not weights.kept


def test_too_few_steps_are_not_judged() -> None:
    with pytest.raises(ValueError, match="99 steps: at least 100"):
        judge(made(99))


def test_a_process_that_replaces_another_is_not_judged_but_told() -> None:
    samples = made(name=lambda step: "reward worker 0" if step < 150 else "reward worker 1")
    assert [each for each in judge(samples) if each.what == "memory"] == []
    assert passing(samples, WARM_UP_STEPS) == {"reward worker": 2}
    assert "2 x reward worker" in text_of([], passing(samples, WARM_UP_STEPS), [])


def test_the_table_tells_every_row_and_counts_what_is_broken() -> None:
    rows = judge(made(memory=lambda step: 50 * MB + 100e3 * step))
    text = text_of(rows, {}, ["process trainer rank 0"])
    (line,) = [each for each in text.splitlines() if "+100.0 to +100.0" in each]
    assert line.split()[:4] == ["controller", "54.5", "69.5", "+100.0"]
    assert "left behind after the end: process trainer rank 0" in text
    assert text.endswith("limits: 5, broken: 2")


# ---- the command -------------------------------------------------------------------------------


def kept_in(folder: Path, samples: list[Sample]) -> Path:
    folder.mkdir()
    lines = [json.dumps(each.to_json()) for each in samples]
    (folder / "samples.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "soak.json").write_text(json.dumps({"engine": "local", "left_behind": []}))
    return folder


def test_samples_survive_their_file(tmp_path: Path) -> None:
    samples = made(3)
    assert read_samples(kept_in(tmp_path / "x", samples) / "samples.jsonl") == samples


@pytest.mark.parametrize(("leak_bytes", "status"), [(0, 0), (100_000, 1)])
def test_the_status_tells_whether_a_limit_is_broken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], leak_bytes: int, status: int
) -> None:
    samples = made(memory=lambda step: 50 * MB + leak_bytes * step)
    folder = kept_in(tmp_path / "x", samples)
    assert soak.main(["--judge", str(folder)]) == status
    assert f"broken: {status}" in capsys.readouterr().out
    assert (folder / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert "controller" in (folder / "soak.txt").read_text()


def test_bad_input_ends_with_a_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine").write_text("not to be deleted")
    for arguments, message in (
        (["--steps", "99"], "--steps 99: at least 100"),
        (["--warm-up", "-1"], "--warm-up -1: must not be negative"),
        (["--out", str(tmp_path), "--overwrite"], "is not empty"),
    ):
        with pytest.raises(SystemExit) as end:
            soak.main(arguments)
        assert end.value.code == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "mine").exists()
    assert soak.main(["--judge", str(tmp_path / "none")]) == 2
    assert "none" in capsys.readouterr().err
    broken = kept_in(tmp_path / "broken", made(3))
    (broken / "samples.jsonl").write_text('{"step": 3}\n')
    assert soak.main(["--judge", str(broken)]) == 2
    assert "samples.jsonl:1: no sample" in capsys.readouterr().err
