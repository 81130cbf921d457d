"""Stands in for Python where a test needs a training to fail, hang or end at a given moment.

Only `areal-real train` is played, everything else is run by the real Python. What it does in which
attempt is in ``plan.json`` beside its run directory; what it was called with goes to
``calls.jsonl`` there.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path


def checkpoint(out: Path, step: int) -> None:
    folder = out / "checkpoints" / f"step-{step:06d}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text("{}")


def ray_nodes(address: str) -> list[str]:
    """Addresses of the cluster's nodes; without the token nobody may ask for them."""
    import ray

    ray.init(address=address, log_to_driver=False)
    return [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]


def joins_without_token(address: str) -> bool:
    script = "import sys, ray; ray.init(address=sys.argv[1], log_to_driver=False); ray.nodes()"
    variables = {k: v for k, v in os.environ.items() if not k.startswith("RAY_AUTH_")}
    done = subprocess.run(
        [sys.executable, "-c", script, address],
        env={**variables, "RAY_AUTH_MODE": "disabled"},
        capture_output=True,
        check=False,
        timeout=120,
    )
    return done.returncode == 0


def main() -> int:
    if sys.argv[1:4] != ["-m", "areal_real.cli", "train"]:
        os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
    words = sys.argv[4:]
    out = Path(words[words.index("--out") + 1])
    calls = out.with_name(out.name + ".calls.jsonl")
    attempt = len(calls.read_text().splitlines()) if calls.exists() else 0
    call: dict[str, object] = {"words": words, "attempt": attempt}
    plan = json.loads(out.with_name(out.name + ".plan.json").read_text())[attempt]
    if "ray" in plan:
        call["nodes"] = ray_nodes(words[words.index("--address") + 1])
        call["without_token"] = joins_without_token(words[words.index("--address") + 1])
        # In it everybody may write, so nobody else may come to it.
        call["folder_modes"] = [
            x.stat().st_mode & 0o777 for x in Path(os.environ["TMPDIR"]).glob("ray-*")
        ]
        call["token_mode"] = os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o777
    with calls.open("a") as file:
        file.write(json.dumps(call) + "\n")
    told: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: told.append(number))
    print(f"training, attempt {attempt}", flush=True)
    (out.with_name(out.name + ".running")).touch()
    while plan.get("waits") and not (told and plan["waits"] == "for the signal"):
        time.sleep(0.05)
    if "checkpoint" in plan:
        checkpoint(out, plan["checkpoint"])
    return int(plan["exit"])


if __name__ == "__main__":
    sys.exit(main())
