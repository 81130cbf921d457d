"""The store of a Ray cluster does not keep what a run asks its actors, again and again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.repo import ROOT

pytest.importorskip("ray", reason="Ray is not installed: run the tests with `make test`")

ASK = """
import json, sys, time, warnings
from pathlib import Path
warnings.simplefilter("ignore")
from areal_real.config import load_config
from areal_real.placement.actors import new_actor, new_group
from areal_real.placement.join import joined
from areal_real.placement.node_side import NodeActor, Site

class Ours(NodeActor):
    def ours(self):
        return 1

class Another:
    def another(self):
        return 1

config = load_config("configs/real/tiny-cpu.toml", [])
with joined(None, config) as ray:
    group = new_group([{"CPU": 1.0}], "test")
    site = Site(folder=Path(sys.argv[1]), sha256="", cluster=False, address="")
    ours = new_actor(Ours, site, group, 0, {"CPU": 1.0})
    another = ray.remote(Another).options(num_cpus=0).remote()
    answers = 0
    for _ in range(30):
        answers += sum(ray.get([ours.ours.remote(), another.another.remote()], timeout=120))
    end_s = time.monotonic() + 60
    while True:  # calls are told to the store once a second
        kept = sorted({event["name"].split("::")[-1] for event in ray.timeline()})
        if any("another" in name for name in kept) or time.monotonic() > end_s:
            break
        time.sleep(0.5)
    time.sleep(3)
    kept = sorted({event["name"].split("::")[-1] for event in ray.timeline()})
    print(json.dumps({"answers": answers, "kept": kept}))
"""


@pytest.mark.slow
def test_calls_of_our_actors_are_not_kept_by_the_cluster(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["answers"] == 60
    assert any("another" in name for name in told["kept"]), "calls of other actors are kept"
    assert not any("ours" in name.lower() for name in told["kept"]), told["kept"]
