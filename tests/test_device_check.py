"""The script that checks a CUDA device, where there is none."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import device_check

SCRIPT = Path(device_check.__file__)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA: there is a device")
def test_without_a_device_it_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, SCRIPT, tmp_path / "results"], capture_output=True, text=True
    )
    assert done.returncode == 1
    facts, message = done.stdout.splitlines()
    assert json.loads(facts)["torch"] == torch.__version__
    assert message == "device: expected a CUDA device, got none (--rehearse does without)"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_a_stage_beyond_its_time_ends_with_all_its_processes(tmp_path):
    number = tmp_path / "number"
    command = ["sh", "-c", f"sleep 600 & echo $! > {number}; wait"]
    outcome = device_check.run(command, tmp_path / "log", dict(os.environ), limit=1)
    assert outcome["status"] == 124
    assert "ended after 1 s" in (tmp_path / "log").read_text()
    state = Path(f"/proc/{int(number.read_text())}/stat")
    # Gone, or dead and waiting for its parent to notice.
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_stages_run_one_after_the_other_and_leave_a_summary(tmp_path, monkeypatch):
    monkeypatch.setattr(device_check, "tests", lambda results: [sys.executable, "-c", "print(5)"])
    failing = [sys.executable, "-c", "print(7); raise SystemExit(3)"]
    monkeypatch.setattr(device_check, "benchmark", lambda results, rehearse: failing)
    arguments = ["device_check", str(tmp_path), "--rehearse", "--only", "tests", "benchmark"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert device_check.main() == 1
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert {name: stage["status"] for name, stage in summary["stages"].items()} == {
        "tests": 0, "benchmark": 3
    }  # fmt: skip
    assert (tmp_path / "benchmark.log").read_text() == "7\n"
