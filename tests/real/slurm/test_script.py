"""The script and what is refused before anything is submitted; no SLURM is needed here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from areal_real.cli import main
from areal_real.config import load_config, resolved_toml
from areal_real.slurm.options import cores_per_node, seconds_of, seeds_of
from areal_real.slurm.script import directive
from areal_real.slurm.submit import Logs, Task, parse_tasks
from areal_sched.errors import ConfigError
from tests.house.repo import ROOT

TINY = ROOT / "configs" / "real" / "tiny-cpu.toml"
PAPER = ROOT / "configs" / "real" / "paper-1.5b.toml"
NASTY = "a b\"c'd$HOME`id`\\e;touch f#g"


def dry(
    capsys: pytest.CaptureFixture[str], out: Path, *options: object, config: Path = TINY
) -> str:
    words = ["launch", str(config), "--engine", "slurm", "--out", str(out), *map(str, options)]
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    done = subprocess.run(["bash", "-n"], input=text, text=True, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return text


def directives(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line[:8] == "#SBATCH "]


def values(text: str) -> dict[str, Any]:
    """What the script's own values are, by bash itself."""
    head = text.partition("# From here on")[0]
    script = head + '\nfor x in "$out" "$folder" "${train[@]}"; do printf "%s\\0" "$x"; done\n'
    done = subprocess.run(["bash"], input=script.encode(), capture_output=True, check=True)
    assert done.stderr == b""
    out, beside, *train = done.stdout.decode().split("\0")[:-1]
    return {"out": out, "folder": beside, "train": train}


