"""The command ``areal-real``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from areal_real.commands import check, evaluate, launch, sweep, train

_DESCRIPTION = """\
Train language models with asynchronous RL: SGLang generates, Megatron-Core
trains, and the very scheduler that areal-sim simulates decides.

  areal-real check                                  what this machine can run
  areal-real train configs/real/tiny-cpu.toml --out runs/tiny
  areal-real train configs/real/tiny-cpu.toml --out runs/tiny --resume
  areal-real train CONFIG.toml --out DIR --engine ray --address HEAD:6379
  areal-real launch CONFIG.toml --out DIR --time 8:00:00      a SLURM job
  areal-real evaluate runs/tiny
  areal-sim replay runs/tiny/journal.jsonl.gz       the same decisions again
"""


class _Version(argparse.Action):
    """Looks the version up only when asked."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"areal-real {version('areal-lab')}")
        parser.exit()


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = argparse.ArgumentParser(
        prog="areal-real",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action=_Version, nargs=0, help="print the version")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for module in (check, train, launch, evaluate, sweep):
        module.add(commands)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command line.

    Returns:
        0; 1 where a run broke off or a machine lacks something; 2 for bad input; 130 after Ctrl-C.
    """
    args = parser().parse_args(arguments)
    if "" not in sys.path and os.getcwd() not in sys.path:
        # As `python -m` does: a scheduler in the current folder can be named module:Class.
        sys.path.insert(0, os.getcwd())
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        print("areal-real: interrupted", file=sys.stderr)
        return 130
    except (ValueError, OSError) as exc:
        # Bad input, in every part of this project, is a ValueError.
        print(f"areal-real: {exc}", file=sys.stderr)
        return 2
    except Exception as exc:
        from areal_sched.errors import ArealError

        if not isinstance(exc, ArealError):
            raise
        print(f"areal-real: {exc}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
