"""A model of any family, built and with its checkpoint loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from typing import TYPE_CHECKING, Any

from volprompt.checkpoints.load import load_into
from volprompt.families import family_of
from volprompt.models.devices import Device

if TYPE_CHECKING:
    from volprompt.models.base import PromptableModel


def load_model(
    identity: Mapping[str, Any],
    checkpoint: str,
    device: Device,
    phase: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
) -> PromptableModel:
    """Build a model and load its checkpoint.

    identity: at least family and architecture, and image_size where it is not the architecture's; phase: entered for
    'import', 'build' and 'load', which are what starting takes. Raises CheckpointError where the checkpoint is damaged
    or belongs to another architecture, ArchitectureError where the architecture cannot be built, UnknownFamily.
    """
    with phase("import"):
        adapter = adapter_of(identity["family"])
        from volprompt.models.base import without_initialisation
    with phase("build"), without_initialisation():
        module = adapter.build(identity["architecture"], image_size=identity.get("image_size"))
    with phase("load"):
        load_into(module, checkpoint, f"{identity['family']} architecture {identity['architecture']}")
        model = adapter(module, device)
    if device.compile:
        model.compile()
    return model


def adapter_of(family: str) -> type[PromptableModel]:
    """Import the adapter of the family of this name, and so the packages that it needs. Raises UnknownFamily."""
    module, _, name = family_of(family).adapter.partition(":")
    adapter: type[PromptableModel] = getattr(import_module(module), name)
    return adapter
