"""The command ``areal-sim``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from areal_sim.commands import (
    calibrate,
    calibrate_published,
    compare,
    demo,
    figures,
    plan,
    replay,
    run,
    serve,
    sweep,
    ui,
)

_DESCRIPTION = """\
Simulate asynchronous RL training of large language models: inference servers
that generate, a trainer that learns, and the scheduler between them.

  areal-sim demo                                   the paper's 1.5B run, twice
  areal-sim plan --model 7b --gpus 64xH100         what to rent, how to split it
  areal-sim run configs/home-8gpu.toml --out runs/home
  areal-sim run configs/paper/1.5b-areal.toml --set limits.eta=2 --set workload.steps=20
  areal-sim compare runs/demo/synchronous runs/demo/areal
  areal-sim sweep configs/home-8gpu.toml --vary limits.eta=0,1,4 --out runs/sweep
  areal-sim replay runs/home/journal.jsonl.gz
  areal-sim ui                                     plan in the browser
"""


class _Version(argparse.Action):
    """Looks the version up only when asked: importing the metadata reader takes 20 ms."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"areal-sim {version('areal-lab')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="areal-sim",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (
        plan,
        run,
        sweep,
        compare,
        calibrate,
        replay,
        figures,
        serve,
        ui,
        demo,
        calibrate_published,
    ):
        module.add(commands)
    return top


def _joined(arguments: Sequence[str]) -> list[str]:
    """The same, with a value that begins with minus and a digit joined to its option.

    argparse would take ``-8xH100`` for an option and say that the value is missing.
    """
    joined: list[str] = []
    for argument in arguments:
        negative = argument[:1] == "-" and argument[1:2].isdigit()
        if negative and joined and joined[-1].startswith("--") and "=" not in joined[-1]:
            joined[-1] += f"={argument}"
        else:
            joined.append(argument)
    return joined


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line.

    Returns:
        0; 1 where a replay diverged or a run broke off; 2 for bad input; 130 after Ctrl-C.
    """
    args = parser().parse_args(_joined(sys.argv[1:] if arguments is None else arguments))
    if "" not in sys.path and os.getcwd() not in sys.path:
        # As `python -m` does: a scheduler in the current folder can be named module:Class.
        sys.path.insert(0, os.getcwd())
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("areal-sim: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output has gone; Python would complain once more at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as exc:
        # Bad input, in every part of this project, is a ValueError.
        print(f"areal-sim: {_one_line(exc)}", file=sys.stderr)
        return 2
    except Exception as exc:
        from areal_sched.errors import ArealError

        if not isinstance(exc, ArealError):
            raise
        print(f"areal-sim: {_one_line(exc)}", file=sys.stderr)
        return 1


def _one_line(exc: Exception) -> str:
    """An error's text, with whatever a terminal would not show, or obey, spelt out."""
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in str(exc))


if __name__ == "__main__":
    sys.exit(main())
