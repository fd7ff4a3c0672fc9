"""What the tests of every folder share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# The small models gain nothing from more threads, and threads that wait for each other on a busy machine cost a lot.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Runs of the workflow print what Snakemake itself prints; the tests of volprompt's console ask for it.
os.environ["VOLPROMPT_CONSOLE"] = "plain"


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data: VOLPROMPT_TEST_DATA, or else ../shared/data beside the repository."""
    folder = Path(os.environ.get("VOLPROMPT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is absent; VOLPROMPT_TEST_DATA names another folder")
    return folder
