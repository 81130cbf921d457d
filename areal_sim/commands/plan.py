"""``areal-sim plan``: a question in plain numbers, answered with the cluster to rent."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from areal_sched.config.overrides import add_overrides

if TYPE_CHECKING:
    from areal_sim.plan import Question

TOML, JSON, PNG = "plan.toml", "plan.json", "plan.png"

GPU_NAMES = "A100-40GB, A100-80GB, H100, H800, H200, H20, B200, L40S, A40, RTX4090"
"""For the help alone, which should not load the table."""

_EPILOG = """\
areal-sim plan --model 7b --gpus 512xH800 --task math
areal-sim plan --model 32b --gpus H100,H200 --objective cost --deadline-h 48
areal-sim plan --model 7b --gpus H100 --objective gpus --step-s 300
areal-sim plan --model path/config.json --gpus 16xA100-80GB --trace lengths.csv --max-lag 2
areal-sim plan --model 7b --gpus 64xH100 --growth 2
"""


def add(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "plan",
        help="what to rent, how to split it, and how long it takes",
        description="Find the scheduler, the split of GPUs between generation and training, the"
        " layout of both, staleness bound and rollouts in flight that make a run short, cheap or"
        " small. Estimates every candidate, simulates the best, and says what would change the"
        " answer. Leaves in DIR a configuration that areal-sim run and areal-real train read, the"
        " numbers as JSON and a picture; the same question is answered from there at once.",
        epilog=_EPILOG,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.description = "\n".join(_wrapped(str(parser.description)))
    _add_question(parser)
    _add_limits(parser)
    _add_output(parser)
    parser.set_defaults(run=run)


def _wrapped(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(text, 78)


def _add_question(parser: argparse.ArgumentParser) -> None:
    asked = parser.add_argument_group("what is run")
    asked.add_argument(
        "--model", required=True, metavar="NAME|PATH", help="a known model, or its config.json"
    )
    asked.add_argument(
        "--gpus",
        required=True,
        action="append",
        metavar="NxGPU,...",
        help="GPUs to choose from: 512xH800 for so many, H800 for as many as\nare of use, up to"
        f" 512; may be given again. Known:\n{GPU_NAMES}",
    )
    workload = asked.add_mutually_exclusive_group()
    workload.add_argument(
        "--task", help="math (default), code, or a workload of traces.presets", metavar="NAME"
    )
    workload.add_argument("--trace", type=Path, metavar="FILE", help="measured lengths instead")
    asked.add_argument("--length-scale", type=float, metavar="X", help="answers X times as long")
    for flag, text in (
        ("--steps", "training steps (default 250)"),
        ("--prompts-per-step", "prompts of a training step (default 512)"),
        ("--group-size", "answers to each prompt (default 16)"),
        ("--max-prompt-tokens", "prompts are cut here (default 1024)"),
        ("--max-response-tokens", "answers are cut here (default 27648)"),
        ("--gpus-per-node", "default 8"),
        ("--seed", "of all simulations (default 1)"),
    ):
        asked.add_argument(flag, type=int, metavar="N", help=text)
    asked.add_argument(
        "--growth",
        type=float,
        metavar="X",
        help="answers at the last step are X times as long as at the first: is\na second split"
        " on the way worth it?",
    )
    asked.add_argument(
        "--costs",
        metavar="NAME",
        help="paper (default): fitted to the AReaL paper's runs; roofline: the\nuncalibrated"
        " analytic model",
    )
    asked.add_argument("--transport", metavar="NAME", help="of weights: disk (default), collective")
    asked.add_argument(
        "--price",
        action="append",
        default=[],
        metavar="GPU=USD,...",
        help="an hour of one GPU, as H100=2.1,H200=3 (default: list prices)",
    )
    add_overrides(parser, example="sim.cost.training_efficiency=0.35")


def _add_limits(parser: argparse.ArgumentParser) -> None:
    limits = parser.add_argument_group("what is wanted")
    limits.add_argument(
        "--objective", metavar="NAME", help="hours (default), cost, energy, gpu-hours or gpus"
    )
    limits.add_argument("--deadline-h", type=float, metavar="H", help="the run takes at most this")
    limits.add_argument("--budget-usd", type=float, metavar="USD", help="and costs at most this")
    limits.add_argument("--step-s", type=float, metavar="S", help="a step takes at most this")
    limits.add_argument("--eta", type=int, metavar="N", help="greatest staleness bound to try")
    limits.add_argument("--max-lag", type=int, metavar="N", help="no data older than N versions")
    limits.add_argument(
        "--schedulers",
        metavar="NAME,...",
        help="to choose from (default areal,one_step_off,synchronous)",
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        default=Path("runs/plan"),
        help="where the answer is left (default runs/plan)",
    )
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: all cores")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def question_of(args: argparse.Namespace) -> Question:
    """The question that a command line asks.

    Raises:
        ConfigError: it makes no sense.
    """
    from areal_sim.plan import Question, offers

    given: dict[str, Any] = {
        name: value
        for name in (
            "length_scale", "steps", "prompts_per_step", "group_size", "max_prompt_tokens",
            "max_response_tokens", "gpus_per_node", "seed", "costs", "transport", "objective",
            "deadline_h", "budget_usd", "step_s", "eta", "max_lag", "task", "trace",
        )
        if (value := getattr(args, name)) is not None
    }  # fmt: skip
    if args.trace is not None:
        given["task"] = None
    if args.schedulers is not None:
        given["schedulers"] = tuple(name.strip() for name in args.schedulers.split(","))
    changes, prices = tuple(args.overrides), prices_of(args.price)
    return Question(
        model=args.model, gpus=offers(args.gpus), changes=changes, prices=prices, **given
    )


def prices_of(texts: list[str]) -> tuple[tuple[str, float], ...]:
    """Prices by GPU, from ``H100=2.1,H200=3``.

    Raises:
        ConfigError: it is not that, or there is no such GPU.
    """
    from areal_sched.errors import ConfigError
    from areal_sim.hardware import gpu

    prices = {}
    for part in (part for text in texts for part in text.split(",")):
        name, _, price = part.partition("=")
        try:
            prices[gpu(name.strip()).name] = float(price)
        except ConfigError as error:
            raise ConfigError(f"price = {part!r}: {error}") from None
        except ValueError:
            raise ConfigError(f"price = {part!r}: expected GPU=USD, as H100=2.1") from None
    return tuple(prices.items())


def run(args: argparse.Namespace) -> int:
    """Carry it out."""
    from analysis.plan import draw_plan
    from areal_sim.commands.files import replace_together, text_writer
    from areal_sim.commands.plan_shown import facts_of, picture_of, show
    from areal_sim.commands.show import stage_bar
    from areal_sim.plan import Infeasible, plan
    from areal_sim.plan.growth import plan_growth

    question = question_of(args)
    if args.out.exists() and not args.out.is_dir():
        raise NotADirectoryError(f"--out {args.out}: is a file; a folder is needed")
    args.out.mkdir(parents=True, exist_ok=True)
    cache = args.out / "simulated"
    try:
        with stage_bar(quiet=args.quiet) as progress:
            if args.growth is not None:
                growing = plan_growth(
                    question, args.growth, cache=cache, jobs=args.jobs, progress=progress
                )
            else:
                answer = plan(question, cache=cache, jobs=args.jobs, progress=progress)
    except Infeasible as error:
        print(f"areal-sim: {error.reason}", file=sys.stderr)
        for change in error.changes:
            print(f"  would do: {change}", file=sys.stderr)
        return 1
    if args.growth is not None:
        from areal_sim.commands.plan_shown import show_growth

        _leave_shape(question, args.out)
        for name in (TOML, JSON, PNG):  # of another question
            (args.out / name).unlink(missing_ok=True)
        replace_together(
            {
                args.out / name: text_writer(text)
                for name, text in show_growth(growing, args.out).items()
            }
        )
        return 0
    _leave_shape(question, args.out)
    replace_together(
        {
            args.out / TOML: text_writer(answer.toml),
            args.out / JSON: text_writer(json.dumps(facts_of(answer), indent=1) + "\n"),
            args.out / PNG: lambda path: draw_plan(picture_of(answer), path),
        }
    )
    show(answer)
    print(f"written to {args.out}: {TOML} for areal-sim run and areal-real train, {JSON}, {PNG}")
    return 0


def _leave_shape(question: Question, out: Path) -> None:
    """Leave the model's ``config.json`` where the plan's ``real.model.path`` is.

    With it `areal-real check` can hold the plan against the model; the weights are the user's.
    """
    from areal_sim.models import config_file
    from areal_sim.plan.real import MODELS_FOLDER

    if Path(question.model).exists():
        return
    folder = out / MODELS_FOLDER / question.shape().name
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        (folder / "config.json").write_bytes(config_file(question.model).read_bytes())
