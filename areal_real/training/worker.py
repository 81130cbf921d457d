"""One process of the trainer's world: ``python -m areal_real.training.worker``.

Rank 0 hears the run's commands and hands them to the others; then all carry them out alike. A
`BackendError` is agreed on by all processes and answered, and the world lives on. Any other error
ends this process, and with it the world.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from areal_real.training.control import PARENT_VARIABLE, SETTINGS_VARIABLE, Channel
from areal_real.training.settings import TrainerSettings

PR_SET_PDEATHSIG = 1
"""``linux/prctl.h``."""


def main() -> None:
    """Take part until told to stop."""
    if sys.platform == "linux":  # if whoever started us is killed, so are we
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != int(os.environ[PARENT_VARIABLE]):
            sys.exit("the parent died before its process started")
    # A batch system sends it to all processes of a job that it ends. The run then wants a last
    # checkpoint; it ends us itself, by SIGKILL.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    settings = TrainerSettings.from_json(json.loads(os.environ[SETTINGS_VARIABLE]))
    channel = Channel() if os.environ["RANK"] == "0" else None
    try:
        _work(settings, channel)
    except Exception as exc:
        traceback.print_exc()
        if channel is not None:
            channel.send({"dying": f"{type(exc).__name__}: {exc}"})
        sys.stderr.flush()
        os._exit(1)  # at once: the other processes wait for this one


def _work(settings: TrainerSettings, channel: Channel | None) -> None:
    import torch

    torch.set_num_threads(settings.threads)
    from areal_real.training import cpu

    cpu.enable()  # before anything else imports Megatron: it shortens that
    from areal_real.training import ranks

    place = ranks.join(settings)
    pids = place.gather(os.getpid())
    if channel is not None:
        channel.send({"pids": pids})
    _Worker(settings, place, channel).serve()


class _Worker:
    def __init__(self, settings: TrainerSettings, place: Any, channel: Channel | None) -> None:
        self._settings = settings
        self._ranks = place
        self._channel = channel
        self._trainer: Any = None
        self._sending: Any = None
        if channel is not None and settings.held_versions:
            from areal_real.training.sending import Sending

            self._sending = Sending(place.device, settings.held_versions)
            channel.on_aside = lambda message: self._sending.carry_out(message, channel.send)

    def serve(self) -> None:
        """Carry out commands."""
        from areal_real.errors import BackendError
        from areal_sched.errors import ConfigError

        running = True
        while running:
            request = self._ranks.share(self._channel.receive() if self._channel else None)
            number, command = request.pop("id"), request.pop("command")
            running = command != "stop"
            try:
                result = getattr(self, f"_{command}")(**request)
            except (BackendError, ConfigError) as exc:
                kind = "config" if isinstance(exc, ConfigError) else "backend"
                self._answer({"id": number, "error": str(exc), "kind": kind})
            else:
                self._answer({"id": number, "result": result})

    def _answer(self, message: dict[str, Any]) -> None:
        if self._channel is not None:
            self._channel.send(message)

    def _span(self, *span: Any) -> None:
        self._answer({"span": list(span)})

    def _start(self, folder: str) -> None:
        from areal_real.training.trainer import Trainer

        self._trainer = Trainer(self._settings, self._ranks, Path(folder), self._span)

    def _train(self, version: int, batch: str) -> Any:
        return self._trainer.train(version, self._batch(batch))

    def _supervised(self, batch: str, **options: Any) -> Any:
        return self._trainer.supervised(self._batch(batch), **options)

    def _logprobs(self, batch: str) -> Any:
        return self._trainer.logprobs(self._batch(batch))

    def _export(self, folder: str) -> None:
        self._trainer.export(Path(folder))
        if self._settings.held_versions:
            weights = self._trainer.whole_weights()
            if self._sending is not None:
                self._sending.hold(self._trainer.counters.version, weights)

    def _save(self, folder: str) -> None:
        self._trainer.save(Path(folder))

    def _stop(self) -> None:
        self._ranks.barrier()

    def _batch(self, path: str) -> Any:
        from areal_real.errors import BackendError
        from areal_real.training.batch import Batch

        batch, error = None, None
        try:
            batch = Batch.load(Path(path))
        except BackendError as exc:
            error = str(exc)
        self._ranks.agree(error)
        return batch


if __name__ == "__main__":
    main()
