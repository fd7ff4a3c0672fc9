"""A finished small study, made once, and copies of it."""

from pathlib import Path

import pytest
from tests.workflow.small_study import Study, new_study


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study after its first, complete run; not to be changed."""
    study = new_study(tmp_path_factory.mktemp("finished"))
    run = study.run()
    assert run.code == 0, run.text
    return study


@pytest.fixture
def study(finished: Study, tmp_path: Path) -> Study:
    """A copy of the finished study, free to be changed."""
    return finished.copy_to(tmp_path)
