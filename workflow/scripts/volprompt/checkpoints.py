"""Checkpoints: the catalogue, verified downloads that resume, digests, and safe loading of weights."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import re
import shutil
import struct
import time
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import requests
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from volprompt.errors import VolpromptError
from volprompt.files import sha256_of, write_text
from volprompt.logs import duration, log_progress

if TYPE_CHECKING:
    import torch

logger = logging.getLogger("volprompt.checkpoints")

CHUNK_BYTES = 1 << 20
PROGRESS_SECONDS = 5.0
PAUSE_SECONDS = 2.0
Shapes = dict[str, tuple[int, ...]]


class CheckpointError(VolpromptError):
    """A checkpoint that cannot be used: the message names the file, what is wrong and what to do."""


class CatalogueEntry(BaseModel):
    """What is known of one checkpoint file; without `url` it comes with this repository. `bytes` is its size."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(default=None, pattern=r"^https?://")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, gt=0)
    licence: str
    family: Literal["sam", "sam2"]
    architecture: str


def read_catalogue(path: str | Path) -> dict[str, CatalogueEntry]:
    """Read the catalogue: file name -> entry. Raises CheckpointError with every fault and its place."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        return TypeAdapter(dict[str, CatalogueEntry]).validate_python(content)
    except ValidationError as error:
        faults = [f"\n  {': '.join(map(str, [*fault['loc'], fault['msg']]))}" for fault in error.errors()]
        raise CheckpointError(f"{path} is not a catalogue of checkpoints:{''.join(faults)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"the catalogue of checkpoints {path} cannot be read: {error}") from error


def content_digest(path: str | Path, memory: Path) -> str:
    """Digest (64 hexadecimal digits) of a local checkpoint's content, quick enough to ask for at every start.

    It tells whether the content changed; of a PyTorch archive it is not the file's SHA-256, since only the
    archive's directory is read: a touch or a new name changes nothing. The SHA-256 of any other format is
    remembered in the JSON file `memory` by path, size and time. Raises CheckpointError if there is no file.
    """
    path = _existing(path)
    return _archive_digest(path) or _remembered_sha256(path, Path(memory))


def _existing(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist: fetch it or correct the path.")
    return Path(path)


def _archive_digest(path: Path) -> str | None:
    """Digest of a PyTorch archive's directory; None for other files, and for archives without CRC-32."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error):
        return None
    rows = sorted((member.filename.partition("/")[2], member.CRC, member.file_size) for member in members)
    # torch can be told to save without CRC-32; it then writes zeros, which say nothing about the content.
    if not any(name == "data.pkl" and crc for name, crc, _ in rows):
        return None
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _remembered_sha256(path: Path, memory: Path) -> str:
    """SHA-256 of a file, hashed only if size or time differ from those in `memory`, then remembered there."""
    try:
        known = json.loads(memory.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known = known if isinstance(known, dict) else {}
    name, status = str(path.resolve()), path.stat()
    stamp = {"size": status.st_size, "mtime_ns": status.st_mtime_ns}
    row = known.get(name)
    digest = str(row.get("sha256")) if isinstance(row, dict) else ""
    if row == stamp | {"sha256": digest} and re.fullmatch("[0-9a-f]{64}", digest):
        return digest
    digest = sha256_of(path)
    try:
        write_text(memory, json.dumps({**known, name: stamp | {"sha256": digest}}, indent=1, sort_keys=True))
    except OSError as error:
        logger.warning("the digest of %s cannot be remembered: %s", path, error)
    return digest


def fetch(entry: CatalogueEntry, file: str | Path, timeout: float = 60.0, attempts: int = 3) -> None:
    """Make `file` the catalogue's checkpoint: verify it if it is there, otherwise download it.

    The download grows in `<file>.part`, goes on where an earlier one broke off, and is renamed only with the
    right SHA-256. `timeout` is in seconds, for the connection and each wait for data; `attempts` counts the
    tries in a row that bring nothing new. Raises CheckpointError that says what is wrong and what to do.
    """
    file = Path(file)
    part = file.with_name(f"{file.name}.part")
    try:
        if file.exists():
            _verify(entry, file, "It was left as it is. Move it away to have it downloaded")
            return
        if entry.url is None:
            raise CheckpointError(f"{file} is missing; it comes with this repository: git checkout -- {file}")
        file.parent.mkdir(parents=True, exist_ok=True)
        _download(entry, file, part, timeout, attempts)
        try:
            _verify(entry, part, f"It was deleted. Run again, place the file by hand at {file}")
        except CheckpointError:
            part.unlink()
            raise
        os.replace(part, file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be made: {error}. What was downloaded is kept.") from error


def _verify(entry: CatalogueEntry, path: Path, advice: str) -> None:
    found = sha256_of(path)
    if found != entry.sha256:
        what = _disguise(path) or "another file"
        raise CheckpointError(
            f"{path} ({_size(path)} bytes) is {what}, not what {entry.url or 'the catalogue'} says: "
            f"SHA-256 {found}, expected {entry.sha256}.\n{advice}, or correct the catalogue."
        )


def _download(entry: CatalogueEntry, file: Path, part: Path, timeout: float, attempts: int) -> None:
    """Fill `part`, asking again after broken connections, until `attempts` in a row brought nothing."""
    failures, furthest = 0, _size(part)
    while True:
        try:
            _request_rest(entry, file, part, timeout)
            return
        except requests.RequestException as error:
            held = _size(part)
            failures = 0 if held > furthest else failures + 1
            furthest = max(furthest, held)
            if failures >= attempts:
                reason = f"{attempts} tries in a row brought nothing ({error}); {held} bytes are kept"
                raise _unavailable(entry, file, reason) from error
            logger.warning("%s: %s; trying again with %d bytes kept", file.name, error, held)
        time.sleep(PAUSE_SECONDS * 2**failures)


def _request_rest(entry: CatalogueEntry, file: Path, part: Path, timeout: float) -> None:
    """One request for the bytes that `part` lacks. RequestException: ask again. CheckpointError: do not."""
    held = _size(part)
    if held and held == entry.bytes:
        return
    if entry.bytes is not None and held > entry.bytes:
        part.unlink()
        held = 0
    # Compressed transfer would make offsets and lengths those of another stream.
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={held}-"} if held else {})
    with requests.get(str(entry.url), headers=headers, timeout=timeout, stream=True) as response:
        start, total = _extent(response)
        if response.status_code == 416 and held and total == held:
            return
        if response.status_code == 416 or (response.status_code == 206 and start != held):
            part.unlink(missing_ok=True)
            raise requests.ConnectionError(f"the server did not go on from byte {held}, starting again")
        held = held if response.status_code == 206 else 0
        _check_answer(entry, file, response.status_code, total)
        total = entry.bytes if total is None else total
        _check_space(file, 0 if total is None else total - _size(part))
        _save(response, part, held, total)
    if total is not None and _size(part) < total:
        raise requests.ConnectionError(f"the connection ended at byte {_size(part)} of {total}")


def _extent(response: requests.Response) -> tuple[int | None, int | None]:
    """First byte of the answer and size of the whole file in bytes, as far as the server says."""
    if response.status_code == 200:
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    extent = response.headers.get("Content-Range", "")
    match = re.match(r"bytes (\d+|\*)(?:-\d+)?/(\d+|\*)", extent)
    first, total = match.groups() if match else ("*", "*")
    return None if first == "*" else int(first), None if total == "*" else int(total)


def _check_answer(entry: CatalogueEntry, file: Path, status: int, total: int | None) -> None:
    if status >= 500 or status in (408, 429):
        raise requests.HTTPError(f"the server answered HTTP {status}")
    if status not in (200, 206):
        raise _unavailable(entry, file, f"the server answered HTTP {status}")
    if total is not None and total != (entry.bytes or total):
        reason = f"the server offers {total} bytes, the catalogue expects {entry.bytes}"
        raise _unavailable(entry, file, reason)


def _check_space(file: Path, needed: int) -> None:
    free = shutil.disk_usage(file.parent).free
    if needed > free:
        raise CheckpointError(
            f"{file} needs {needed / 1e6:.0f} MB more and {free / 1e6:.0f} MB are free in {file.parent}: "
            "free some space, or choose another folder for checkpoints."
        )


def _save(response: requests.Response, part: Path, held: int, total: int | None) -> None:
    """Add the answer to the first `held` bytes of `part`, with a log line at most every 5 seconds."""
    first, began = held, time.monotonic()
    reported = began
    with open(part, "ab" if held else "wb") as stream:
        for chunk in response.iter_content(CHUNK_BYTES):
            stream.write(chunk)
            held += len(chunk)
            now = time.monotonic()
            if now - reported >= PROGRESS_SECONDS:
                reported = now
                log_progress("%s: %s", part.stem, _progress(held, total, (held - first) / (now - began)))


def _progress(held: int, total: int | None, rate: float) -> str:
    """What there is of a download; sizes in bytes, rate in bytes per second."""
    if total is None:
        return f"{held / 1e6:.0f} MB, {rate / 1e6:.1f} MB/s"
    done = f"{100 * held / total:.0f} %, {held / 1e6:.0f} of {total / 1e6:.0f} MB"
    return f"{done}, {rate / 1e6:.1f} MB/s, {duration((total - held) / max(rate, 1))} left"


def _unavailable(entry: CatalogueEntry, file: Path, reason: str) -> CheckpointError:
    return CheckpointError(
        f"{file.name} cannot be downloaded from {entry.url}: {reason}.\n"
        f"Get it on a machine with access and place it at {file} (SHA-256 {entry.sha256})."
    )


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _disguise(path: Path) -> str | None:
    """What a file really is that is often found in a checkpoint's place; None for anything else."""
    with open(path, "rb") as stream:
        head = stream.read(512).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page (a log-in or error page, say)"
    return "a Git LFS pointer" if head.startswith(b"version https://git-lfs") else None


def load_state_dict(path: str | Path) -> dict[str, torch.Tensor]:
    """Read a checkpoint's weights onto the CPU: tensor name -> tensor. Nothing in the file is executed.

    Reads .safetensors and both PyTorch formats; takes the weights out of "model" or "state_dict" and drops a
    "module." that all names begin with. Raises CheckpointError for a file that is missing, incomplete, no
    checkpoint, or holds more than tensors.
    """
    path = _existing(path)
    if disguise := _disguise(path):
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
        return torch.load(path, map_location="cpu", weights_only=True, mmap=archive)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise CheckpointError(
            f"{path} contains more than tensors{f' ({found[1]})' if found else ''} and is not loaded, since "
            "that can run code. Save its state dict alone with torch.save, or convert it to safetensors."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, LookupError, struct.error) as error:
        raise _incomplete(path, "PyTorch") from error


def _incomplete(path: Path, kind: str) -> CheckpointError:
    what = f"is not a complete {kind} file ({_size(path)} bytes)"
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
    return {name.removeprefix(prefix): value for name, value in content.items()}


def load_into(module: torch.nn.Module, path: str | Path, what: str) -> None:
    """Load a checkpoint's weights into `module`, all or nothing.

    `what` says in the error what the module is: "sam2 architecture configs/sam2/sam2_hiera_t.yaml". Raises
    CheckpointError, with the module unchanged, where a name or a shape differs.
    """
    tensors = load_state_dict(path)
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if found != wanted:
        lines = [f"{path} does not fit {what}:", *_differences(found, wanted), _hint(found, wanted)]
        raise CheckpointError("\n".join(lines))
    module.load_state_dict(tensors, strict=True)


def _differences(found: Shapes, wanted: Shapes) -> list[str]:
    """One line per kind of difference, with its count and first case."""
    other = [name for name in found if name in wanted and found[name] != wanted[name]]
    kinds = {
        "missing": [f"{name} {wanted[name]}" for name in wanted if name not in found],
        "unexpected": [f"{name} {found[name]}" for name in found if name not in wanted],
        "of other shape": [f"{name} {found[name]} instead of {wanted[name]}" for name in other],
    }
    return [f"  {len(cases)} {kind}, first {cases[0]}" for kind, cases in kinds.items() if cases]


# How tensor names begin that tell the kind of a model, the surest sign first.
_SIGNS = {
    "SAM 2.1": ("no_obj_embed_spatial", "obj_ptr_tpos_proj."),
    "SAM 2.0": ("image_encoder.trunk.", "sam_mask_decoder.", "memory_attention."),
    "SAM": ("image_encoder.patch_embed.proj.",),
    "SAM with another image encoder": ("prompt_encoder.", "mask_decoder."),
}
# Width and number of blocks of the published image encoders.
_SAM_SIZES = {(768, 12): "vit_b", (1024, 24): "vit_l", (1280, 32): "vit_h"}
_SAM2_SIZES = {(96, 12): "t", (96, 16): "s", (112, 24): "b+", (144, 48): "l"}


def _hint(found: Shapes, wanted: Shapes) -> str:
    """What the checkpoint's tensors say it is, and so which configuration it needs."""
    kind, size = held = _kind_and_size(found)
    if kind is None:
        return "Its tensor names are those of neither SAM nor SAM 2: check that it is the right file."
    if held == _kind_and_size(wanted):
        return f"Both are {kind} of one size: the architecture needs the settings that it was trained with."
    if kind == "SAM with another image encoder":
        return f"It is {kind} (like MobileSAM's), which is not supported."
    folder = {"SAM 2.0": "sam2", "SAM 2.1": "sam2.1"}.get(kind)
    if folder is None:
        return f"It is a SAM checkpoint: it needs family sam, architecture {size or 'vit_b, vit_l or vit_h'}."
    architecture = f"architecture configs/{folder}/{folder}_hiera_{size or '*'}.yaml"
    custom = "" if size else ", or the one it was trained with: its size is none of the published ones"
    return f"It is a {kind} checkpoint: it needs family sam2, {architecture}{custom}."


def _kind_and_size(shapes: Shapes) -> tuple[str | None, str | None]:
    """Which model has these tensors, and the published size with this image encoder; None for any other."""
    kinds = [kind for kind, signs in _SIGNS.items() if any(name.startswith(signs) for name in shapes)]
    kind = kinds[0] if kinds else None
    encoder, sizes = ("image_encoder", _SAM_SIZES) if kind == "SAM" else ("image_encoder.trunk", _SAM2_SIZES)
    width = shapes.get(f"{encoder}.patch_embed.proj.weight", (0,))[0]
    prefix = f"{encoder}.blocks."
    blocks = {name.removeprefix(prefix).split(".")[0] for name in shapes if name.startswith(prefix)}
    return kind, sizes.get((width, len(blocks)))
