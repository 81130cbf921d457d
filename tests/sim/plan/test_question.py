"""Questions that make no sense are refused in one clear line."""

from __future__ import annotations

from pathlib import Path

import pytest

from areal_sched.errors import ConfigError
from areal_sim.cli import main
from areal_sim.commands.plan import GPU_NAMES
from areal_sim.hardware import GPUS
from areal_sim.plan import Offer, offers
from tests.sim.plan.questions import small

GOOD = ("--model", "7b", "--gpus", "8xH100")

MALFORMED = {
    "negative GPUs": (("--model", "7b", "--gpus", "-8xH100"), "gpus = '-8xH100'"),
    "half a GPU": (("--model", "7b", "--gpus", "8.5xH100"), "gpus = '8.5xH100'"),
    "unknown GPU": (("--model", "7b", "--gpus", "8xH1000"), "did you mean 'H100'?"),
    "half a node": (("--model", "7b", "--gpus", "12xH100"), "8 or 16 would"),
    "unknown model": (("--model", "9b", "--gpus", "8xH100"), "did you mean '7b'?"),
    "context beyond the model": ((*GOOD, "--max-response-tokens", "200000"), "has 131072"),
    "unknown task": ((*GOOD, "--task", "maths"), "did you mean 'math'?"),
    "no steps": ((*GOOD, "--steps", "0"), "steps = 0"),
    "negative staleness": ((*GOOD, "--eta", "-1"), "eta = -1"),
    "no number": ((*GOOD, "--deadline-h", "nan"), "deadline_h = nan"),
    "unknown objective": ((*GOOD, "--objective", "money"), "objective = 'money'"),
    "fewest GPUs for nothing": ((*GOOD, "--objective", "gpus"), "deadline or a step time"),
    "unknown scheduler": ((*GOOD, "--schedulers", "aral"), "did you mean 'areal'?"),
    "unknown costs": ((*GOOD, "--costs", "cheap"), "costs = 'cheap'"),
    "unknown transport": ((*GOOD, "--transport", "pigeon"), "transport = 'pigeon'"),
    "no such trace": ((*GOOD, "--trace", "nowhere.csv"), "no such file"),
    "unknown key": ((*GOOD, "--set", "sim.cost.speed=2"), "sim.cost.speed"),
    "key of the plan": ((*GOOD, "--set", "limits.eta=2"), "ask with eta"),
    "no price": ((*GOOD, "--price", "H100=cheap"), "price = 'H100=cheap'"),
    "a negative price": ((*GOOD, "--price", "H100=-2"), "prices: H100 = -2.0"),
    "a price of two kinds": (
        (*GOOD, "--gpus", "8xA40", "--set", "cluster.usd_per_gpu_hour=2"),
        "of every kind of GPU",
    ),
    "a bound that a scheduler needs": (
        (*GOOD, "--schedulers", "bounded_lag"),
        "limits.max_lag is not set",
    ),
    "no growth": ((*GOOD, "--growth", "0"), "growth = 0.0"),
    "no processes": ((*GOOD, "--jobs", "0"), "jobs = 0"),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_question_gets_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, said = MALFORMED[name]
    out = tmp_path / "plan"
    assert main(["plan", *arguments, "--quiet", "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("areal-sim: ")
    assert printed.err.count("\n") == 1
    assert said in printed.err
    assert not list(out.rglob("*.toml"))


def test_a_trace_with_a_missing_column_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trace = tmp_path / "lengths.csv"
    trace.write_text("prompt,tokens\n1,2\n")
    assert main(["plan", *GOOD, "--trace", str(trace), "--out", str(tmp_path / "plan")]) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert str(trace) in printed
    assert "prompt, tokens" in printed


def test_offers() -> None:
    assert offers(["64xh100,H800", "8 x A40"]) == (
        Offer(gpu="H100", count=64),
        Offer(gpu="H800", count=None),
        Offer(gpu="A40", count=8),
    )


def test_etas_stop_at_what_is_allowed() -> None:
    assert small(eta=3).etas() == (0, 1, 2, 3)
    assert small(eta=None).etas() == (0, 1, 2, 4, 8)
    assert small(eta=8, max_lag=1).etas() == (0, 1)


@pytest.mark.parametrize(
    ("objective", "count", "sizes"),
    [
        ("hours", 24, (24,)),
        ("cost", 24, (1, 2, 3, 4, 6, 8, 16, 24)),
        ("cost", 64, (1, 2, 3, 4, 6, 8, 16, 24, 32, 48, 64)),
        ("energy", 4, (1, 2, 3, 4)),
    ],
)
def test_sizes(objective: str, count: int, sizes: tuple[int, ...]) -> None:
    question = small(objective=objective, gpus=(Offer(gpu="H100", count=count),))
    assert question.counts(question.gpus[0]) == sizes


def test_the_help_names_every_gpu() -> None:
    assert set(GPU_NAMES.replace("\n", " ").split(", ")) == set(GPUS)


def test_both_task_and_trace_are_too_many(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        small(trace=tmp_path)
