"""The configuration's models, each with its checkpoint file and what identifies its content."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from volprompt.checkpoints.architectures import ArchitectureFileError, vet_architecture
from volprompt.checkpoints.catalogue import CatalogueEntry, CheckpointError
from volprompt.checkpoints.digests import content_digest, remembered_sha256
from volprompt.checkpoints.model_settings import read_model_settings
from volprompt.checkpoints.shards import file_of, weight_files
from volprompt.families import adapter_file, family_of, is_built_in
from volprompt.files import sha256_of
from volprompt.remembered import DigestMemory
from volprompt.settings.config import Model, Settings
from volprompt.settings.reading import hint
from volprompt.settings.values import name_fault, path_fault, same_but_for_case
from volprompt.study.data import Data, stored_fault


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to be planned: one checkpoint file and what identifies its content.

    digest: empty where the file cannot be looked at, see `Data`.
    """

    model: str
    family: str
    architecture: str
    file: str
    digest: str
    catalogued: bool
    image_size: int | None = None
    run: str = ""  # the model of the configuration whose glob found the file

    def description(self) -> dict[str, Any]:
        """The model as plain values; `digest` starts with its kind.

        `sha256:` is the sum of the catalogue, `content:` that of a local file's tensors.
        """
        description: dict[str, Any] = {
            "name": self.model,
            "family": self.family,
            "architecture": self.architecture,
            "digest": self.digest,
        }
        if self.image_size is not None:
            description["image_size"] = self.image_size
        return description

    def architecture_settings(self) -> dict[str, Any]:
        """What of the model reaches its masks, beside the weights; of a local file its bytes count, not its name."""
        file = Path(self.architecture)
        architecture = f"sha256:{sha256_of(file)}" if file.is_file() else self.architecture
        settings = {"family": self.family, "architecture": architecture, "image_size": self.image_size}
        family = family_of(self.family)
        if not is_built_in(family) and (adapter := adapter_file(family)) is not None:
            settings["adapter"] = f"sha256:{sha256_of(adapter)}"
        return settings

    def digests(self) -> dict[str, str]:
        """The digest of the weights, by its kind."""
        kind, _, digest = self.digest.partition(":")
        return {kind: digest} if digest else {}

    def files(self) -> list[str]:
        """All files of the weights, the one that the configuration names first."""
        return [str(file) for file in weight_files(self.file)] if Path(self.file).is_file() else [self.file]


def training_step(stem: str) -> int | None:
    """The training step in a checkpoint's file name (without ending), None where there is no number.

    That is the number after `step`, `iteration`, `iter` or `epoch`, the first of these that is there; else the last
    number that stands by itself: 12000 of `checkpoint_12000`, none of `sam2.1_hiera_t512`.
    """
    for word in ("step", "iteration", "iter", "epoch"):
        if found := re.search(rf"(?<![a-z]){word}s?[ _=.-]?(\d+)", stem, re.IGNORECASE):
            return int(found[1])
    numbers = re.findall(r"(?<![\w.+])\d+(?![\w.+])", stem.replace("_", " ").replace("-", " "))
    return int(numbers[-1]) if numbers else None


def resolve_models(
    settings: Settings, catalogue: Mapping[str, CatalogueEntry], memory: DigestMemory, faults: list[str], data: Data
) -> tuple[dict[str, Checkpoint], dict[str, list[str]]]:
    """Return every single model with its checkpoint, and for each configured name the names that it stands for."""
    resolved: dict[str, Checkpoint] = {}
    expanded: dict[str, list[str]] = {}
    used = {model for experiment in settings.experiments.values() for model in experiment.models}
    for name, model in settings.models.items():
        expanded[name] = []
        if name not in used:
            continue
        _check_adapter(name, model, faults)
        _check_architecture(name, model, faults)
        for single, file in _checkpoint_files(name, model, settings.checkpoints, faults, data):
            if fault := name_fault(single):
                faults.append(f"models.{name}: '{single}' {fault}; rename {file}")
                continue
            if fault := path_fault(file):
                faults.append(f"models.{name}: {file} {fault}")
                continue
            run = name if model.checkpoints else ""
            if data is Data.STORED and (fault := stored_fault(file)):
                faults.append(f"models.{name}: {fault}")
                continue
            folder = settings.checkpoints
            checkpoint = _resolve_checkpoint(single, model, file, folder, catalogue, memory, faults, run, data)
            if checkpoint is None:
                continue
            if single in resolved:
                faults.append(f"models.{name}: two models would be named '{single}'; rename one")
            resolved[single] = checkpoint
            expanded[name].append(single)
    faults += [
        f"models.{resolved[name].run or name}: '{name}' differs from '{earlier}' only in case, and both become names "
        "of files; rename one"
        for name, earlier in same_but_for_case(resolved)
        if not {name, earlier} <= set(settings.models)  # else told already
    ]
    return resolved, expanded


