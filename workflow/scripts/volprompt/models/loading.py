"""A model of any family, built and with its checkpoint loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from volprompt.checkpoints.load import load_into
from volprompt.models.devices import Device

if TYPE_CHECKING:
    from volprompt.models.base import PromptableModel


def load_model(
    model: Mapping[str, Any],
    checkpoint: str,
    device: Device,
    phase: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
) -> PromptableModel:
    """Build a model and load its checkpoint.

    model: at least family ('sam' or 'sam2') and architecture, and image_size where it is not the architecture's; phase:
    entered for 'import', 'build' and 'load', which are what starting takes. Raises CheckpointError where the checkpoint
    is damaged or belongs to another architecture, ArchitectureError where the architecture cannot be built.
    """
    with phase("import"):
        adapter = _adapter(model["family"])
        from volprompt.models.base import without_initialisation
    with phase("build"), without_initialisation():
        module = adapter.build(model["architecture"], image_size=model.get("image_size"))
    with phase("load"):
        load_into(module, checkpoint, f"{model['family']} architecture {model['architecture']}")
        return adapter(module, device)


def _adapter(family: str) -> type[PromptableModel]:
    """The adapter of a family; only now its packages are imported."""
    if family == "sam":
        from volprompt.models.sam import SamModel

        return SamModel
    from volprompt.models.sam2 import Sam2Model

    return Sam2Model
