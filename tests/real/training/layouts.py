"""Run as a script: trainers of several layouts one after the other, in one start of processes.

Arguments: a folder with what `reference.py` wrote, a folder for results, a file with the names and
settings of the layouts, and, unless torchrun has started them, how many processes to fork: that
takes one import of Megatron for all of them, but is not for GPUs. Nothing is judged here; the tests
read the results.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import torch

from areal_real.errors import BackendError
from areal_real.training import cpu
from areal_real.training.settings import TrainerSettings
from benchmarks.ray_nodes import free_port
from tests.real.training import small

cpu.enable()  # before anything else imports Megatron: it shortens that

from areal_real.training import ranks  # noqa: E402
from areal_real.training.trainer import Trainer  # noqa: E402


class Layout:
    """One layout and what is tried with it."""

    def __init__(self, source: Path, out: Path, layout: dict[str, Any]) -> None:
        self.source = source
        self.out = out
        self.layout = layout
        self.told: dict[str, Any] = {}
        self.place = ranks.join(TrainerSettings(**{**small.ONE_STEP, **layout}))
        if self.place.rank == 0:
            out.mkdir(parents=True)
        self.place.barrier()

    def trainer(self, options: dict[str, Any], folder: Path | None = None) -> Trainer:
        """A trainer of this layout."""
        settings = TrainerSettings(**{**options, **self.layout})
        return Trainer(settings, self.place, folder or self.source, lambda *_: None)

    def finish(self) -> None:
        """Write what was told, and leave."""
        if self.place.rank == 0:
            (self.out / "told.json").write_text(json.dumps(self.told))
        ranks.leave()

    def one_step(self) -> None:
        """Weights in and out, log-probabilities, one step of each objective."""
        for objective in ("decoupled", "naive"):
            trainer = self.trainer({**small.ONE_STEP, "objective": objective})
            if objective == "decoupled":
                trainer.export(self.out / "exported")
                self.told["logprobs"] = trainer.logprobs(small.batch())
            self.told[objective] = trainer.train(1, small.batch())
            trainer.save(self.out / objective)
        trainer = self.trainer(small.ONE_STEP)
        self.told["supervised"] = trainer.supervised(
            small.batch(), learning_rate=small.LEARNING_RATE
        )
        trainer.save(self.out / "supervised")

    def long(self) -> None:
        """Two steps straight, and the second again from a checkpoint after the first."""
        trainer = self.trainer(small.LONG)
        told = [trainer.train(1, small.batch())]
        trainer.save(self.out / "halfway")
        random = torch.rand(3).tolist()
        told.append(trainer.train(2, small.batch()))
        trainer.save(self.out / "straight")
        resumed = self.trainer(small.LONG, self.out / "halfway")
        self.told["random"] = [random, torch.rand(3).tolist()]
        self.told["counters"] = [resumed.counters.version, resumed.counters.optimizer_steps]
        resumed.train(2, small.batch())
        resumed.save(self.out / "resumed")
        self.told["long"] = told

    def few(self) -> None:
        """Fewer sequences than ranks, and a batch that nothing can be trained on."""
        trainer = self.trainer(small.ONE_STEP)
        self.told["few"] = trainer.train(1, small.batch(sequences=1, seed=5))
        self.told["refused"] = []
        for most_tokens, wrong in (
            (40, small.batch()),
            (64, small.batch(vocab=10_000)),
        ):
            trainer = self.trainer({**small.ONE_STEP, "micro_batch_tokens": most_tokens})
            try:
                trainer.train(1, wrong)
            except BackendError as exc:
                self.told["refused"].append(str(exc))

    def full_disk(self) -> None:
        """A checkpoint and an export that do not fit, over ones that did."""
        trainer = self.trainer(small.ONE_STEP)
        trainer.save(self.out / "kept")
        trainer.export(self.out / "published")
        trainer.train(1, small.batch())
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        errors = []
        for limit in (100, 5_000, 20_000):
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
            for write, folder in ((trainer.save, "kept"), (trainer.export, "published")):
                try:
                    write(self.out / folder)
                except BackendError as exc:
                    errors.append(str(exc))
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        self.told["errors"] = errors
        self.told["left"] = sorted(path.name for path in self.out.iterdir())
        self.told["kept"] = self.trainer(small.ONE_STEP, self.out / "kept").counters.version
        trainer.save(self.out / "kept")
        self.told["later"] = self.trainer(small.ONE_STEP, self.out / "kept").counters.version

    def options(self) -> None:
        """What must not change the outcome."""
        trainer = self.trainer({**small.ONE_STEP, "recompute_activations": True})
        trainer.train(1, small.batch())
        trainer.save(self.out / "recomputed")
        from areal_real.training import logprobs

        kept, logprobs.LOGITS_AT_ONCE = logprobs.LOGITS_AT_ONCE, 100
        trainer = self.trainer(small.ONE_STEP)
        trainer.train(1, small.batch())
        trainer.save(self.out / "chunked")
        logprobs.LOGITS_AT_ONCE = kept

    def weights(self) -> None:
        """Weights as they are sent to servers."""
        from safetensors.torch import save_file

        found = self.trainer(small.ONE_STEP).whole_weights()
        if self.place.rank == 0:
            tensors = {n: t.clone() for bucket in found for n, t in bucket.tensors()}
            save_file(tensors, self.out / "sent.safetensors")

    def served(self) -> None:
        """A checkpoint's weights as servers get them."""
        self.trainer(small.LONG, self.out / "straight").export(self.out / "served")

    def new(self) -> None:
        """A model without weights."""
        config = self.out / "config"
        if self.place.rank == 0:
            small.write_config(config)
        self.place.barrier()
        self.trainer(small.ONE_STEP, config).export(self.out / "new")

    def adopted(self) -> None:
        """Go on from a checkpoint of another layout."""
        folder = Path(self.told.pop("folder"))
        trainer = self.trainer(small.LONG, folder)
        trainer.train(2, small.batch())
        trainer.save(self.out / "adopted")


def main(rank: int, reference: Path, out: Path, plan: list[dict[str, Any]]) -> None:
    """Go through the plan, as one of the processes."""
    os.environ["RANK"] = os.environ["LOCAL_RANK"] = str(rank)
    torch.set_num_threads(1)
    for item in plan:
        for model in item["models"]:
            layout = Layout(reference / model, out / f"{item['name']}-{model}", item["layout"])
            layout.told["folder"] = str(item.get("folder"))
            for action in item["actions"]:
                getattr(layout, action)()
            layout.finish()


if __name__ == "__main__":
    reference, out, plan, *forked = sys.argv[1:]
    work = (Path(reference), Path(out), json.loads(Path(plan).read_text()))
    if not forked:
        main(int(os.environ["RANK"]), *work)
    else:
        os.environ |= {"WORLD_SIZE": forked[0], "MASTER_ADDR": "127.0.0.1"}
        os.environ["MASTER_PORT"] = str(free_port())
        torch.multiprocessing.start_processes(main, work, int(forked[0]), start_method="fork")
