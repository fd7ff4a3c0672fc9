"""What a checkpoint would become in memory, looked at before it gets there: a small file can stand for any size."""

from __future__ import annotations

import math
import mmap
import pickletools
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volprompt.checkpoints.catalogue import CheckpointError, size_of

if TYPE_CHECKING:
    import torch

# What a state dict, an optimizer and a learning-rate schedule are made of. PyTorch allows more, some of which makes
# any amount of memory from a number or from a tensor of one value (bytearray, sparse and nested tensors).
NAMES = re.compile(
    r"collections\.(OrderedDict|Counter)|(__builtin__|builtins)\.(set|complex)"
    r"|torch\.nn\.parameter\.Parameter|torch\.serialization\._get_layout"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\.((cuda|storage)\.)?\w+Storage|torch\.(Size|[a-z]\w*)"  # the last are types and devices
)
PICKLES = 5  # at the start of a file in PyTorch's format of before 2020; then come the numbers
# Tensors may share their numbers, as tied weights do.
TIMES = 4
SPARE_BYTES = 1 << 20


def require_unpacked_archive(path: Path) -> None:
    """Raise CheckpointError for an archive with a part that is packed, or larger than the file; reads its directory.

    PyTorch writes and maps parts as they are. Raises as `zipfile` does for an archive that is broken.
    """
    size = size_of(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    packed = [member for member in members if member.compress_type != zipfile.ZIP_STORED or member.file_size > size]
    if packed:
        largest = max(packed, key=lambda member: member.file_size)
        raise CheckpointError(
            f"{path} ({size} bytes) is a packed archive, whose {largest.filename} becomes {largest.file_size} bytes; "
            "expected an archive as torch.save writes it. Save it again, or fetch the file itself."
        )


def require_names_of_tensors(path: Path, archive: bool) -> None:
    """Raise CheckpointError for a pickle that names more than a state dict is made of; nothing of it is built.

    archive: whether the file is an archive, whose `data.pkl` is the pickle. A pickle that is broken is left for PyTorch
    to refuse.
    """
    with suppress(ValueError, LookupError, struct.error):  # what is said of a pickle that ends early
        for name in chain.from_iterable(map(_names, _pickles(path, archive))):
            if not NAMES.fullmatch(name):
                raise CheckpointError(
                    f"{path} contains more than tensors ({name}) and is not loaded, since that can "
                    "run code or fill the memory. Save its state dict alone with torch.save, or convert it to "
                    "safetensors."
                )


def require_real_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Raise CheckpointError for tensors that stand for far more numbers than their file holds."""
    claimed = sum(math.prod(tensor.shape) * tensor.element_size() for tensor in tensors.values())
    if claimed > TIMES * size_of(path) + SPARE_BYTES:
        raise CheckpointError(
            f"{path} has {size_of(path)} bytes, and its tensors stand for {claimed} (expanded views of few numbers): "
            "save each tensor with numbers of its own (.contiguous()), or fetch the file itself."
        )


def _pickles(path: Path, archive: bool) -> Iterator[bytes | mmap.mmap]:
    """Give the pickles of a file, or what begins with the next one. An archive's parts are taken as they lie there."""
    with open(path, "rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if not archive:
            yield from repeat(content, PICKLES)
            return
        with zipfile.ZipFile(stream) as directory:
            members = [member for member in directory.infolist() if member.filename.endswith("data.pkl")]
        for member in members:  # not by zipfile, which refuses archives that were saved without CRC-32
            name_length, extra_length = struct.unpack_from("<HH", content, member.header_offset + 26)
            start = member.header_offset + 30 + name_length + extra_length
            yield content[start : start + member.file_size]


def _names(pickle: bytes | mmap.mmap) -> Iterator[str]:
    """Give the names, module and attribute, that a pickle asks for."""
    source: Any = pickle  # a file that is mapped reads as one that is open
    for operation, argument, _ in pickletools.genops(source):
        if operation.name in ("GLOBAL", "INST"):
            yield str(argument).replace(" ", ".")
        elif operation.name == "STACK_GLOBAL":
            yield "a computed name"  # which PyTorch refuses, too
