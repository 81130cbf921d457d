"""Whether the planner finds the best answer, and how soon: against simulating its whole space.

    python -m benchmarks.planner                 # three small questions, some minutes
    python -m benchmarks.planner --question paper  # 7B on 512 GPUs, some ten minutes

Every candidate of the space is simulated as the planner's first look does, the best of them as
its last one, and the best of those is what the planner's choice is held against. Simulations are
kept in ``runs/planner``, so a run that was interrupted goes on.

    python -m benchmarks.planner --paper         # the paper's four rows against its own 75/25
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

from areal_sim.commands.show import stage_bar
from areal_sim.plan import Question, offers, plan
from areal_sim.plan.finding import Finding
from areal_sim.plan.rounds import FIRST, LAST
from areal_sim.plan.search import Search
from areal_sim.plan.space import Candidate
from areal_sim.published.rows import TABLE_1
from areal_sim.published.systems import ETA, GPUS_PER_NODE, LAYOUTS, row_of

BAR = 0.02
"""The planner's choice may be so much worse than the best of the whole space."""

REPEATED = 12
"""The best of the whole space that are simulated again, as the planner's last look does."""

QUESTIONS = {
    "hours": Question(
        model="1.5b",
        gpus=offers(["16xH100"]),
        prompts_per_step=64,
        max_response_tokens=8192,
        eta=4,
    ),
    "cost": Question(
        model="1.5b",
        gpus=offers(["32xH100", "32xL40S"]),
        prompts_per_step=32,
        max_response_tokens=8192,
        objective="cost",
        deadline_h=8.0,
        eta=2,
    ),
    "gpus": Question(
        model="1.5b",
        gpus=offers(["64xH100"]),
        prompts_per_step=32,
        max_response_tokens=8192,
        objective="gpus",
        step_s=53.0,
        eta=2,
    ),
    "paper": Question(model="7b", gpus=offers(["512xH800"])),
}


def exhaustive(question: Question, cache: Path) -> tuple[Search, Finding, int, float]:
    """The best of the whole space: the search it was found by, itself, candidates, seconds."""
    began_s = time.perf_counter()
    with stage_bar() as progress:
        search = Search(question, cache=cache, progress=progress)
        search.estimate()
        everyone = list(dict.fromkeys(each.candidate for each in search.estimates))
        search.simulate(everyone, FIRST, "whole space")
        best = [finding.candidate for finding in search.ranked()[:REPEATED]]
        again = [each for each in search.simulate(best, LAST, "the best") if each.within(question)]
    again.sort(key=lambda each: (each.value(question), each.worth.hours))
    return search, again[0], len(everyone), time.perf_counter() - began_s


def held_against(name: str, question: Question, cache: Path) -> bool:
    """Print one row; returns whether the bar is met."""
    with tempfile.TemporaryDirectory() as folder, stage_bar() as progress:
        began_s = time.perf_counter()
        answer = plan(question, cache=Path(folder), progress=progress)
        plan_s = time.perf_counter() - began_s
    search, best, count, all_s = exhaustive(question, cache)
    own = search.simulate([answer.best.candidate], LAST, "the plan")[0]
    gap = own.value(question) / best.value(question) - 1
    print(
        f"{name:6} {count:6,} {own.value(question):12,.2f} {best.value(question):12,.2f}"
        f" {gap:+7.1%} {'met' if gap <= BAR else 'MISSED':6} {plan_s:7.0f} {all_s:8.0f}"
    )
    print(f"       plan: {own.candidate}\n       best: {best.candidate}")
    return gap <= BAR


def paper_candidate(model: str) -> Candidate:
    """The paper's own run of a model: three quarters of the GPUs generate."""
    row, layout = row_of(model), LAYOUTS[model]
    gpus = row.nodes * GPUS_PER_NODE
    rank = layout.tensor_parallel * layout.pipeline_parallel
    return Candidate(
        gpu="H800",
        gpus=gpus,
        scheduler="areal",
        colocated=False,
        server_tensor_parallel=layout.server_tensor_parallel,
        servers=gpus * 3 // 4 // layout.server_tensor_parallel,
        static_memory_fraction=layout.static_memory_fraction,
        tensor_parallel=layout.tensor_parallel,
        pipeline_parallel=layout.pipeline_parallel,
        data_parallel=gpus // 4 // rank,
        micro_batch_tokens=32_768,
        minibatches=4,
        eta=ETA[row.task],
        max_rollouts_in_flight=8192,
    )


def against_paper(cache: Path) -> bool:
    """Print each row of table 1: the plan against the paper's own split, both simulated alike."""
    print("hours of all steps          paper's 75/25     plan    gain   plan's split")
    never_worse = True
    for row in TABLE_1:
        question = Question(
            model=row.model,
            gpus=offers([f"{row.nodes * GPUS_PER_NODE}xH800"]),
            task=row.task,
            steps=row.steps,
            schedulers=("areal",),
        )
        with stage_bar() as progress:
            answer = plan(question, cache=cache, progress=progress)
            search = Search(question, cache=cache, progress=progress)
            own = search.simulate([paper_candidate(row.model)], LAST, "the paper's")[0]
        best = search.simulate([answer.best.candidate], LAST, "the plan")[0]
        gain = 1 - best.worth.hours / own.worth.hours
        never_worse &= gain >= 0
        print(
            f"{row.model:5} {row.task:5} {answer.best.candidate.gpus:4} GPUs      "
            f"{own.worth.hours:10.1f} {best.worth.hours:12.1f} {gain:+8.1%}   {best.candidate}"
        )
    return never_worse


def main() -> int:
    """Run it."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planner", description=__doc__)
    parser.add_argument("--question", choices=QUESTIONS, action="append")
    parser.add_argument("--paper", action="store_true", help="table 1's rows instead")
    parser.add_argument("--cache", type=Path, default=Path("runs/planner"))
    parser.add_argument("--fresh", action="store_true", help="forget what is kept")
    args = parser.parse_args()
    if args.fresh:
        shutil.rmtree(args.cache, ignore_errors=True)
    if args.paper:
        return 0 if against_paper(args.cache) else 1
    print("question candidates     plan         best             bar     plan, s   all, s")
    names = args.question or ["hours", "cost", "gpus"]
    kept = [held_against(name, QUESTIONS[name], args.cache) for name in names]
    return 0 if all(kept) else 1


if __name__ == "__main__":
    raise SystemExit(main())