def test_a_plain_script(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "run"
    text = dry(capsys, out, "--time", "1:00:00", "--set", "limits.eta=4")
    assert directives(text) == [
        "--job-name=tiny-cpu",
        f"--chdir={Path.cwd()}",
        f"--output={out}.slurm/%j.out",
        "--open-mode=append",
        "--nodes=1",
        "--ntasks-per-node=1",
        "--cpus-per-task=2",
        "--time=1:00:00",
        "--requeue",
        "--signal=B:USR1@300",
    ]
    assert values(text)["train"] == [
        *(sys.executable, "-m", "areal_real.cli", "train", str(TINY), "--resume-if-there"),
        *("--set", "limits.eta=4", "--name", "tiny-cpu"),
    ]
    assert not list(tmp_path.iterdir()), "a dry run leaves nothing behind"


def test_every_option_has_its_place(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    setup = tmp_path / "setup.sh"
    setup.write_text("export X=1\n")
    text = dry(
        capsys,
        tmp_path / "run",
        *("--nodes", 2, "--set", "real.listen=cluster", "--cpus-per-task", 3, "--memory", "8G"),
        *("--time", "1-0", "--partition", "cpu", "--account", "lab", "--array", "1-3%2"),
        *("--job-name", "mine", "--setup", setup, "--module", "cuda/12.4", "--no-requeue"),
        *("--sbatch", "qos=high", "--sbatch", "exclusive", "--checkpoint-before", 600),
        *("--give-up-after", 5, "--python", "/opt/venv/bin/python", "--name", "a run"),
    )
    for line in (
        *("--nodes=2", "--cpus-per-task=3", "--mem=8G", "--time=1-0", "--partition=cpu"),
        *("--account=lab", "--array=1-3%2", "--job-name=mine", "--no-requeue", "--qos=high"),
        *("--exclusive", "--signal=B:USR1@600", f"--output={tmp_path}/run.slurm/%A_%a.out"),
    ):
        assert line in directives(text)
    lines = text.splitlines()
    for line in ("module load cuda/12.4", f". {setup}", "requeue=0", "give_up_after=5"):
        assert line in lines
    assert "python=/opt/venv/bin/python" in lines
    assert "run_with=ray" in lines


def test_a_script_on_gpus_asks_for_what_the_run_needs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "problems.jsonl").touch()
    problems = ("--set", f"real.task.file={tmp_path / 'problems.jsonl'}")
    text = dry(capsys, tmp_path / "run", *problems, config=PAPER)
    assert {"--nodes=16", "--gpus-per-node=8"} <= set(directives(text))
    assert "gpus_per_node=8" in text.splitlines()
    text = dry(capsys, tmp_path / "run", "--gpus-per-node", 4, *problems, config=PAPER)
    assert {"--nodes=32", "--gpus-per-node=4"} <= set(directives(text))


def test_hostile_values_stay_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / f"{NASTY}.toml"
    config.write_text(TINY.read_text())
    out = tmp_path / NASTY
    text = dry(
        capsys,
        out,
        *("--name", NASTY + "\nexit 7", "--partition", NASTY, "--module", "true"),
        *("--sbatch", f"comment={NASTY}"),
        config=config,
    )
    head, _, rest = text.partition("module load true\n")
    found = values(head + rest)
    assert (found["out"], found["folder"]) == (str(out), f"{out}.slurm")
    assert found["train"][4:] == [str(config), "--resume-if-there", "--name", NASTY + "\nexit 7"]
    assert not (tmp_path / "f").exists()
    quoted = NASTY.replace("\\", "\\\\").replace('"', '\\"')
    assert f'--partition="{quoted}"' in directives(text)
    assert f'--comment="{quoted}"' in directives(text)


def test_a_percent_sign_in_a_path_is_no_pattern(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = dry(capsys, tmp_path / "100%j")
    assert f"--output={tmp_path}/100%%j.slurm/%j.out" in directives(text)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="needs the program shellcheck")
@pytest.mark.parametrize("options", [(), ("--array", "1-3"), ("--run-with", "local")])
def test_shellcheck_finds_nothing(
    options: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # SC2317: it does not see that traps and srun call functions.
    done = subprocess.run(
        ["shellcheck", "--exclude=SC2317", "-"],
        input=dry(capsys, tmp_path / "run", *options),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


REFUSALS: dict[str, tuple[list[str], str]] = {
    "a wrong key": (["--set", "limits.etta=2"], "did you mean 'eta'?"),
    "no nodes": (["--nodes", "0"], "--nodes 0: has to be at least 1"),
    "nodes left empty": (["--nodes", "9"], "--nodes 9: the run has 2 processes"),
    "nodes out of reach": (["--nodes", "2"], "--set real.listen=cluster would do"),
    "nodes without Ray": (["--nodes", "2", "--run-with", "local"], "on one node"),
    "GPUs on the CPU": (["--gpus-per-node", "8"], 'real.device = "cpu"'),
    "too few cores for Ray": (["--cpus-per-task", "1"], "--cpus-per-task 2 would do"),
    "no memory": (["--memory", "lots"], "--memory lots: expected a number"),
    "no time": (["--time", "soon"], "--time soon: expected minutes"),
    "no time at all": (["--time", "0"], "--time 0: has to be more than nothing"),
    "a notice that is too long": (
        ["--time", "5", "--checkpoint-before", "300"],
        "--checkpoint-before 300: has to be less than --time 5, which is 300 seconds",
    ),
    "a notice beyond sbatch's": (["--checkpoint-before", "70000"], "at most 65535"),
    "no notice": (["--checkpoint-before", "0"], "at least 1"),
    "no attempts": (["--give-up-after", "0"], "--give-up-after 0"),
    "no seeds": (["--array", "a-b"], "--array a-b: expected seeds"),
    "a range backwards": (["--array", "3-1"], "--array 3-1: 3-1 is no range"),
    "a seed twice": (["--array", "1,1"], "named twice"),
    "no setup": (["--setup", "nowhere.sh"], "--setup nowhere.sh: no such file"),
    "an option that is ours": (["--sbatch", "time=5"], "use --time"),
    "no option": (["--sbatch", "Q!=5"], "expected KEY=VALUE"),
    "a line break": (["--partition", "a\nb"], "printable text in one line"),
    "an empty value": (["--account", ""], "--account '': has to be printable"),
    "a separator of sbatch": (["--job-name", "my hetjob"], "reads 'hetjob' as a separator"),
    "no file of the task": (
        [
            *("--set", "real.task.name=prompts", "--set", "real.task.file=nowhere.jsonl"),
            *("--set", "real.model.path=nowhere", "--set", "real.warm_start.steps=0"),
        ],
        "nowhere",
    ),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_input_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, said = REFUSALS[name]
    assert main(["launch", str(TINY), "--out", str(tmp_path / "run"), *options]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert err.startswith("areal-real: ")
    assert said in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes", "2"], "the run needs 128 GPUs (servers 96, trainer 32); --nodes 16 would do"),
        (["--nodes", "16", "--gpus-per-node", "0"], "--gpus-per-node would do"),
        (["--nodes", "500", "--gpus-per-node", "1"], "at most 128"),
    ],
)
def test_too_little_for_the_run_is_refused(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["launch", str(PAPER), "--out", str(tmp_path / "run"), *options]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_is_taken_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "something").touch()
    assert main(["launch", str(TINY), "--out", str(tmp_path)]) == 2
    assert "exists and is not empty" in capsys.readouterr().err


def test_a_run_of_another_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = tmp_path / "run" / "seed-2"
    seed.mkdir(parents=True)
    (seed / "config.toml").write_text(resolved_toml(load_config(TINY, ["real.seed=7"])))
    words = ["launch", str(TINY), "--out", str(tmp_path / "run"), "--array", "1-3", "--dry-run"]
    assert main(words) == 2
    assert "another configuration" in capsys.readouterr().err
    (seed / "config.toml").write_text(resolved_toml(load_config(TINY, ["real.seed=2"])))
    assert main(words) == 0


def test_a_machine_without_sbatch_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["launch", str(TINY), "--out", str(tmp_path / "run")]) == 1
    err = capsys.readouterr().err
    assert err.startswith("areal-real: sbatch: no such program here")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        *(("90", 5400), ("1:30", 90), ("2:00:01", 7201), ("1-2", 93600), ("1-2:3", 93780)),
        *(("0-0:0:5", 5), ("unlimited", None)),
    ],
)
def test_times_are_read_as_sbatch_does(time: str, seconds: int | None) -> None:
    assert seconds_of(time) == seconds


