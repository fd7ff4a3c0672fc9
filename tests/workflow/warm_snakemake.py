"""Snakemake and its jobs in processes of their own that start warm.

Each is forked from one process that has imported the packages, since importing them takes longer than the jobs of a
small study and several times longer than planning it. The library is not among them: every process imports that of the
workflow that it runs. One whole study comes from the command itself (`test_a_hosted_module_runs_through`).
"""

from __future__ import annotations

import functools
import gc
import json
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing import connection, forkserver
from pathlib import Path
from typing import Any

ROOT = str(Path(__file__).parents[2])
# What Snakemake and the library import, as far as it takes time.
IMPORTED = """
    snakemake.cli snakemake.report.html_reporter requests pydantic pandas pyarrow.dataset pyarrow.pandas_compat
    scipy.ndimage scipy.spatial scipy.stats skimage.measure._regionprops skimage.morphology surface_distance nibabel
    SimpleITK pydicom isal.igzip jinja2 matplotlib.figure matplotlib.patheffects matplotlib.backends.backend_svg
    matplotlib.backends.backend_pdf torch torchvision.transforms.functional segment_anything sam2.modeling.sam2_base
    sam2.modeling.backbones.image_encoder sam2.modeling.backbones.hieradet sam2.modeling.memory_attention
    sam2.modeling.memory_encoder hydra.utils
"""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(IMPORTED.split())
# Starting a process also asks the others for their exit codes. An exit code can be read once: where one thread of
# Snakemake reads it while another one waits for it, the other one finds none and takes the process for a failed one.
ONE_AT_A_TIME = threading.Lock()


@dataclass
class Surroundings:
    """What a process finds when it starts: working directory, environment, module path, output and error files."""

    folder: str
    environment: dict[str, str]
    path: list[str]
    output: str
    errors: str

    def enter(self) -> None:
        gc.freeze()  # what was imported before the fork stays: looking through it again and again takes time
        os.chdir(self.folder)
        os.environ.clear()
        os.environ.update(self.environment)
        sys.path[:] = self.path
        for name, number in ((self.output, 1), (self.errors, 2)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_APPEND), number)


def run_snakemake(folder: Path, arguments: Sequence[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run the command `snakemake` in a folder: its exit code, and what it and its jobs printed."""
    path = [*filter(None, environment.get("PYTHONPATH", "").split(os.pathsep)), *_module_path()]
    with tempfile.NamedTemporaryFile("r") as output, tempfile.NamedTemporaryFile("r") as errors:
        surroundings = Surroundings(str(folder), environment, path, output.name, errors.name)
        forkserver.ensure_running()
        code = _wait(_start(_command, surroundings, list(arguments), _server()))
        return code, output.read() + errors.read()


@functools.cache
def _module_path() -> list[str]:
    """Where a new Python looks for modules."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = "import json, sys; print(json.dumps(sys.path[1:]))"
    return json.loads(subprocess.check_output([sys.executable, "-c", program], env=environment))


# Where multiprocessing keeps how its server of forks is reached.
SERVER: Any = forkserver._forkserver
REACHED_BY = ("_forkserver_address", "_forkserver_authkey")


def _server() -> dict[str, Any]:
    """How this process reaches the process that others are forked from."""
    return {name: getattr(SERVER, name) for name in REACHED_BY if hasattr(SERVER, name)}


def _use_server(reached: dict[str, Any]) -> None:
    """Start processes from that server, too. By itself a process that came from one starts another one, which imports
    everything again: more work than most of the jobs."""
    for name, value in reached.items():
        setattr(SERVER, name, value)
    SERVER.ensure_running = lambda: None  # would not know the server, which is no child of this process


def _start(target: Any, *arguments: Any) -> Any:
    process = PROCESSES.Process(target=target, args=arguments)
    with ONE_AT_A_TIME:
        process.start()
    return process


def _wait(process: Any) -> int:
    connection.wait([process.sentinel])
    with ONE_AT_A_TIME:
        process.join()
    return process.exitcode


def _command(surroundings: Surroundings, arguments: list[str], reached: dict[str, Any]) -> None:
    from snakemake.benchmark import benchmarked
    from snakemake.cli import main
    from snakemake.script import PythonScript

    def execute_script(script: Any, path: str, edit: bool = False) -> None:
        """In place of Snakemake's, which runs `python path`."""
        threads = {"OMP_NUM_THREADS": str(script.threads)}
        # Where a new Python looks: the workflow has set PYTHONPATH to its own library since this one started.
        found = [os.path.dirname(path), *os.environ["PYTHONPATH"].split(os.pathsep), *surroundings.path]
        job = Surroundings(os.getcwd(), os.environ | threads, found, surroundings.output, surroundings.errors)
        # Nothing is left of a process that has ended, since the server of forks reads its exit code: unlike a child of
        # Snakemake's own, a job could be over before its figures are looked at, and the job waits for that.
        waits, looked_at = PROCESSES.Pipe(duplex=False)
        process = _start(_job, job, path, waits)
        with benchmarked(process.pid, script.bench_record):
            looked_at.send(True)
            code = _wait(process)
        if code:
            raise subprocess.CalledProcessError(code, [sys.executable, path])

    _use_server(reached)
    surroundings.enter()
    sys.path.append(ROOT)  # a job's process starts with this path, and has to find this module
    PythonScript.execute_script = execute_script
    main(arguments)


def _job(surroundings: Surroundings, path: str, looked_at: connection.Connection) -> None:
    looked_at.recv()
    surroundings.enter()
    sys.argv = [path]
    runpy.run_path(path, run_name="__main__")
