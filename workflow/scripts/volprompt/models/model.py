"""What every model has, whatever it is prompted with."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch

from volprompt.errors import VolpromptError
from volprompt.models.devices import Device
from volprompt.models.kernels import AttentionSettings
from volprompt.models.products import multiply_by_onednn

# Prompts, or objects, that go through a model together at most, unless memory is short.
LARGEST_BATCH = 32
# Height and width of images, in pixels, from which other products and kernels than the package's pay on a CPU.
SMALLEST_IMAGE = 256


class ArchitectureError(VolpromptError):
    """An architecture that cannot be built."""


class Model(ABC):
    """A model of any kind: how it is built, where it runs, and in which precision."""

    module: Any  # the package's model
    parameters: int  # their number, as the model was built
    largest_batch: int = LARGEST_BATCH

    def __init__(self, module: Any, device: Device) -> None:
        self.device = device.torch()
        self.module = module.to(self.device).eval()
        # Counted before an adapter gives the module parts of its own.
        self.parameters = sum(parameter.numel() for parameter in self.module.parameters())
        self.precision = device.precision
        self.attention_settings = AttentionSettings(self.device, self.precision, device.attention == "package")
        allow_tf32(device.precision == "bfloat16")
        if device.kind == "cpu" and device.precision == "bfloat16":
            keep_strided_in_float32(self.module)

    @staticmethod
    @abstractmethod
    def build(architecture: str, image_size: int | None = None) -> torch.nn.Module:
        """Build the package's model without its weights, for another image size if given. Raises ArchitectureError."""

    @staticmethod
    def weights_of(tensors: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
        """Take the module's tensors out of those of a checkpoint, under the module's names."""
        return tensors

    @property
    def image_size(self) -> int:
        """Height and width of the image encoder's input, in pixels; 0 where there is none."""
        return 0

    @property
    def speeds_up_cpu(self) -> bool:
        """Whether a CPU computes products and attention in other ways than the package, for the sake of speed.

        Not for small images, for which it does not pay: there results stay the package's to the last bit.
        """
        on_cpu = self.device.type == "cpu" and not self.attention_settings.as_package
        return on_cpu and self.image_size >= SMALLEST_IMAGE

    def speed_up(self, *modules: torch.nn.Module) -> None:
        """Have oneDNN compute large products of these modules where that is faster, see `multiply_by_onednn`."""
        if self.speeds_up_cpu and self.precision == "float32":
            for module in modules:
                multiply_by_onednn(module)

    @property
    def kernels(self) -> dict[str, str]:
        """How each kind of attention is computed, and why; empty where that is the package's affair."""
        return {}

    @property
    def parts(self) -> Sequence[torch.nn.Module]:
        """What `compile` compiles: where the time goes, with few shapes."""
        return ()

    def compile(self, backend: str = "inductor") -> None:
        """Have torch compile the parts, each as one graph, when their shapes first occur."""
        for part in self.parts:
            part.compile(fullgraph=True, backend=backend)

    @contextmanager
    def inference(self) -> Iterator[None]:
        """Without gradients, and in bfloat16 where that precision was chosen.

        Not in torch's inference mode, in which autocast casts every weight again at every use.
        """
        half = self.precision == "bfloat16"
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            yield

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        """What of the work on frames, uint8 (slice, y, x), a background thread can do: uint8 (slice, y, x) again."""
        return frames


def allow_tf32(allowed: bool) -> None:
    """Whether float32 products of this process may be computed in TF32 on a GPU."""
    torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.backends.cudnn.allow_tf32 = allowed


def keep_strided_in_float32(module: torch.nn.Module) -> None:
    """Compute convolutions with a stride in float32 under autocast: they cost little, and some are wrong in bfloat16.

    Seen with oneDNN 3.12 on processors with AMX (torch 2.13): 16 to 256 channels, kernel and stride 4, for example,
    give values that have nothing to do with the input.
    """
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d) and max(part.stride) > 1:
            part.forward = partial(_in_float32, part.forward)  # type: ignore[method-assign]


def _in_float32(forward: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor) -> torch.Tensor:
    with torch.autocast(image.device.type, enabled=False):
        return forward(image.float())
