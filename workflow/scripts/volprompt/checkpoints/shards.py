"""Weights in several files: a model folder, and safetensors in shards with an index."""

from __future__ import annotations

import json
from pathlib import Path

from volprompt.checkpoints.catalogue import CheckpointError, require_file

INDEX = ".safetensors.index.json"
# The file of a model folder's weights, the first of these that is there.
IN_FOLDER = ("model.safetensors", f"model{INDEX}")


def file_of(path: str) -> str:
    """The file of a checkpoint: itself, or that of the weights in a model folder."""
    if not Path(path).is_dir():
        return path
    there = [name for name in IN_FOLDER if Path(path, name).is_file()]
    return str(Path(path, there[0] if there else IN_FOLDER[0]))


def weight_files(path: str | Path) -> list[Path]:
    """All files of a checkpoint: itself, or an index with its shards, which lie beside it, in the order of their names.

    Raises CheckpointError where one is missing, or the index is none.
    """
    path = require_file(path)
    if not path.name.endswith(INDEX):
        return [path]
    try:
        names = {str(name) for name in json.loads(path.read_text(encoding="utf-8"))["weight_map"].values()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        names = set()
    if not names or any(Path(name).name != name or not name.endswith(".safetensors") for name in names):
        raise CheckpointError(f"{path} is no index of safetensors: expected names of files beside it in `weight_map`.")
    return [path, *(require_file(path.parent / name) for name in sorted(names))]
