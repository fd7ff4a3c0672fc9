"""What the tests of every folder share."""

from __future__ import annotations

import compileall
import gc
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from filelock import FileLock

REPOSITORY = Path(__file__).resolve().parents[1]

# The small models gain nothing from more threads, and threads that wait for each other on a busy machine cost a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Where there are two all the same (a test's own setting, jobs of the workflow), they must not spin while they wait.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Runs of the workflow print what Snakemake itself prints; the tests of volprompt's console ask for it.
os.environ["VOLPROMPT_CONSOLE"] = "plain"

# Makes a folder of this name by a function, once for all processes of the test run.
MadeOnce = Callable[[str, Callable[[Path], object]], Path]


def pytest_configure() -> None:
    """Compile the library once. Where PYTHONDONTWRITEBYTECODE is set, every job of every run would do so."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        for folder in ("workflow/scripts", "console"):
            compileall.compile_dir(REPOSITORY / folder, quiet=1)


def pytest_collection_finish() -> None:
    """What is imported and collected stays until the end, and is more than all that the tests make: it is not looked
    through for garbage again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)


@pytest.fixture(autouse=True)
def visible_gpus_stay() -> Iterator[None]:
    """A test that chooses the CPU hides the GPUs from this process; the next one may need them."""
    before = os.environ.get("CUDA_VISIBLE_DEVICES")
    yield
    if before is None:
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = before


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data: VOLPROMPT_TEST_DATA, or else ../shared/data beside the repository."""
    folder = Path(os.environ.get("VOLPROMPT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent; VOLPROMPT_TEST_DATA names another folder")
    return folder


@pytest.fixture
def rounds() -> Callable[[int], int]:
    """How many of its rounds a simulation or fuzz run does: all, or the share that VOLPROMPT_TEST_ROUNDS gives."""
    return lambda full: max(1, round(full * float(os.environ.get("VOLPROMPT_TEST_ROUNDS", 1))))


@pytest.fixture(scope="session")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> MadeOnce:
    """The first process that asks for a folder makes it, the others wait for it."""
    own = tmp_path_factory.getbasetemp()
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own

    def folder(name: str, make: Callable[[Path], object]) -> Path:
        path, unfinished = shared / name, shared / f"{name}.unfinished"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir()
                make(unfinished)
                unfinished.rename(path)
        return path

    return folder
