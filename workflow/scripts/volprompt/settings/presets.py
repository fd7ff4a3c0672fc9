"""Presets: one word for a set of settings, each of which an explicit key overrides.

`paper` is how the authors' code made the numbers of the paper; `best` is what we would choose for a study of one's own.
Every difference is explained in docs/methods.md.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, NamedTuple

from volprompt.settings.config import Settings


class PresetSetting(NamedTuple):
    """A setting that a preset makes, and what is used."""

    key: str
    preset: Any
    used: Any

    @property
    def overridden(self) -> bool:
        """Whether the configuration says otherwise."""
        return bool(self.preset != self.used)


def preset_settings(settings: Settings) -> list[PresetSetting]:
    """Every setting of the configuration's preset with the value in use, section by section; none without a preset.

    Values are plain (`model_dump(mode="json")`); keys are written as in messages: `schemes.point_video.slice`.
    """
    if settings.preset is None:
        return []
    preset = PRESETS[settings.preset]
    used = settings.model_dump(mode="json", exclude_none=True)
    parts = [(section, preset[section], used[section]) for section in ("frames", "inference")]
    for name, scheme in used["schemes"].items():
        parts.append((f"schemes.{name}", scheme_defaults(preset, scheme), scheme))
    return [
        PresetSetting(f"{place}.{key}", list(value) if isinstance(value, tuple) else value, found.get(key))
        for place, wanted, found in parts
        for key, value in wanted.items()
    ]


# Defaults of the sections `frames` and `inference`, and of schemes by their predictor. `point` is the default of a
# scheme that has neither point nor box nor mask; `multimask` of one whose only prompt is a point; `slice` and
# `presence` of one that does not prompt every slice.
PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "frames": {"intensity_percentiles": (0.5, 99.5), "coding": "jpeg75"},
        "inference": {
            "precision": "bfloat16",
            "reset_between_directions": False,
            "fill_holes": 8,
            "video_resize": "bicubic",
        },
        "image": {"point": "centroid", "multimask": False},
        "video": {"point": "click", "slice": "middle", "presence": False},
    },
    "best": {
        "frames": {"intensity_percentiles": (0.5, 99.5), "coding": "lossless"},
        "inference": {
            "precision": "auto",
            "reset_between_directions": True,
            "fill_holes": 0,
            "video_resize": "shared",
        },
        "image": {"point": "interior", "multimask": "best"},
        "video": {"point": "interior", "slice": "largest", "presence": False},
    },
}


def with_preset(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration, as it was read, with the settings of its preset wherever it says nothing itself.

    What is not of the expected form is left as it is, for the validation to tell.
    """
    filled = copy.deepcopy(dict(config))
    name = filled.get("preset")
    preset = PRESETS.get(name) if isinstance(name, str) else None
    if preset is None:
        return filled
    for section in ("frames", "inference"):
        own = filled.setdefault(section, {})
        if isinstance(own, dict):
            filled[section] = {**preset[section], **own}
    schemes = filled.get("schemes")
    if isinstance(schemes, dict):
        for name, scheme in schemes.items():
            if isinstance(scheme, dict) and scheme.get("predictor") in ("image", "video", "volume"):
                schemes[name] = {**scheme_defaults(preset, scheme), **scheme}
    return filled


def scheme_defaults(preset: Mapping[str, Any], scheme: Mapping[str, Any]) -> dict[str, Any]:
    """Those of a preset's settings that concern a scheme, by the keys that it has."""
    # The paper has no model of whole volumes; such a scheme is prompted where a video scheme is.
    defaults = dict(preset["image" if scheme["predictor"] == "image" else "video"])
    if scheme.get("propagate"):
        defaults |= {key: preset["video"][key] for key in ("slice", "presence")}
    with_shape = bool(scheme.get("box") or scheme.get("mask"))
    if with_shape and not scheme.get("point"):
        del defaults["point"]
    if with_shape or scheme.get("propagate") or scheme.get("negatives", "none") != "none":
        defaults.pop("multimask", None)
    return defaults
