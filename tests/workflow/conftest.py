"""A finished small study, made once, and copies of it."""

from pathlib import Path

import pytest
from tests.conftest import MadeOnce
from tests.workflow.small_study import Study, new_study


@pytest.fixture(scope="session")
def finished(made_once: MadeOnce) -> Study:
    """A study after its first, complete run; not to be changed."""

    def make(folder: Path) -> None:
        run = new_study(folder).run()
        assert run.code == 0, run.text

    return Study(made_once("finished", make))


@pytest.fixture
def study(finished: Study, tmp_path: Path) -> Study:
    """A copy of the finished study, free to be changed."""
    return finished.copy_to(tmp_path)
