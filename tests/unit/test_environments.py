"""The conda environments pin what requirements.lock pins."""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from snakemake.deployment.conda import Env
from snakemake.sourcecache import infer_source_file

REPOSITORY = Path(__file__).parents[2]
CONDA_NAMES = {"pytorch": "torch", "python-isal": "isal"}


def locked() -> dict[str, set[str]]:
    """Versions by package; a package has several where they depend on the version of Python."""
    found: dict[str, set[str]] = {}
    for name, number in re.findall(r"^([A-Za-z0-9_.-]+)==(\S+)", (REPOSITORY / "requirements.lock").read_text(), re.M):
        found.setdefault(name, set()).add(number)
    return found


def packages_of(name: str) -> list[str]:
    """What an environment installs, and what its post-deploy script adds, with their versions."""
    environment = yaml.safe_load((REPOSITORY / "envs" / f"{name}.yaml").read_text())
    packages: list[str] = []
    for entry in environment["dependencies"]:
        packages += entry["pip"] if isinstance(entry, dict) else [entry]
    script = REPOSITORY / "envs" / f"{name}.post-deploy.sh"
    return packages + (re.findall(r'"(.+==.+)"', script.read_text()) if script.exists() else [])


@pytest.mark.parametrize("name", ["imaging", "torch"])
def test_pins_equal_the_lock(name: str) -> None:
    pinned = packages_of(name)
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
        given = {entry.partition("=")[0] for entry in packages_of(environment[1])}
        if script[1] == "fetch_checkpoint":
            given |= {"pytorch", "safetensors"}  # imported where a checkpoint is loaded, which this rule does not do
        assert needed(script[1]) <= given, f"{script[1]} under {environment[1]}"


def test_snakemake_finds_the_script_behind_an_environment(tmp_path: Path) -> None:
    """The script's name is what ties it to the environment; its first line names the shell."""
    workflow = SimpleNamespace(
        sourcecache=SimpleNamespace(exists=lambda file: Path(file.get_path_or_uri(secret_free=True)).exists()),
        deployment_settings=SimpleNamespace(apptainer_args=""),
        runtime_paths=None,
    )
    found = {
        name: Env(workflow, env_file=infer_source_file(REPOSITORY / "envs" / f"{name}.yaml"), envs_dir=str(tmp_path))
        for name in ("imaging", "torch")
    }
    assert found["imaging"].post_deploy_file is None
    script = Path(found["torch"].post_deploy_file.get_path_or_uri(secret_free=True))
    assert script == REPOSITORY / "envs" / "torch.post-deploy.sh"
    # As Snakemake runs it, with a python that says what it was asked for
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\necho "$SAM2_BUILD_CUDA $*"\n')
    python.chmod(0o755)
    interpreter = script.read_text().splitlines()[0].removeprefix("#!")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run([interpreter, script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "0 -m pip install --no-build-isolation --no-deps sam2==1.1.0\n"


def test_both_containers_are_made_of_what_is_there() -> None:
    docker, apptainer = ((REPOSITORY / "envs" / name).read_text() for name in ("Dockerfile", "volprompt.def"))
    copied = re.findall(r"^    (\S+) /opt/volprompt/(\S+)$", apptainer, re.M)
    assert all(source == target and (REPOSITORY / source).exists() for source, target in copied)
    assert {"workflow", "rules", "envs", "config", "console", "requirements.lock"} <= {source for source, _ in copied}
    commands = [re.findall(r"\.venv/uv/bin/\w+ .+", re.sub(r" \\\n.*", "", text)) for text in (docker, apptainer)]
    assert commands[0] == commands[1] != []
    assert re.findall(r"^From:? (\S+)", docker, re.M | re.I) == re.findall(r"^From: (\S+)", apptainer, re.M)
