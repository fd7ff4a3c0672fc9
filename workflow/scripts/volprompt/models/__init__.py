"""One adapter per family of models, behind one small interface (`PromptableModel`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from volprompt.devices import Device

if TYPE_CHECKING:
    from volprompt.models.base import PromptableModel


def load_model(model: Mapping[str, str], checkpoint: str, device: Device) -> PromptableModel:
    """Build a model and load its checkpoint.

    model: at least family ('sam' or 'sam2') and architecture. Raises CheckpointError where the checkpoint is damaged or
    belongs to another architecture, ArchitectureError where the architecture cannot be built.
    """
    if model["family"] == "sam":
        from volprompt.models.sam import SamModel

        return SamModel(model["architecture"], checkpoint, device)
    from volprompt.models.sam2 import Sam2Model

    return Sam2Model(model["architecture"], checkpoint, device)
