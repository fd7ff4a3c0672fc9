"""The conda environments pin what requirements.lock pins."""

import ast
import re
import sys
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


SCRIPTS = REPOSITORY / "workflow" / "scripts"
CONDA_NAMES_OF_IMPORTS = {
    "PIL": "pillow",
    "SimpleITK": "simpleitk",
    "hydra": "hydra-core",
    "isal": "python-isal",
    "omegaconf": "hydra-core",  # which depends on it
    "segment_anything": "segment-anything",
    "skimage": "scikit-image",
    "surface_distance": "surface-distance",
    "torch": "pytorch",
    "yaml": "pyyaml",
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, at its top or in a function, except what only type checkers read."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def needed(script: str) -> set[str]:
    """The conda packages that a script and the library's modules behind it import."""
    waiting, seen, packages = [SCRIPTS / f"{script}.py"], set(), set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        for module in imports(path):
            if module.split(".")[0] == "volprompt":
                file = SCRIPTS / module.replace(".", "/")
                waiting += [each for each in (file.with_suffix(".py"), file / "__init__.py") if each.is_file()]
            elif module.split(".")[0] not in sys.stdlib_module_names:
                root = module.split(".")[0]
                packages.add(CONDA_NAMES_OF_IMPORTS.get(root, root))
    return packages - {"__future__"}


@pytest.mark.parametrize("rule_file", sorted((REPOSITORY / "rules").glob("*.smk")), ids=lambda path: path.stem)
def test_environments_hold_what_their_scripts_import(rule_file: Path) -> None:
    for rule in re.split(r"^rule ", rule_file.read_text(), flags=re.M)[1:]:
        environment = re.search(r"envs/(\w+)\.yaml", rule)
        script = re.search(r"scripts/(\w+)\.py", rule)
        if environment is None or script is None:
            continue
        listed = (REPOSITORY / "envs" / f"{environment[1]}.yaml").read_text()
        given = set(re.findall(r"^ +- ([A-Za-z0-9_.-]+)", listed, re.M))
        if script[1] == "fetch_checkpoint":
            given |= {"pytorch", "safetensors"}  # imported where a checkpoint is loaded, which this rule does not do
        assert needed(script[1]) <= given, f"{script[1]} under {environment[1]}"
