"""The library's rooms: arrows between them point one way, and each module has one subject."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import volprompt

LIBRARY = Path(volprompt.__file__).parent
# A room imports only rooms that stand before it.
ROOMS = (
    *(
        "cells",
        "words",
        "errors",
        "logs",
        "files",
        "locks",
        "families",
        "columns",
        "numbers",
        "palette",
        "identity",
        "remembered",
    ),
    *("settings", "volumes", "checkpoints", "study", "prompts", "clicks"),
    *("models", "segmentation", "scores", "tables", "report", "phantom", "command", "__main__"),
)
MODULES = sorted(LIBRARY.rglob("*.py"))
LONGEST = 350


def room_of(module: Path) -> str:
    """The room of a module: the first folder below the library, or the module itself on the ground floor."""
    return module.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imported_rooms(module: Path) -> set[str]:
    """The rooms that a module imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "volprompt":
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("volprompt."):
            names.add(str(node.module).split(".")[1])
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("volprompt.")}
    return names & {room_of(module) for module in MODULES}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(LIBRARY)))
def test_a_module_imports_only_rooms_before_its_own(module: Path) -> None:
    room = room_of(module)
    if room == "__init__":
        assert not imported_rooms(module)
        return
    assert room in ROOMS, f"{room} has no place in the order of rooms"
    late = {other for other in imported_rooms(module) if ROOMS.index(other) > ROOMS.index(room)}
    assert not late, f"{module.relative_to(LIBRARY)} imports {', '.join(sorted(late))}, which come after {room}"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(LIBRARY)))
def test_no_module_is_long(module: Path) -> None:
    lines = len(module.read_text(encoding="utf-8").splitlines())
    assert lines <= LONGEST, f"{module.relative_to(LIBRARY)} has {lines} lines: two subjects in one?"


def test_the_library_knows_nothing_of_snakemake() -> None:
    for module in MODULES:
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.split(".")[0] == "snakemake" for name in names), module
