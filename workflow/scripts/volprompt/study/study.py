"""The study: a configuration with its tables and checkpoints, checked as a whole before anything runs.

`read_study` lists every fault at once, each with its place. Importing this module loads neither torch nor pandas, since
the workflow is planned with it on every call.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volprompt.checkpoints.catalogue import CatalogueEntry
from volprompt.columns import SCORED_TOGETHER, reserved_names
from volprompt.families import family_of
from volprompt.remembered import DigestMemory
from volprompt.settings.config import EXECUTION_SETTINGS, Experiment, Settings
from volprompt.settings.presets import preset_settings
from volprompt.settings.reading import ConfigurationError, hint, read_valid_part
from volprompt.settings.schemes import Scheme
from volprompt.settings.sources import with_files
from volprompt.settings.values import path_fault
from volprompt.study.data import Data, stored_fault
from volprompt.study.models import Checkpoint, resolve_models, training_step
from volprompt.study.sheets import Click, SheetRow, read_clicks, read_volumes
from volprompt.study.statistics import covariates, repetitions, statistics_faults
from volprompt.volumes.images.formats import data_files

# Remembered digests of checkpoints and sources, in the folder of results.
MEMORY = ".digests.json"
# What a family lacks that cannot run schemes of a predictor.
WITHOUT = {
    "image": "takes no single slices",
    "video": "has no memory",
    "volume": "takes slices, not whole volumes",
}


@dataclass(frozen=True)
class Study:
    """A checked configuration with its tables and checkpoints."""

    settings: Settings
    volumes: tuple[SheetRow, ...]
    clicks: tuple[Click, ...]
    checkpoints: dict[str, Checkpoint]
    experiments: dict[str, Experiment]
    shards: dict[str, tuple[SheetRow, ...]]
    memory: DigestMemory = field(compare=False)
    data: Data = Data.HERE

    @property
    def scored_structures(self) -> list[str]:
        """Names of the structures that are segmented and scored, in the configuration's order."""
        return self.settings.scored_structures

    @property
    def labels(self) -> dict[str, list[int]]:
        """Label numbers of each structure that is scored or that a scheme in use asks for, in order."""
        return self.labels_of(self.settings.used_schemes.values())

    def labels_of(self, schemes: Iterable[Scheme]) -> dict[str, list[int]]:
        """Label numbers of each structure that is scored or that one of these schemes asks for, in order."""
        asked = set(self.scored_structures)
        for scheme in schemes:
            asked |= set(self.settings.structures if scheme.negatives == "others" else scheme.structures or [])
        return {name: structure.labels for name, structure in self.settings.structures.items() if name in asked}

    @property
    def configurations(self) -> list[list[str]]:
        """Experiment, model and scheme of each configuration, in the order in which tables list them."""
        return [
            [experiment, model, scheme]
            for experiment, parts in self.experiments.items()
            for model in parts.models
            for scheme in parts.schemes
        ]

    @property
    def ignored(self) -> list[int]:
        """Label numbers of voxels that no score counts."""
        return self.settings.ignore.labels

    @property
    def correction_clicks(self) -> dict[str, int]:
        """Rounds of each scheme in use that has corrections."""
        schemes = self.settings.used_schemes
        return {name: scheme.corrections.clicks for name, scheme in schemes.items() if scheme.corrections}

    @property
    def groups(self) -> dict[str, str]:
        """The group (subject) of each volume that has one."""
        return {row.volume: row.group for row in self.volumes if row.group}

    @property
    def every_slice_schemes(self) -> list[str]:
        """Names of the experiments' schemes that prompt every slice."""
        return [name for name, scheme in self.settings.used_schemes.items() if scheme.prompts_every_slice]

    @property
    def table_design(self) -> dict[str, Any]:
        """What of the study reaches its tables, as plain values: the arguments of `tables.design.TableDesign`."""
        settings = self.settings
        return {
            "scored": self.scored_structures,
            "experiments": {name: parts.schemes for name, parts in self.experiments.items()},
            "every_slice_schemes": self.every_slice_schemes,
            "groups": self.groups,
            "covariates": covariates(self.volumes),
            "repetitions": repetitions(settings.used_schemes),
            "correction_clicks": self.correction_clicks,
            "acceptable_dice": settings.scores.acceptable_dice,
            **settings.comparisons.model_dump(),
            "compare_with": settings.report.compare_with,
        }

    @property
    def shown_design(self) -> dict[str, Any]:
        """What the pages of single volumes show of the study, as plain values: see `report.shards.StudyDesign.of`."""
        return {
            "labels": self.labels,
            "scored": self.scored_structures,
            "schemes": {name: scheme.plain() for name, scheme in self.settings.schemes.items()},
            "experiments": {name: (parts.models, parts.schemes) for name, parts in self.experiments.items()},
            "sources": self.shown_sources(self.volumes),
            "ignored": self.ignored,
            "results": self.settings.results,
        }

    def shown_sources(self, volumes: Iterable[SheetRow]) -> dict[str, list[str]]:
        """Image and reference of some volumes as the report shows them: only the names where it hides paths."""
        shown = str if self.settings.report.paths == "show" else file_name
        return {row.volume: [shown(row.image), shown(row.reference)] for row in volumes}

    @property
    def report_design(self) -> dict[str, Any]:
        """What the report needs of the study, as plain values: see `report.shards.StudyDesign.of`."""
        settings = self.settings
        return {
            **self.shown_design,
            "groups": self.groups,
            "models": {name: checkpoint.description() for name, checkpoint in self.checkpoints.items()},
            "frames": settings.frames.model_dump(mode="json"),
            "inference": settings.inference.model_dump(mode="json"),
            "scores": settings.scores.model_dump(mode="json"),
            "preset": [tuple(setting) for setting in preset_settings(settings)],
            "reproduces": settings.preset == "paper",
            "training_runs": self.training_runs(),
        }

    def sources(self, volumes: Iterable[SheetRow]) -> list[str]:
        """Images and references of some volumes, and the files that belong to them (the data file of a header, say).

        With `on_invalid: skip` only those that exist: the conversion records what is missing. In storage all of them,
        which cannot be looked for here.
        """
        paths = [path for row in volumes for path in (row.image, row.reference) if path]
        if self.data is Data.STORED:
            return list(dict.fromkeys(paths))
        paths += [str(file) for path in paths for file in data_files(path) if file.exists()]
        if self.settings.on_invalid == "skip":
            paths = [path for path in paths if Path(path).exists()]
        return list(dict.fromkeys(paths))

    def training_runs(self) -> dict[str, dict[str, int]]:
        """For each model of the configuration that is a glob: the models of its files with their training steps.

        In the order of the steps; a file without a number in its name is left out, see `training_step`.
        """
        runs: dict[str, dict[str, int]] = {}
        for checkpoint in self.checkpoints.values():
            step = training_step(Path(checkpoint.file).stem)
            if checkpoint.run and step is not None:
                runs.setdefault(checkpoint.run, {})[checkpoint.model] = step
        return {run: dict(sorted(steps.items(), key=lambda item: item[1])) for run, steps in runs.items()}

    def described(self) -> dict[str, Any]:
        """The configuration as the report describes it: without places of files, and without what changes no result."""
        described = self.settings.model_dump(
            mode="json", exclude={"results", "checkpoints", "volumes", "clicks", "shards"}
        )
        for key in [*EXECUTION_SETTINGS, "device"]:
            described["inference"].pop(key)
        described["models"] = {name: one.architecture_settings() for name, one in self.checkpoints.items()}
        return described

    def clicks_of(self, shard: str) -> list[Click]:
        """The clicks on the shard's volumes."""
        names = {volume.volume for volume in self.shards[shard]}
        return [click for click in self.clicks if click.volume in names]


