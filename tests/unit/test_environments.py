"""The conda environments pin what requirements.lock pins."""

import re
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
CONDA_NAMES = {"pytorch": "torch", "python-isal": "isal"}


def locked() -> dict[str, set[str]]:
    """Versions by package; a package has several where they depend on the version of Python."""
    found: dict[str, set[str]] = {}
    for name, number in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.M):
        found.setdefault(name, set()).add(number)
    return found


@pytest.mark.parametrize("name", ["imaging", "torch"])
def test_pins_equal_the_lock(name: str) -> None:
    environment = yaml.safe_load((REPOSITORY / "envs" / f"{name}.yaml").read_text())
    pinned = []
    for entry in environment["dependencies"]:
        pinned += entry["pip"] if isinstance(entry, dict) else [entry]
    versions = dict(re.split("=+", entry) for entry in pinned if "=" in entry)
    assert versions.pop("python") == "3.11"
    assert len(versions) >= 10
    for package, number in versions.items():
        assert number in locked()[CONDA_NAMES.get(package, package)], package
