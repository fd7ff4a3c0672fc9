"""Settings of models of transformers (`config.json`): data that a user hands over, which names no code of its own."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from volprompt.checkpoints.architectures import ArchitectureFileError
from volprompt.errors import first_line

# Kinds of models, and of their parts, that a file may describe: classes of the package, of this project's families.
KINDS = frozenset(
    {
        *("sam3_video", "sam3_tracker_video", "sam3_tracker_video_prompt_encoder", "sam3_tracker_video_mask_decoder"),
        *("sam3_vision_model", "sam3_vit_model"),
        *("edgetam_video", "edgetam_video_prompt_encoder", "edgetam_video_mask_decoder", "edgetam_vision_model"),
        *("sam2_vision_model", "sam2_hiera_det_model", "timm_wrapper"),
    }
)
# Settings that make the package fetch something, or run what a file names.
REFUSED = frozenset({"auto_map", "quantization_config", "custom_pipelines", "attn_implementation", "pretrained"})
# timm takes addresses as names, and paths of files to be unpickled among the arguments.
ENCODER_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)?")
ENCODER_ARGUMENTS = frozenset({"in_chans", "features_only", "out_indices"})


def read_model_settings(path: str | Path) -> dict[str, Any]:
    """Read the settings of a model, those of the tracker alone from those of all of SAM 3.

    Raises ArchitectureFileError for a file that cannot be read, or asks for more than a model. Nothing is built.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ArchitectureFileError(f"{path}: cannot be read as JSON ({first_line(error)})") from None
    if not isinstance(content, dict) or not isinstance(content.get("model_type"), str):
        raise ArchitectureFileError(f"{path}: expected the settings of a model, with its kind in `model_type`")
    if content["model_type"] == "sam3_video":
        content = content.get("tracker_config")
        if not isinstance(content, dict):
            raise ArchitectureFileError(f"{path}: expected the settings of SAM 3's tracker in `tracker_config`")
    for part in _parts_of(content):
        _require_plain(part, path)
    return _without_private(content)


def _parts_of(value: Any) -> Iterator[Mapping[str, Any]]:
    """A mapping and every one that it holds."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from _parts_of(each)
    elif isinstance(value, list):
        for each in value:
            yield from _parts_of(each)


def _require_plain(part: Mapping[str, Any], path: str | Path) -> None:
    """Raise ArchitectureFileError if a part of the settings is of a kind that is not known here, or names code."""
    kind = part.get("model_type")
    if kind is not None and kind not in KINDS:
        raise ArchitectureFileError(f"{path}: describes a {kind!r}; expected one of {', '.join(sorted(KINDS))}")
    if refused := sorted(name for name in part if name.lstrip("_") in REFUSED and part[name]):
        raise ArchitectureFileError(f"{path}: `{refused[0]}` would fetch or run something; take it out")
    if kind != "timm_wrapper":
        return
    name, arguments = part.get("architecture"), part.get("model_args") or {}
    if not (isinstance(name, str) and ENCODER_NAME.fullmatch(name)):
        raise ArchitectureFileError(f"{path}: {name!r} is no name of an image encoder of timm")
    if unknown := sorted(set(arguments) - ENCODER_ARGUMENTS):
        known = ", ".join(sorted(ENCODER_ARGUMENTS))
        raise ArchitectureFileError(f"{path}: `model_args` may hold {known}; found {', '.join(unknown)}")


def _without_private(value: Any) -> Any:
    """Without what the package notes for itself."""
    if isinstance(value, dict):
        return {name: _without_private(each) for name, each in value.items() if not name.startswith("_")}
    return [_without_private(each) for each in value] if isinstance(value, list) else value
