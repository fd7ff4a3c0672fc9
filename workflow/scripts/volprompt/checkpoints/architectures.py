"""Architecture files: a user's description of a model, which is data and names no code of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from volprompt.errors import VolpromptError, first_line
from volprompt.settings.documents import repeated_keys

# Packages whose classes of modules a file may name, and modules of PyTorch's own.
PACKAGES = ("sam2.modeling.", "segment_anything.modeling.")
PYTORCH = frozenset(
    f"torch.nn.{name}" for name in ("BatchNorm2d", "Conv2d", "GELU", "Identity", "LayerNorm", "Linear", "ReLU", "SiLU")
)
# Far more than the largest published model has; anchors can make a small file stand for millions.
MAX_VALUES = 10_000
TARGET = "_target_"


class ArchitectureFileError(VolpromptError):
    """An architecture file that cannot be read, or asks for more than a model."""


def vet_architecture(path: str | Path) -> None:
    """Raise ArchitectureFileError unless a YAML file describes a model by the classes that may be named in one.

    Nothing is imported or built, and anchors are not expanded.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        raise ArchitectureFileError(f"{path}: cannot be read as YAML ({first_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("model"), dict):
        raise ArchitectureFileError(f"{path}: expected a section `model` with a class in `{TARGET}`")
    try:
        count = _count_values(content, {})
    except RecursionError:
        raise ArchitectureFileError(f"{path}: an anchor holds itself; write its values out") from None
    if count > MAX_VALUES:
        raise ArchitectureFileError(
            f"{path}: stands for {count} values, expected at most {MAX_VALUES}; write fewer anchors"
        )
    if repeated := repeated_keys(path):
        raise ArchitectureFileError(repeated[0])
    require_named_modules(content["model"], path)


def require_named_modules(model: Any, path: str | Path) -> None:
    """Raise ArchitectureFileError if the section `model` names anything but classes of the model packages."""
    for target in targets_of(model):
        if not (isinstance(target, str) and (target.startswith(PACKAGES) or target in PYTORCH)):
            raise ArchitectureFileError(
                f"{path}: names {target!r}; expected classes of {', '.join(name + '*' for name in PACKAGES)} or "
                f"{', '.join(sorted(PYTORCH))}. Files from elsewhere must not say what is run"
            )


def _count_values(value: Any, counted: dict[int, int]) -> int:
    """Return how many values there are once every anchor is written out; each shared one is looked at once."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in counted:
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(_count_values(part, counted) for part in parts)
    return counted[id(value)]


def targets_of(value: Any) -> Iterator[Any]:
    """Every class that a file names, at any depth."""
    if isinstance(value, dict):
        if TARGET in value:
            yield value[TARGET]
        for part in value.values():
            yield from targets_of(part)
    elif isinstance(value, list):
        for part in value:
            yield from targets_of(part)
