"""The catalogue of checkpoints that can be fetched, and what all of this room asks of a file."""

from __future__ import annotations

import codecs
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, model_validator

from volprompt.errors import VolpromptError
from volprompt.settings.config import FamilyName
from volprompt.settings.documents import repeated_keys

# In a checkout a link to config/checkpoints.yaml, in an installed package that file.
CATALOGUE = (Path(__file__).parent / "catalogue.yaml").resolve()


HEAD_BYTES = 512  # that tell what is no checkpoint


class CheckpointError(VolpromptError):
    """A checkpoint that cannot be used: the message names the file, what is wrong and what to do."""


class CheckpointNotYet(CheckpointError):
    """A checkpoint that may be there a little later."""

    may_heal = True


class CatalogueEntry(BaseModel):
    """What is known of one checkpoint file; without `url` it comes with this repository. `bytes` is its size.

    A file that its authors hand out themselves has a `page` that says how, and no `url`; its `sha256` may be unknown.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = Field(default=None, pattern=r"^https?://")
    page: str | None = Field(default=None, pattern=r"^https?://")
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    bytes: int | None = Field(default=None, gt=0)
    licence: str
    family: FamilyName
    architecture: str

    @model_validator(mode="after")
    def _known(self) -> CatalogueEntry:
        if self.sha256 is None and (self.url is not None or self.page is None):
            raise ValueError("sha256 is missing; only a file with a page, and no url, can be without it")
        return self


def read_catalogue(path: str | Path) -> dict[str, CatalogueEntry]:
    """Read the catalogue: file name -> entry. Raises CheckpointError with every fault and its place."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        catalogue = TypeAdapter(dict[str, CatalogueEntry]).validate_python(content)
        if repeated := "".join(f"\n  {fault}" for fault in repeated_keys(path)):
            raise CheckpointError(f"{path} is not a catalogue of checkpoints:{repeated}")
        return catalogue
    except ValidationError as error:
        faults = [
            f"\n  {': '.join(map(str, [*fault['loc'], fault['msg'].removeprefix('Value error, ')]))}"
            for fault in error.errors()
        ]
        raise CheckpointError(f"{path} is not a catalogue of checkpoints:{''.join(faults)}") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise CheckpointError(f"the catalogue of checkpoints {path} cannot be read: {error}") from error


def require_file(path: str | Path) -> Path:
    if not Path(path).is_file():
        raise CheckpointError(f"the checkpoint {path} does not exist: fetch it or correct the path.")
    return Path(path)


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def disguise_of(path: Path) -> str | None:
    """What a file really is that is often found in a checkpoint's place; None for anything else."""
    with open(path, "rb") as stream:
        return disguise_of_bytes(stream.read(HEAD_BYTES))


def disguise_of_bytes(head: bytes) -> str | None:
    """What something really is that begins with these bytes; None for what may be a checkpoint."""
    head = head.removeprefix(codecs.BOM_UTF8).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html", b"<?xml", b"<!--")):
        return "a web page (a log-in or error page, say)"
    return "a Git LFS pointer" if head.startswith(b"version https://git-lfs") else None
