"""What every family of models can do, and what they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from volprompt.devices import Device
from volprompt.errors import VolpromptError
from volprompt.schemes import ObjectPrompt


class ArchitectureError(VolpromptError):
    """An architecture that cannot be built."""


class VolumeFeatures:
    """The encoded slices of one volume, made once and used by every scheme.

    levels: per feature level a tensor (n, channels, height, width) on the model's device, in the order of `slices`.
    """

    def __init__(self, levels: Sequence[torch.Tensor], slices: Sequence[int]) -> None:
        self.levels = list(levels)
        self.row = {index: row for row, index in enumerate(slices)}

    def of(self, slices: Sequence[int]) -> list[torch.Tensor]:
        """Per level the features of the given slices, (len(slices), channels, height, width)."""
        rows = [self.row[index] for index in slices]
        return [level[rows] for level in self.levels]


class PromptableModel(ABC):
    """A model that turns frames and prompts into masks; the pixel grid of masks is that of the frames."""

    module: Any  # the package's model

    def __init__(self, device: Device) -> None:
        self.device = device.torch()
        self.precision = device.precision
        torch.backends.cuda.matmul.allow_tf32 = device.precision == "bfloat16"
        torch.backends.cudnn.allow_tf32 = device.precision == "bfloat16"

    @property
    def parameters(self) -> int:
        """Number of parameters of the built model."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def arithmetic(self) -> AbstractContextManager:
        """Autocast to bfloat16 where that precision was chosen."""
        if self.precision == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return nullcontext()

    @torch.inference_mode()
    def encode(
        self, frames: np.ndarray, slices: Sequence[int], batch_size: int, seen: Callable[[int], None] = lambda n: None
    ) -> VolumeFeatures:
        """Encode the chosen slices of a volume, in batches.

        frames: uint8 (slice, y, x); seen: called after each batch with the number of slices encoded so far.
        """
        levels: list[torch.Tensor] = []
        for start in range(0, len(slices), batch_size):
            batch = list(slices[start : start + batch_size])
            with self.arithmetic():
                encoded = self.encode_batch(frames[batch])
            if not levels:
                levels = [part.new_empty((len(slices), *part.shape[1:])) for part in encoded]
            for level, part in zip(levels, encoded, strict=True):
                level[start : start + len(batch)] = part
            seen(start + len(batch))
        return VolumeFeatures(levels, slices)

    @abstractmethod
    def encode_batch(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Encode frames, uint8 (n, y, x), into feature levels (n, channels, height, width)."""

    @abstractmethod
    def decode(
        self, features: VolumeFeatures, prompts: Sequence[ObjectPrompt], size: tuple[int, int], multimask: bool
    ) -> Iterator[tuple[ObjectPrompt, np.ndarray]]:
        """Decode prompts slice by slice, without memory: yields each with its mask, bool (y, x).

        size: height and width of a frame; multimask: best of three masks by predicted IoU instead of the single mask.
        """

    def track(
        self,
        features: VolumeFeatures,
        prompts: Sequence[ObjectPrompt],
        size: tuple[int, int],
        reset_between_directions: bool,
    ) -> list[np.ndarray]:
        """Carry each object's prompt through the volume: one mask per prompt, bool (slice, y, x)."""
        raise ArchitectureError("this family of models has no memory; use an image scheme")


def alike(prompts: Iterable[ObjectPrompt]) -> Iterator[list[ObjectPrompt]]:
    """Groups of prompts that can be one batch: as many points, and all or none with a box.

    Prompts are not padded to a common length, since a padding point changes what a model returns.
    """

    def form(prompt: ObjectPrompt) -> tuple[int, bool]:
        return len(prompt.points), prompt.box is not None

    for _, group in groupby(sorted(prompts, key=form), key=form):
        yield list(group)


def build_from_yaml(path: Path, overrides: dict[str, object]) -> torch.nn.Module:
    """Build the module that the section `model` of a YAML file describes by `_target_` classes and their arguments.

    overrides: dotted keys of that section and their values. Raises ArchitectureError.
    """
    try:
        config = OmegaConf.load(path)
        for key, value in overrides.items():
            OmegaConf.update(config, f"model.{key}", value, force_add=True)
        OmegaConf.resolve(config)
        module = instantiate(config.model, _recursive_=True)
    except Exception as error:  # a user's file can fail in any of the classes it names
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ArchitectureError(f"{path}: no model can be built from this file: {first}") from error
    return module.eval()
