"""Snakemake and its jobs in processes of their own that start warm.

Each is forked from one process that has imported the packages: importing them takes longer than the jobs of a small
study do, and several times longer than planning it. The library is not among them: every process imports that of the
workflow that it runs. The study that most tests look at, and the tests of profiles, start Snakemake from its command.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What Snakemake and the library import, as far as it takes time.
IMPORTED = """
    snakemake.cli snakemake.report.html_reporter requests pydantic pandas pyarrow.parquet scipy.ndimage scipy.spatial
    skimage.measure surface_distance nibabel SimpleITK pydicom jinja2 matplotlib.figure matplotlib.backends.backend_svg
    matplotlib.backends.backend_pdf torch torchvision.transforms.functional segment_anything sam2.modeling.sam2_base
    hydra.utils
"""
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(IMPORTED.split())


def snakemake(folder: Path, arguments: Sequence[str]) -> tuple[int, str]:
    """Run the command `snakemake` in a folder: its exit code, and what it and its jobs printed."""
    with tempfile.NamedTemporaryFile("r", suffix=".log") as printed:
        code = _finish(_start(_command, folder, dict(os.environ), printed.name, arguments))
        return code, printed.read()


def _start(target: Any, *arguments: Any) -> Any:
    process = PROCESSES.Process(target=target, args=arguments)
    process.start()
    return process


def _finish(process: Any) -> int:
    process.join()
    return process.exitcode


def _prepare(folder: Path | str, environment: dict[str, str], printed: str) -> None:
    """Make a forked process as one that was started in the folder; the workflow has to find its library itself."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:] = [path for path in sys.path if not path.endswith("workflow/scripts")]
    file = os.open(printed, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)


def _command(folder: Path, environment: dict[str, str], printed: str, arguments: Sequence[str]) -> None:
    from snakemake.benchmark import benchmarked
    from snakemake.cli import main
    from snakemake.script import PythonScript

    def execute_script(script: Any, path: str, edit: bool = False) -> None:
        """In place of Snakemake's: `python path`."""
        threads = {"OMP_NUM_THREADS": str(script.threads)}
        process = _start(_job, os.getcwd(), os.environ | threads, printed, path)
        with benchmarked(process.pid, script.bench_record):
            code = _finish(process)
        if code:
            raise subprocess.CalledProcessError(code, [sys.executable, path])

    _prepare(folder, environment, printed)
    PythonScript.execute_script = execute_script
    main(list(arguments))


def _job(folder: str, environment: dict[str, str], printed: str, path: str) -> None:
    _prepare(folder, environment, printed)
    sys.argv = [path]
    runpy.run_path(path, run_name="__main__")