def _checkpoint_files(name: str, model: Model, folder: str, faults: list[str], data: Data) -> list[tuple[str, str]]:
    """Names of single models, with their files."""
    if model.checkpoint is not None:
        in_folder = "/" not in model.checkpoint
        return [(name, file_of(f"{folder}/{model.checkpoint}" if in_folder else model.checkpoint))]
    if data is Data.STORED:
        faults.append(
            f"models.{name}.checkpoints: '{model.checkpoints}' is a pattern, which is not looked up in storage; name "
            "each file (`checkpoint`)"
        )
        return []
    files = sorted(glob(str(model.checkpoints)))
    if not files:
        faults.append(f"models.{name}.checkpoints: no file matches '{model.checkpoints}'")
    return [(f"{name}_{Path(file).stem}", file) for file in files]


def _resolve_checkpoint(
    name: str,
    model: Model,
    file: str,
    folder: str,
    catalogue: Mapping[str, CatalogueEntry],
    memory: DigestMemory,
    faults: list[str],
    run: str,
    data: Data,
) -> Checkpoint | None:
    there = data is not Data.STORED and Path(file).is_file()
    entry = catalogue.get(Path(file).name) if Path(file).parent == Path(folder) else None
    if entry is not None:
        if (entry.family, entry.architecture) != (model.family, model.architecture):
            faults.append(
                f"models.{name}: {Path(file).name} holds family {entry.family}, architecture {entry.architecture}; "
                f"found {model.family}, {model.architecture}"
            )
        if data is Data.HERE and not there and entry.page is not None:
            faults.append(
                f"models.{name}: there is no checkpoint {file}; its authors hand it out themselves: get it at "
                f"{entry.page} and place it there"
            )
            return None
    if entry is not None and entry.sha256 is not None:
        if data is Data.HERE and there and (actual := remembered_sha256(Path(file), memory)) != entry.sha256:
            faults.append(
                f"models.{name}: {file} is not the file of the catalogue: its SHA-256 is {actual}, expected "
                f"{entry.sha256}; move it away to have the right one fetched, or correct the catalogue. Nothing was "
                "overwritten"
            )
        digest = f"sha256:{entry.sha256}"
        return Checkpoint(name, model.family, model.architecture, file, digest, True, model.image_size, run)
    if not there and data is not Data.HERE:
        return Checkpoint(name, model.family, model.architecture, file, "", False, model.image_size, run)
    if not there:
        faults.append(
            f"models.{name}: there is no checkpoint {file}, and the catalogue has no '{Path(file).name}' to fetch"
            f"{hint(Path(file).name, catalogue)}"
        )
        return None
    try:
        digest = f"content:{content_digest(file, memory)}"
    except CheckpointError as error:
        faults.append(f"models.{name}: {error}")
        return None
    return Checkpoint(name, model.family, model.architecture, file, digest, False, model.image_size, run)


def _check_adapter(name: str, model: Model, faults: list[str]) -> None:
    """The adapter of one's own model has to be there; what is in it, its jobs tell."""
    family = family_of(model.family)
    if not is_built_in(family) and adapter_file(family) is None:
        module = family.adapter.partition(":")[0]
        faults.append(
            f"models.{name}.family: there is no module {module}, neither installed nor in the working directory"
        )


def _check_architecture(name: str, model: Model, faults: list[str]) -> None:
    """An architecture is a file, or what the family says; whatever else it may be, the job will tell."""
    family = family_of(model.family)
    if model.architecture.endswith((".yaml", ".yml", ".json")) and (fault := path_fault(model.architecture)):
        faults.append(f"models.{name}.architecture: '{model.architecture}' {fault}")
        return
    if Path(model.architecture).is_file():
        try:
            if family.settings_file == "config.json":
                read_model_settings(model.architecture)
            elif is_built_in(family):
                vet_architecture(model.architecture)
        except ArchitectureFileError as error:
            faults.append(f"models.{name}.architecture: {error}")
        return
    if family.architectures and model.architecture not in family.architectures:
        faults.append(
            f"models.{name}.architecture: '{model.architecture}' is neither one of {', '.join(family.architectures)} "
            f"nor an existing {family.settings_file}"
        )
    package = find_spec(family.config_package) if family.config_package else None
    if package is None or not package.submodule_search_locations:
        return  # planned where the package is not installed: the job itself will tell
    folder = Path(package.submodule_search_locations[0])
    if not (folder / model.architecture).is_file():
        known = sorted(str(path.relative_to(folder)) for path in folder.glob(family.config_files))
        close = hint(model.architecture, known)
        faults.append(
            f"models.{name}.architecture: '{model.architecture}' is neither in the {family.config_package} package "
            f"nor an existing YAML file{close}"
        )
