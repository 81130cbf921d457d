"""``sim.faults.schedule`` in a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from areal_sched import JournalReader
from areal_sched.errors import ConfigError
from areal_sim.build import header_of, setup_of
from areal_sim.cli import main
from areal_sim.config import config_sha256, load_config, parse_config, resolved_toml
from areal_sim.config.fault_schedule import KINDS, ScheduledFault
from tests.house.repo import ROOT
from tests.sim.config_cases import small

HOME = ROOT / "configs" / "home-8gpu.toml"

LOST = '{ at_s = 60, fault = "server_lost", server = 1, for_s = 30 }'


def schedule(*faults: str) -> str:
    """As an override."""
    return f"sim.faults.schedule=[{', '.join(faults)}]"


def test_a_schedule_is_read_and_written() -> None:
    endless = '{ at_s = 1.5, fault = "server_lost", server = 0, for_s = inf }'
    config = small(schedule(LOST, endless, '{ at_s = 9, fault = "rewards_failed" }'))
    first, second, third = config.sim.faults.schedule
    assert first == ScheduledFault(at_s=60, fault="server_lost", server=1, for_s=30)
    assert second.for_s is None
    assert third.count == 1
    text = resolved_toml(config)
    assert 'schedule = [{ at_s = 60.0, fault = "server_lost", server = 1, for_s = 30.0 }' in text
    assert parse_config(text) == config
    assert config_sha256(parse_config(text)) == config_sha256(config) != config_sha256(small())
    home = load_config(HOME, [schedule(LOST)])
    assert setup_of(home).faults.schedule == home.sim.faults.schedule == (first,)


def test_a_file_may_have_a_table_for_each() -> None:
    text = resolved_toml(small())
    text += '\n[[sim.faults.schedule]]\nat_s = 5\nfault = "trainer_lost"\nfor_s = 2\n'
    assert parse_config(text).sim.faults.schedule == (
        ScheduledFault(at_s=5, fault="trainer_lost", for_s=2),
    )


def test_without_a_schedule_the_configuration_is_what_it_was() -> None:
    assert "\nschedule =" not in resolved_toml(small())


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ("3", "sim.faults.schedule = 3: expected a list of tables"),
        ("[3]", "sim.faults.schedule[0] = 3: expected a table"),
        ('[{ fault = "servers_join" }]', "sim.faults.schedule[0].at_s: missing"),
        ("[{ at_s = 1 }]", 'sim.faults.schedule[0].fault: missing: one of "server_lost"'),
        (
            '[{ at_s = 1, fault = "server_dead" }]',
            'sim.faults.schedule[0].fault = "server_dead": expected one of "server_lost"',
        ),
        (
            '[{ at_s = 1, fault = "server_lost" }]',
            "sim.faults.schedule[0].server: missing: a whole number >= 0",
        ),
        (
            '[{ at_s = -1, fault = "servers_join" }]',
            "sim.faults.schedule[0].at_s = -1: expected a number >= 0",
        ),
        (
            '[{ at_s = 1, fault = "servers_join", server = 1 }]',
            "sim.faults.schedule[0].server: servers_join does not take it, but count",
        ),
        (
            '[{ at_s = 1, fault = "servers_join", cout = 1 }]',
            "sim.faults.schedule[0].cout: no such key (did you mean 'count'?)",
        ),
        (
            '[{ at_s = 1, fault = "trainer_lost", for_s = inf }]',
            "sim.faults.schedule[0].for_s = inf: trainer_lost needs an end",
        ),
        (
            f'[{LOST}, {{ at_s = 1, fault = "server_hung", server = 99 }}]',
            "sim.faults.schedule[1].server = 99: there are ",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_place(faults: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        small(f"sim.faults.schedule={faults}")
    assert message in str(error.value)


def test_no_servers_join_where_the_trainer_has_the_gpus() -> None:
    with pytest.raises(ConfigError, match=r"schedule\[0\]\.fault = \"servers_join\": with cluster"):
        small("cluster.colocated=true", schedule('{ at_s = 1, fault = "servers_join" }'))


def test_servers_that_join_count_as_gpus_of_the_run() -> None:
    join = '{ at_s = 1, fault = "servers_join", count = 3 }'
    late = '{ at_s = 2, fault = "server_lost", server = 3 }'
    before, after = (
        header_of(small(), "a")["run"],
        header_of(small(schedule(join, late)), "a")["run"],
    )
    per_server = before["gpus_per_server"]
    assert after["servers"] == before["servers"] + 3
    assert after["gpus"] == before["gpus"] + 3 * per_server
    assert after["generation_gpus"] == before["generation_gpus"] + 3 * per_server


def test_every_kind_says_what_it_does_and_which_keys_it_has() -> None:
    from areal_sched.config.options import options_of

    known = {key for key, _, _ in options_of(ScheduledFault)} - {"at_s", "fault"}
    assert {key for kind in KINDS.values() for key in kind.keys} == known
    assert all(kind.meaning for kind in KINDS.values())


def test_a_run_with_a_schedule_and_its_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    faults = schedule(
        '{ at_s = 1, fault = "server_lost", server = 0, for_s = 2 }',
        '{ at_s = 1, fault = "trainer_lost", for_s = 20 }',
        '{ at_s = 2, fault = "servers_join", count = 1 }',
    )
    out = tmp_path / "out"
    more = ["--set", "workload.steps=2", "--set", faults]
    assert main(["run", str(HOME), "--quiet", "--out", str(out), *more]) == 0
    kinds = {type(e.event).__name__ for e in JournalReader(out / "journal.jsonl.gz").entries()}
    assert {"ServerLost", "TrainStepFailed"} <= kinds
    assert main(["replay", str(out)]) == 0
    capsys.readouterr()


def test_a_run_left_without_servers_says_so_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    servers = load_config(HOME).servers
    lost = (f'{{ at_s = 1, fault = "server_lost", server = {n} }}' for n in range(servers))
    assert main(["run", str(HOME), "--quiet", "--set", schedule(*lost)]) == 1
    told = capsys.readouterr().err
    assert "areal-sim: no server is left at " in told
    assert told.count("\n") == 1
