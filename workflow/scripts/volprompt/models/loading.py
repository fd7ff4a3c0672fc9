"""A model of any family, built and with its checkpoint loaded."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volprompt.checkpoints.load import load_into
from volprompt.families import family_of
from volprompt.models.devices import Device

if TYPE_CHECKING:
    from volprompt.models.model import Model


def load_model(
    identity: Mapping[str, Any],
    checkpoint: str,
    device: Device,
    phase: Callable[[str], AbstractContextManager] = lambda name: nullcontext(),
) -> Model:
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
        what = f"{identity['family']} architecture {identity['architecture']}"
        load_into(module, checkpoint, what, adapter.weights_of)
        model = adapter(module, device)
    if device.compile:
        model.compile()
    return model


def adapter_of(family: str) -> type[Model]:
    """Import the adapter of the family of this name, and so the packages that it needs.

    Raises UnknownFamily, and ArchitectureError where its address leads to no adapter.
    """
    from volprompt.models.model import ArchitectureError, Model

    address = family_of(family).adapter
    module, _, name = address.partition(":")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)  # as `adapter_file` looks for it
    try:
        adapter = getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ArchitectureError(f"family {family}: {address} cannot be imported: {error}") from error
    if not (isinstance(adapter, type) and issubclass(adapter, Model)):
        raise ArchitectureError(f"family {family}: {address} is no PromptableModel and no VolumeModel")
    return adapter


def predictors_of(adapter: type[Model]) -> tuple[str, ...]:
    """Of which schemes an adapter can run."""
    from volprompt.models.base import PromptableModel

    if not issubclass(adapter, PromptableModel):
        return ("volume",)
    return ("image",) if adapter.tracker is PromptableModel.tracker else ("image", "video")
