"""The page in a real browser, from the command to a file that runs."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from areal_sim.config import load_config
from areal_sim.ui import access
from tests.house.repo import ROOT, clean_environment

CHROMIUM = shutil.which("chromium")
WAIT_S = 120

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="needs the Debian package chromium"),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command, and the address it prints."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    environment = clean_environment(PYTHONPATH=str(ROOT))
    environment.pop(access.TOKEN_VARIABLE, None)
    command = [sys.executable, "-m", "areal_sim.cli", "ui", "--no-browser", f"--port={port}"]
    with (tmp_path / "err.txt").open("w") as errors:
        process = subprocess.Popen(
            [*command, "--cache", str(tmp_path / "cache")],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        line = next((x for x in process.stdout if x.startswith("areal-sim ui: http")), "")
        assert line, (tmp_path / "err.txt").read_text()
        yield process, line.split()[2]
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_a_slider_moves_a_number_and_the_file_runs(
    server: tuple[subprocess.Popen[str], str], tmp_path: Path
) -> None:
    from playwright.sync_api import expect, sync_playwright

    process, url = server
    said: list[str] = []
    hosts: set[str] = set()
    file = tmp_path / "plan.toml"
    expect.set_options(timeout=WAIT_S * 1000)
    with sync_playwright() as playwright:
        # The sandbox of the browser does not work for root, as which CI runs.
        flags = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=flags)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        page.set_default_timeout(WAIT_S * 1000)
        page.on("console", lambda x: said.append(x.text) if x.type == "error" else None)
        page.on("pageerror", lambda x: said.append(str(x)))
        page.on("request", lambda x: hosts.add(x.url.partition("://")[2].partition("/")[0]))
        page.goto(url)
        simulated = page.get_by_text("simulated:")
        expect(simulated).to_be_visible()
        for label, value in (("Prompts a step", 32), ("Answers a prompt", 4), ("GPUs", 16)):
            page.get_by_label(label, exact=True).fill(str(value))
            page.keyboard.press("Enter")
            expect(
                page.locator("[data-testid=stAppViewContainer] [data-stale=true]")
            ).to_have_count(0)
        expect(page.get_by_text("A first guess: areal on 16 H800")).to_be_visible()
        expect(simulated).to_be_visible()
        step = page.get_by_test_id("stMetric").filter(has_text="Step").last
        before = step.inner_text()
        page.get_by_role("slider", name="Nodes").focus()
        page.keyboard.press("ArrowRight")
        expect(step).not_to_have_text(before, use_inner_text=True)
        expect(simulated).to_be_visible()
        page.get_by_role("tab", name="TOML").click()
        with page.expect_download() as download:
            page.get_by_role("button", name="Download plan.toml").click()
        download.value.save_as(file)
        assert said == []
        assert {host for host in hosts if host} <= {url.removeprefix("http://")}
        # Ctrl-C while it plans, in processes of its own.
        page.get_by_role("button", name="Plan").first.click()
        expect(page.get_by_text("Simulating the best")).to_be_visible()
        others = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        assert process.wait(WAIT_S) == 0
        psutil.wait_procs(others, WAIT_S)
        assert [each for each in others if each.is_running()] == []
        browser.close()

    config = load_config(file)
    part = math.gcd(config.servers, config.data_parallel_ranks, config.workload.prompts_per_step)
    changes = ["--set", "workload.steps=1", "--set", f"sim.slice={part}"]
    ran = subprocess.run(
        [sys.executable, "-m", "areal_sim.cli", "run", str(file), *changes, "--json", "--quiet"],
        env=clean_environment(PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["steps"] == 1
