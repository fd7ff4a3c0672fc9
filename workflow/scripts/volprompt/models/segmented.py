"""What goes into the engine, and what comes out of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from volprompt.models.rounds import CorrectionReference, MadeClick
from volprompt.prompts.schemes import ObjectPrompt


@dataclass
class LoadedVolume:
    """A volume to segment.

    frames: as the model's `prepare` returns them, uint8 (slice, y, x).
    size: height and width of an original frame.
    prompts: per scheme.
    reference: what correction clicks are made from; needed by schemes with corrections alone.
    spacing: millimetres between its voxels along slice, y and x.
    """

    name: str
    frames: np.ndarray
    size: tuple[int, int]
    prompts: Mapping[str, Sequence[ObjectPrompt]]
    reference: CorrectionReference | None = None
    spacing: tuple[float, float, float] = field(default=(1.0, 1.0, 1.0), kw_only=True)


@dataclass(frozen=True)
class Confidence:
    """How sure the model is of a structure's mask on each slice; NaN where nothing was decoded.

    predicted_iou: float32 (slice,).
    object_score: logit, float32 (slice,); NaN for families that have none.
    """

    predicted_iou: np.ndarray
    object_score: np.ndarray


@dataclass
class Segmented:
    """What came of a volume.

    masks: per scheme and structure the bits of a mask, uint8 (slice, y, ceil(x / 8)), see `masks.unpack_bits`; those of
    the last round, if the scheme has corrections.
    seconds_encode: shared by all schemes.
    seconds_prompt: per scheme, decoding or tracking in all rounds.
    confidence: per scheme and structure, of the last round.
    rounds: of schemes with corrections, per structure the bits of each round's mask, uint8 (round, slice, y,
    ceil(x / 8)). Round 0 is before any correction; a structure has as many rounds as it needed.
    clicks: of schemes with corrections, all clicks in their order.
    seconds_rounds: of schemes with corrections, decoding or tracking in each round, round 0 included; not the time in
    which clicks are simulated. Where objects of several schemes or volumes move in lockstep, each slice of each object
    counts the same.
    """

    masks: dict[str, dict[str, np.ndarray]]
    seconds_encode: float
    seconds_prompt: dict[str, float]
    confidence: dict[str, dict[str, Confidence]] = field(default_factory=dict)
    rounds: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    clicks: dict[str, list[MadeClick]] = field(default_factory=dict)
    seconds_rounds: dict[str, list[float]] = field(default_factory=dict)
