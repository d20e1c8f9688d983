"""Everything that wants a CUDA device, in one run of a few minutes.

``python -m benchmarks.device_check RESULTS [--wheels FOLDER] [--rehearse] [--only STAGE ...]``,
from the root of the project, with the Python whose PyTorch sees the device. It needs no network:
packages that this Python lacks can lie in FOLDER as wheels. Its stages are the tests that want a
device with the verification of every kind and format among them, the C++ library built against
this PyTorch with its tests, and `benchmarks.cuda`. The first two run side by side, the last one
alone. Each has a time limit of its own, and one that fails does not end the others.

RESULTS receives a log of each stage, ``tests.xml``, ``cuda.json``, and ``summary.json``: device,
driver, versions, and for each stage its exit status and seconds. ``--rehearse`` is the same without
a device, in small sizes. Standard library only: nothing is installed when it starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# Seconds that each stage may take.
LIMITS = {"tests": 200, "cpp": 200, "benchmark": 200}
DESCRIBE = """
import json, platform, subprocess, sys, torch
from importlib.metadata import PackageNotFoundError, version
names = ("torch", "triton", "numpy", "onnxruntime", "numba")
def known(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
facts = {"python": platform.python_version(), **{name: known(name) for name in names}}
if torch.cuda.is_available():
    properties = torch.cuda.get_device_properties(0)
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    facts |= {
        "device": properties.name, "memory_gib": properties.total_memory / 2**30,
        "multiprocessors": properties.multi_processor_count, "cuda": torch.version.cuda,
        "driver": subprocess.run(query, capture_output=True, text=True).stdout.strip(),
    }
print(json.dumps(facts))
"""


def main() -> int:
    """Run the stages, write the results, and return 1 if any of them failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", type=Path, help="folder for the results")
    parser.add_argument("--wheels", type=Path, help="folder of wheels to install first")
    parser.add_argument("--rehearse", action="store_true", help="run without a device")
    parser.add_argument("--only", nargs="+", choices=list(LIMITS), help="stages to run")
    arguments = parser.parse_args()
    results = arguments.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        environment = environment_with(arguments.wheels, Path(folder) / "site")
        described = run([sys.executable, "-c", DESCRIBE], results / "describe.log", environment, 60)
        facts = last_line(results / "describe.log") if described["status"] == 0 else "{}"
        print(facts, flush=True)
        if "device" not in json.loads(facts) and not arguments.rehearse:
            print("device: expected a CUDA device, got none (--rehearse does without)")
            return 1
        stages = arguments.only or list(LIMITS)
        build = Path(folder) / "build"
        commands = {
            "tests": tests(results),
            "cpp": cpp(build),
            "benchmark": benchmark(results, arguments.rehearse),
        }

        def stage(name: str) -> dict[str, float]:
            outcome = run(commands[name], results / f"{name}.log", environment, LIMITS[name])
            print(f"{name}: status {outcome['status']}, {outcome['seconds']:.0f} s", flush=True)
            return outcome

        outcomes: dict[str, dict[str, float]] = {}
        together = [name for name in stages if name != "benchmark"]
        with ThreadPoolExecutor() as pool:
            outcomes |= zip(together, pool.map(stage, together), strict=True)
        outcomes |= {name: stage(name) for name in stages if name == "benchmark"}
    summary = json.loads(facts) | {"date": time.strftime("%Y-%m-%d"), "stages": outcomes}
    (results / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    for name in stages:
        print(f"== {name}", *tail(results / f"{name}.log"), sep="\n", flush=True)
    return int(any(outcome["status"] != 0 for outcome in outcomes.values()))


def environment_with(wheels: Path | None, site: Path) -> dict[str, str]:
    """Return the environment of the stages, with wheels installed into a folder of their own."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "OMP_NUM_THREADS": "1"}
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    files = sorted(wheels.glob("*.whl")) if wheels else []
    if files:
        options = "--quiet --no-index --no-deps --no-compile --no-cache-dir --target"
        subprocess.run(
            [sys.executable, "-m", "pip", "install", *options.split(), site, *files], check=True
        )
        paths.append(str(site))
    return environment | {"PYTHONPATH": os.pathsep.join(paths)}


def tests(results: Path) -> list[str]:
    """Return the command of the tests that want a device."""
    jobs = max(min((os.cpu_count() or 1) - 4, 12), 1)
    return [
        sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "-n", str(jobs),
        "--dist", "worksteal", f"--junit-xml={results / 'tests.xml'}",
        "--durations=20", "tests/test_cuda.py", "tests/jacobian/test_triton_chain_rule.py",
    ]  # fmt: skip


def cpp(build: Path) -> list[str]:
    """Return the command that builds the C++ library's tests and runs them."""
    ninja = ["-G", "Ninja"] if shutil.which("ninja") else []
    configure = ["cmake", "-S", ROOT / "cpp_demo", "-B", build, *ninja,
                 f"-DPython3_EXECUTABLE={sys.executable}"]  # fmt: skip
    programs = ["ofcv_tests", *(["cuda_graph_tests"] if shutil.which("nvcc") else [])]
    steps = [
        [*configure, f"-DOFCV_CUDA={'ON' if len(programs) > 1 else 'OFF'}"],
        ["cmake", "--build", build, "--parallel", "8", "--target", *programs],
        ["ctest", "--test-dir", build, "-j", "4", "--output-on-failure", "-R",
         "make_cases|" + "|".join(programs)],
    ]  # fmt: skip
    return ["bash", "-c", " && ".join(shlex.join(map(str, step)) for step in steps)]


def benchmark(results: Path, rehearse: bool) -> list[str]:
    """Return the command of the timings."""
    where = ["--device", "cpu"] if rehearse else []
    return [sys.executable, "-m", "benchmarks.cuda", "--json", str(results / "cuda.json"), *where]


def run(
    command: list[str], log: Path, environment: dict[str, str], limit: float
) -> dict[str, float]:
    """Run a command with a time limit, its output in a log; return status and seconds."""
    start = time.perf_counter()
    with log.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=stream, stderr=subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            # With its children: those of pytest would go on and disturb the timings.
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            stream.write(f"\nended after {limit} s\n")
            status = 124
    return {"status": status, "seconds": time.perf_counter() - start}


def last_line(log: Path) -> str:
    """Return the last line of a log."""
    return log.read_text().strip().splitlines()[-1]


def tail(log: Path, n_lines: int = 40) -> list[str]:
    """Return the last lines of a log."""
    return log.read_text(errors="replace").splitlines()[-n_lines:]


if __name__ == "__main__":
    sys.exit(main())