def file_name(path: str) -> str:
    """The last part of a path."""
    return Path(path).name


def shard_of(volume: str, shards: int) -> str:
    """Name of the shard that a volume always belongs to, whatever else is in the sheet."""
    return f"{zlib.crc32(volume.encode()) % shards:03d}"


def read_study(config: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry], data: Data = Data.HERE) -> Study:
    """Read and check the configuration, its tables and its checkpoints.

    `catalogue` holds the checkpoints that can be fetched, by file name. Paths are relative to the working directory.
    Digests of checkpoints are remembered beside the results. `data` says where images, references and checkpoints are,
    and so whether what is missing is a fault. Raises ConfigurationError with all faults.
    """
    settings, faults = read_valid_part(config)
    if settings is None:
        raise ConfigurationError([*faults, *_faults_of_the_sheet_alone(config)], config)
    volumes = read_volumes(settings.volumes, settings.on_invalid == "skip" or data is not Data.HERE, faults)
    if data is Data.STORED:
        found = ((row.volume, stored_fault(path)) for row in volumes for path in (row.image, row.reference))
        faults += [f"{settings.volumes}: volume '{volume}': {fault}" for volume, fault in found if fault]
    clicks = read_clicks(settings, volumes, faults, with_files(config).sources.files)
    memory = DigestMemory(Path(settings.results) / MEMORY)
    checkpoints, expanded = resolve_models(settings, catalogue, memory, faults, data)
    experiments = _resolve_experiments(settings, expanded, faults)
    _check_structures(settings, faults)
    if not faults:  # else what is missing may be missing because of another fault
        _check_sources_of_prompts(settings, experiments, volumes, clicks, faults)
    faults += statistics_faults(settings, experiments)
    if settings.report.example and settings.report.example not in {row.volume for row in volumes}:
        faults.append(f"report.example: volume '{settings.report.example}' is not in {settings.volumes}")
    if faults:
        raise ConfigurationError(faults, config)
    shards: dict[str, list[SheetRow]] = {}
    for row in volumes:
        shards.setdefault(shard_of(row.volume, settings.shards), []).append(row)
    ordered = {name: tuple(shards[name]) for name in sorted(shards)}
    return Study(settings, tuple(volumes), tuple(clicks), checkpoints, experiments, ordered, memory, data)


