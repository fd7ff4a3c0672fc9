"""Safe loading of weights: nothing in a file is executed, and a wrong checkpoint is named."""

from __future__ import annotations

import pickle
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volprompt.checkpoints.catalogue import CheckpointError, disguise_of, size_of
from volprompt.checkpoints.shards import weight_files
from volprompt.checkpoints.unpacked import require_names_of_tensors, require_real_tensors, require_unpacked_archive
from volprompt.families import FAMILIES, CheckpointKind, Family

if TYPE_CHECKING:
    import torch

# What PyTorch and zipfile say of a file that ends early, and of one that asks for more than there is.
UNREADABLE = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, MemoryError, OverflowError),
    *(struct.error, zipfile.BadZipFile, NotImplementedError),
)

Shapes = dict[str, tuple[int, ...]]
Tensors = Mapping[str, "torch.Tensor"]


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's weights onto the CPU: tensor name -> tensor. Nothing in the file is executed.

    Reads .safetensors, an index of several of them, and both PyTorch formats; takes the weights out of "model" or
    "state_dict" and drops a "module." that all names begin with. Raises CheckpointError for a file that is missing,
    incomplete, no checkpoint, or holds more than tensors.
    """
    path, *shards = weight_files(path)
    if shards:
        return {name: tensor for shard in shards for name, tensor in load_state_dict(shard).items()}
    if disguise := disguise_of(path):
        raise CheckpointError(f"{path} is {disguise}, not a checkpoint: delete it and fetch the file itself.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pytorch(path)
    for wrapper in ("model", "state_dict"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    return _named_tensors(path, content)


def _read_safetensors(path: Path) -> Any:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise _incomplete(path, "safetensors") from error


def _read_pytorch(path: Path) -> Any:
    import torch

    archive = zipfile.is_zipfile(path)
    with open(path, "rb") as stream:
        pickled = stream.read(1) == b"\x80"
    if not archive and not pickled:
        raise _incomplete(path, "PyTorch")
    try:
        if archive:
            require_unpacked_archive(path)
        require_names_of_tensors(path, archive)
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} contains more than tensors{f' ({found[1]})' if found else ''} and is not loaded, since "
            "that can run code. Save its state dict alone with torch.save, or convert it to safetensors."
        ) from error
    except UNREADABLE as error:
        raise _incomplete(path, "PyTorch") from error


def _incomplete(path: Path, kind: str) -> CheckpointError:
    what = f"is not a complete {kind} file ({size_of(path)} bytes)"
    return CheckpointError(f"{path} {what}: delete it and fetch it again.")


def _named_tensors(path: Path, content: Any) -> dict[str, torch.Tensor]:
    import torch

    wanted = 'save a state dict (tensor names with tensors), as it is or under "model" or "state_dict".'
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} holds a {type(content).__name__} without tensors: {wanted}")
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{path} holds a {type(value).__name__} under {name!r}: {wanted}")
    prefix = "module." if all(name.startswith("module.") for name in content) else ""
    require_real_tensors(path, content)
    return {name.removeprefix(prefix): value for name, value in content.items()}


def load_into(
    module: torch.nn.Module,
    path: str | Path,
    what: str,
    weights_of: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> None:
    """Load a checkpoint's weights into `module`, all or nothing.

    `what` says in the error what the module is: "sam2 architecture configs/sam2/sam2_hiera_t.yaml"; weights_of: takes
    the module's tensors out of those of the file. Raises CheckpointError, with the module unchanged, where a name or a
    shape differs.
    """
    tensors = weights_of(load_state_dict(path))
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if found != wanted:
        lines = [f"{path} does not fit {what}:", *_differences(found, wanted), _hint(found, wanted)]
        raise CheckpointError("\n".join(lines))
    module.load_state_dict(dict(tensors), strict=True)


def _differences(found: Shapes, wanted: Shapes) -> list[str]:
    """One line per kind of difference, with its count and first case."""
    other = [name for name in found if name in wanted and found[name] != wanted[name]]
    kinds = {
        "missing": [f"{name} {wanted[name]}" for name in wanted if name not in found],
        "unexpected": [f"{name} {found[name]}" for name in found if name not in wanted],
        "of other shape": [f"{name} {found[name]} instead of {wanted[name]}" for name in other],
    }
    return [f"  {len(cases)} {kind}, first {cases[0]}" for kind, cases in kinds.items() if cases]


def _hint(found: Shapes, wanted: Shapes) -> str:
    """What the checkpoint's tensors say it is, and so which configuration it needs."""
    held = _recognise(found)
    if held is None:
        *others, last = [family.title for family in FAMILIES.values()]
        names = f"neither {', '.join(others)} nor {last}"
        return f"Its tensor names are those of {names}: check that it is the right file."
    family, kind, architecture = held
    if held == _recognise(wanted):
        return f"Both are {kind.title} of one size: the architecture needs the settings that it was trained with."
    if not kind.supported:
        return f"It is {kind.title}, which is not supported."
    return (
        f"It is a {kind.title} checkpoint: it needs family {family.name}, architecture "
        f"{architecture or kind.other_size}."
    )


def _recognise(shapes: Shapes) -> tuple[Family, CheckpointKind, str | None] | None:
    """Which kind of checkpoint has these tensors, and its architecture if the image encoder has a published size."""
    for family in reversed(FAMILIES.values()):
        for kind in family.checkpoint_kinds:
            if any(name.startswith(kind.signs) for name in shapes):
                return family, kind, kind.published.get(_encoder_size(shapes, kind.encoder))
    return None


def _encoder_size(shapes: Shapes, encoder: str) -> tuple[int, int]:
    """Width and number of blocks of the image encoder whose tensor names begin with `encoder`."""
    width = shapes.get(f"{encoder}.patch_embed.proj.weight", (0,))[0]
    prefix = f"{encoder}.blocks."
    blocks = {name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}
    return width, len(blocks)
