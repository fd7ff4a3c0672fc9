"""What every family of models can do, and what they share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from hydra.utils import get_object, instantiate
from omegaconf import OmegaConf
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from volprompt.checkpoints.architectures import PACKAGES, require_named_modules, targets_of, vet_architecture
from volprompt.errors import VolpromptError, first_line
from volprompt.models.features import SliceFeatures
from volprompt.models.model import ArchitectureError, Model
from volprompt.models.tracked import TrackedObject
from volprompt.prompts.corrections import Click
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import MaskChoice


@dataclass
class Decoded:
    """What a model makes of prompts without memory.

    masks: bool (n, y, x), on the grid of the frames.
    logits: mask logits of the decoder's size, float32 (n, 1, height, width), as `decode` takes them for another round.
    confidence: float32 (2, n), predicted IoU and object score logit; NaN where a model has none.
    """

    masks: torch.Tensor
    logits: torch.Tensor
    confidence: torch.Tensor


class Tracker(Protocol):
    """Carries objects through their volumes with a model's memory, in one round or in several."""

    def track(
        self, objects: Sequence[TrackedObject], reset_between_directions: bool
    ) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """Fill the objects' masks on every slice of their volumes: first forwards, then in reverse.

        Yields, before each step, the features and slices that the step will use, once for each use; the caller sees to
        it that these slices are encoded. With `reset_between_directions` the reverse pass sees nothing of the forward
        pass but the prompted slices. Slices are used in the order of `order_of_need`.
        """
        ...

    def correct(self, clicks: Mapping[TrackedObject, Click]) -> Iterator[list[tuple[SliceFeatures, int]]]:
        """Add a click to the prompts of each of these objects, and fill their masks once more.

        They are some of the objects that were tracked before, with `TrackedObject.clicks` above 0; the others keep
        their masks. Yields like `track`; slices are used in the order of `order_of_round`.
        """
        ...


class PromptableModel(Model):
    """A model that turns frames and prompts into masks; the pixel grid of masks is that of the frames."""

    head_start: int = 0  # steps of a forward pass before its reverse pass can set out, see `wait_for_forwards`

    @property
    @abstractmethod
    def image_size(self) -> int:
        """Height and width of the image encoder's input, in pixels."""

    @abstractmethod
    def encode(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Encode prepared frames, uint8 (n, y, x), into feature levels (n, channels, height, width)."""

    @abstractmethod
    def decode(
        self,
        levels: Sequence[torch.Tensor],
        prompts: Sequence[ObjectPrompt],
        size: tuple[int, int],
        multimask: MaskChoice,
        logits: torch.Tensor | None = None,
    ) -> Decoded:
        """Decode prompts of one form (see `batches_of_one_form`) without memory.

        levels: features of each prompt's slice, (n, channels, height, width).
        prompts: n of them.
        size: height and width of a frame.
        multimask: `first` or `best` (by predicted IoU) of three masks instead of the single mask.
        logits: those of an earlier decoding of the same slices and objects, which become a prompt.
        """

    def encode_for_video(self, frames: np.ndarray) -> list[torch.Tensor]:
        """Like `encode`, with frames resized as the package's video loader does, where that is another way."""
        return self.encode(frames)

    def tracker(self, hole_area: int = 0) -> Tracker:
        """A tracker for some volumes; hole_area: see `fill_holes`. Raises ArchitectureError without memory."""
        raise ArchitectureError("this family of models has no memory; use an image scheme")


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array as a tensor on a device; to a GPU it travels while the computation goes on."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def pack_bits(masks: torch.Tensor) -> torch.Tensor:
    """Masks, bool (..., y, x), with eight columns to a byte: uint8 (..., y, ceil(x / 8)), as numpy.packbits does."""
    if masks.device.type == "cpu":
        return torch.from_numpy(np.packbits(masks.numpy(), axis=-1))
    return _pack_on_device(masks)


def _pack_on_device(masks: torch.Tensor) -> torch.Tensor:
    padded = functional.pad(masks, (0, -masks.shape[-1] % 8)).unflatten(-1, (-1, 8))
    weights = 2 ** torch.arange(7, -1, -1, dtype=torch.uint8, device=masks.device)
    return (padded * weights).sum(dim=-1, dtype=torch.uint8)


Prompted = TypeVar("Prompted")


def batches_of_one_form(
    items: Iterable[Prompted], prompt_of: Callable[[Prompted], ObjectPrompt], largest: int
) -> Iterator[Sequence[Prompted]]:
    """Batches of items whose prompts have one form: as many points, and all or none with a box or a mask.

    Prompts are not padded to a common length, since a padding point changes what a model returns.
    """

    def form(item: Prompted) -> tuple[int, bool, bool]:
        prompt = prompt_of(item)
        return prompt.form

    for _, group in groupby(sorted(items, key=form), key=form):
        yield from in_batches(list(group), largest)


Item = TypeVar("Item")


def in_batches(items: Sequence[Item], largest: int) -> Iterator[Sequence[Item]]:
    """Items in batches of at most `largest`, whose memory does not grow with the number of objects."""
    return (items[start : start + largest] for start in range(0, len(items), largest))


class without_initialisation(TorchFunctionMode):
    """Context in which tensors keep what memory held instead of random draws, for weights that are loaded next."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        filling = getattr(func, "__module__", None) == "torch.nn.init" and func.__name__.endswith("_")
        if filling or func in (torch.Tensor.uniform_, torch.Tensor.normal_):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def build_from_yaml(path: Path, overrides: dict[str, object]) -> torch.nn.Module:
    """Build the module that the section `model` of a YAML file describes by `_target_` classes and their arguments.

    overrides: dotted keys of that section and their values. Only classes that `vet_architecture` lets pass are built.
    Raises ArchitectureError and ArchitectureFileError.
    """
    vet_architecture(path)
    try:
        config = OmegaConf.load(path)
        for key, value in overrides.items():
            OmegaConf.update(config, f"model.{key}", value, force_add=True)
        OmegaConf.resolve(config)
        model: Any = OmegaConf.to_container(config.model)
        require_named_modules(model, path)  # again, now that references within the file are followed
        for target in targets_of(model):
            _require_module_class(target, path)
        module = instantiate(config.model, _recursive_=True)
    except VolpromptError:
        raise
    except (Exception, SystemExit) as error:  # a user's file can fail in any of the classes it names
        raise ArchitectureError(f"{path}: no model can be built from this file: {first_line(error)}") from error
    if not isinstance(module, torch.nn.Module):
        raise ArchitectureError(f"{path}: builds {type(module).__name__}, expected a model")
    return module.eval()


def _require_module_class(target: str, path: Path) -> None:
    """Raise ArchitectureError unless a name stands for a class of modules, and not for what its module imports."""
    found: Any = get_object(target)
    home = getattr(found, "__module__", "")
    own = target.startswith("torch.nn.") or f"{home}.".startswith(PACKAGES)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module) and own):
        raise ArchitectureError(f"{path}: {target} is no module of a model package")