def _faults_of_the_sheet_alone(config: Mapping[str, Any]) -> list[str]:
    """Those of the sample sheet where too little is valid to look at more; of one that cannot be named, none."""
    faults: list[str] = []
    path = config.get("volumes", Settings.model_fields["volumes"].default)
    if isinstance(path, str) and not path_fault(path):
        read_volumes(path, config.get("on_invalid") == "skip", faults)
    return faults


def _check_structures(settings: Settings, faults: list[str]) -> None:
    columns = reserved_names(settings.structures)
    for name in settings.structures:
        if name in SCORED_TOGETHER:
            faults.append(f"structures.{name}: this name is taken by a score over all structures; choose another")
        elif name in columns:
            faults.append(f"structures.{name}: this name is taken by a column of the median table; choose another")
    for name, structure in settings.structures.items():
        if both := sorted(set(structure.labels) & set(settings.ignore.labels)):
            faults.append(f"ignore.labels: holds {both}, and so does structures.{name}.labels; expected one of them")
    if not any(structure.scored for structure in settings.structures.values()):
        faults.append("structures: none is scored; leave `scored: false` out for at least one")
    for name, scheme in settings.schemes.items():
        for structure_name in scheme.structures or []:
            if structure_name not in settings.structures:
                close = hint(structure_name, settings.structures)
                faults.append(f"schemes.{name}.structures: there is no structure '{structure_name}'{close}")
        scored = [key for key, structure in settings.structures.items() if structure.scored]
        if scheme.structures is not None and not set(scheme.structures) & set(scored):
            faults.append(f"schemes.{name}.structures: names none that is scored; add one of {', '.join(scored)}")


def _check_sources_of_prompts(
    settings: Settings,
    experiments: Mapping[str, Experiment],
    volumes: Sequence[SheetRow],
    clicks: Sequence[Click],
    faults: list[str],
) -> None:
    """A scheme that no volume can have a prompt for is found here, not after the images are encoded."""
    clicked = {click.structure for click in clicks}
    masked = {name for name, structure in settings.structures.items() if structure.labels}
    masked = masked if any(row.reference for row in volumes) else set()
    used = {scheme for experiment in experiments.values() for scheme in experiment.schemes}
    scored = [name for name, structure in settings.structures.items() if structure.scored]
    for name, scheme in settings.schemes.items():
        if name not in used:
            continue
        objects = scheme.structures or scored
        pointed = list(settings.structures) if scheme.negatives == "others" else objects
        sources = {origin: clicked if origin == "click" else masked for origin in scheme.origins}
        without = [key for key in pointed if sources and not any(key in found for found in sources.values())]
        lacking = [f"a point ({' or '.join(sources)}) of '{key}'" for key in without]
        for kind in scheme.shapes:
            lacking += [f"a {kind} of '{key}'" for key in objects if key not in masked]
        if scheme.presence or scheme.corrections:
            lacking += [f"a reference of '{key}'" for key in objects if key not in masked]
        if lacking:
            faults.append(
                f"schemes.{name}: needs {', '.join(lacking)}, and no volume has one; give labels and references, or "
                "clicks (key `clicks`)"
            )


def _resolve_experiments(
    settings: Settings, expanded: Mapping[str, list[str]], faults: list[str]
) -> dict[str, Experiment]:
    """Replace a glob's name by its models, and check what the experiments refer to."""
    experiments: dict[str, Experiment] = {}
    seen: dict[tuple[str, str], str] = {}
    for name, experiment in settings.experiments.items():
        for scheme in experiment.schemes:
            if scheme not in settings.schemes:
                faults.append(
                    f"experiments.{name}.schemes: there is no scheme '{scheme}'{hint(scheme, settings.schemes)}"
                )
        models: list[str] = []
        for model in experiment.models:
            if model not in settings.models:
                faults.append(f"experiments.{name}.models: there is no model '{model}'{hint(model, settings.models)}")
                continue
            models += expanded[model]
            family = family_of(settings.models[model].family)
            for scheme in experiment.schemes:
                predictor = settings.schemes[scheme].predictor if scheme in settings.schemes else None
                if predictor is not None and predictor not in family.predictors:
                    faults.append(
                        f"experiments.{name}: '{scheme}' is a {predictor} scheme, and '{model}' (family {family.name}) "
                        f"{WITHOUT[predictor]}; move one of them to another experiment"
                    )
        for pair in [(model, scheme) for model in models for scheme in experiment.schemes]:
            if pair in seen:
                faults.append(f"experiments.{name}: {pair[0]} with {pair[1]} is already part of '{seen[pair]}'")
            seen[pair] = name
        if models:
            experiments[name] = Experiment(models=models, schemes=experiment.schemes)
    return experiments
