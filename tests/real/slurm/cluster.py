"""A SLURM cluster of two nodes, both this machine; its daemons end with the tests.

Everything lies in one folder, munge's key and socket too, and every port is a free one, so that it
meets no other SLURM and needs none of its settings.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from areal_real.slurm.submit import ENDED

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol", "squeue", "srun")
REQUEUE_S = 5
"""A job that is queued again waits for as long as credentials live, at least 5 s."""

START_S = 60.0
CONF = """\
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire={requeue_s}
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SchedulerParameters=sched_interval=1
KillWait=5
SlurmdParameters=config_overrides
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=8 RealMemory=4000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=8 RealMemory=4000
PartitionName=main Nodes=ALL Default=YES MaxTime=60 State=UP
"""


def missing() -> str:
    """Why there can be no cluster here; empty: there can."""
    lacking = [name for name in PROGRAMS if _program(name) is None]
    if lacking:
        return f"needs the Debian packages slurm-wlm and munge (no {', '.join(lacking)} here)"
    return ""


def _program(name: str) -> str | None:
    path = os.environ.get("PATH", "")
    return shutil.which(name, path=f"{path}{os.pathsep}/usr/sbin")


class Cluster:
    """The cluster, while it runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            # A setting of somebody's own would be taken for an option of every job.
            **{k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "SBATCH_"))},
            "SLURM_CONF": str(folder / "slurm.conf"),
        }

    def call(self, *command: str, check: bool = True) -> str:
        done = subprocess.run(
            command, env=self.environment, capture_output=True, text=True, check=False, timeout=60
        )
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    def field(self, job: str, name: str) -> str:
        """One field of a job, such as JobState; empty: it has none."""
        words = self.call("scontrol", "show", "job", "--oneliner", job).split()
        return next((x.partition("=")[2] for x in words if x.startswith(f"{name}=")), "")

    def until(self, condition: Callable[[], bool], patience_s: float, log: Path) -> None:
        """Wait for something a job does; its log is shown where it does not."""
        end_s = time.monotonic() + patience_s
        while not condition():
            text = log.read_text() if log.exists() else "(no log)"
            assert time.monotonic() < end_s, text
            time.sleep(0.1)

    def ended(self, job: str) -> str:
        """The state in which a job has come to its end; empty: it has not."""
        state = self.field(job, "JobState")
        # There are many others, some for a moment, as CONFIGURING.
        return state if state in ENDED else ""


@contextlib.contextmanager
def cluster() -> Iterator[Cluster]:
    """Start one, and end it with all that its jobs left."""
    # Short: SLURM makes Unix sockets in it, whose paths have at most 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="areal-slurm-"))
    daemons: list[subprocess.Popen[bytes]] = []
    try:
        (folder / "state").mkdir()
        key = folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(1024))
        host = socket.gethostname().partition(".")[0]
        text = CONF.format(
            host=host,
            user=getpass.getuser(),
            folder=folder,
            ports=_free_ports(3),
            requeue_s=REQUEUE_S,
        )
        (folder / "slurm.conf").write_text(text)
        made = Cluster(folder)

        def start(name: str, *options: str) -> None:
            # Should the tests be killed, the daemons end too.
            guard = ("setpriv", "--pdeathsig", "KILL") if shutil.which("setpriv") else ()
            program = _program(name)
            assert program is not None
            with (folder / "daemons.out").open("ab") as output:
                daemons.append(
                    subprocess.Popen(
                        [*guard, program, *options],
                        env=made.environment,
                        stdin=subprocess.DEVNULL,
                        stdout=output,
                        stderr=output,
                        start_new_session=True,
                    )
                )

        files = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}
        options = [f"--{option}={folder}/munge.{end}" for option, end in files.items()]
        start("munged", "--foreground", "--force", f"--seed-file={folder}/munge.seed", *options)
        _wait(lambda: (folder / "munge.socket").exists(), folder)
        start("slurmctld", "-D", "-i")
        for node in ("n1", "n2"):
            start("slurmd", "-D", "-N", node)
        _wait(
            lambda: made.call("sinfo", "-h", "-t", "idle", "-o", "%D", check=False) == "2\n", folder
        )
        yield made
        made.call("scancel", "--full", "--signal=KILL", "--user", getpass.getuser(), check=False)
        made.call("scancel", "--user", getpass.getuser(), check=False)
        _wait(lambda: made.call("squeue", "-h", check=False) == "", folder)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait(5)
        for process in left_behind(folder):  # slurmstepd of a job that would not end
            with contextlib.suppress(psutil.Error):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def left_behind(folder: Path) -> list[psutil.Process]:
    """Processes that know this cluster by its slurm.conf."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("SLURM_CONF") == str(folder / "slurm.conf"):
                found.append(process)
    return found


def _wait(condition: Callable[[], bool], folder: Path) -> None:
    end_s = time.monotonic() + START_S
    while not condition():
        logs = "\n".join(x.read_text() for x in (*folder.glob("*.log"), folder / "daemons.out"))
        assert time.monotonic() < end_s, logs[-4000:]
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in opened:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in opened]