def test_seeds_are_read_as_sbatch_does() -> None:
    assert seeds_of("1-3") == [1, 2, 3]
    assert seeds_of("5,1-2,10-20:5%2") == [5, 1, 2, 10, 15, 20]
    with pytest.raises(ConfigError, match="expected seeds"):
        seeds_of("1-3%0")


def test_on_so_many_cores_every_part_finds_room() -> None:
    config = load_config(
        TINY,
        [
            *("real.server.count=3", "real.server.threads=4", "real.trainer.threads=2"),
            *("real.trainer.data_parallel=4", "real.warm_start.batch_sequences=16"),
        ],
    )
    assert cores_per_node(config, 1) == 3 * 4 + 4 * 2
    for nodes in (2, 3, 4):
        cores = cores_per_node(config, nodes)
        # Small parts first, each where most is free, is the worst that a placer may do.
        free = [cores] * nodes
        for part in [2] * 4 + [4] * 3:
            place = free.index(max(free))
            assert free[place] >= part
            free[place] -= part


def test_directives() -> None:
    assert directive("exclusive", None) == "--exclusive"
    assert directive("time", "1-2:03:04") == "--time=1-2:03:04"
    assert directive("comment", 'a "b" \\') == '--comment="a \\"b\\" \\\\"'


def test_what_scontrol_tells_of_a_job() -> None:
    told = (
        "JobId=12 JobName=x JobState=PENDING Reason=BeginTime Requeue=1 Restarts=3 ExitCode=0:0\n"
        "JobId=14 ArrayJobId=13 ArrayTaskId=2 JobName=JobState=FAKE JobState=FAILED Reason=None"
        " Restarts=0 ExitCode=2:0\n\n"
    )
    assert parse_tasks(told) == {
        "12": Task(state="PENDING", exit_code="0:0", restarts=3, reason="BeginTime"),
        "13_2": Task(state="FAILED", exit_code="2:0", restarts=0, reason="None"),
    }


def test_logs_are_copied_once(tmp_path: Path) -> None:
    logs = Logs(tmp_path, "12")
    (tmp_path / "120.out").write_text("another job\n")
    (tmp_path / "12.out").write_text("one\n")
    copied = tmp_path / "copied"
    for more in ("", "two\n", ""):
        with (tmp_path / "12.out").open("a") as file:
            file.write(more)
        with copied.open("ab") as output:
            logs.copy(output)
    assert copied.read_text() == "one\ntwo\n"


def test_the_dry_run_prints_what_would_be_submitted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for sbatch shows what it is given."""
    programs = tmp_path / "bin"
    programs.mkdir()
    sbatch = programs / "sbatch"
    sbatch.write_text(
        '#!/bin/sh\nprintf \'%s\\n\' "$@" >"$SEEN.words"\ncp "$2" "$SEEN"\necho "77;cluster"\n'
    )
    sbatch.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("SEEN", str(tmp_path / "seen"))
    text = dry(capsys, tmp_path / "run")
    assert main(["launch", str(TINY), "--out", str(tmp_path / "run")]) == 0
    assert "job 77 is submitted" in capsys.readouterr().err
    assert (tmp_path / "seen").read_text() == text
    words = (tmp_path / "seen.words").read_text().split("\n")
    assert words[:2] == ["--parsable", str(tmp_path / "run.slurm" / "job.sh")]
