"""The study: a configuration with its tables and checkpoints, checked as a whole before anything runs.

`read_study` lists every fault at once, each with its place. Importing this module loads neither torch nor pandas, since
the workflow is planned with it on every call.
"""

from __future__ import annotations

import csv
import io
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from volprompt.checkpoints import CatalogueEntry, content_digest
from volprompt.config import NAME, ConfigurationError, Experiment, Model, Settings, hint, read_valid_part
from volprompt.files import separator
from volprompt.images.sources import data_file

SAM_ARCHITECTURES = ("vit_b", "vit_l", "vit_h")
SCORED_TOGETHER = ("combined", "union", "mean")
# The median table's other columns, and what follows a structure's name in it.
MEDIAN_COLUMNS = ("model", "scheme", "parameters", "n", "seconds_per_volume")
SURFACE_COLUMNS = ("combined_nsd", "combined_hd95_mm", "combined_assd_mm")
MEDIAN_SUFFIXES = ("low", "high", "bootstrap_low", "bootstrap_high", "iqr", "worst", "undefined")


@dataclass(frozen=True)
class Volume:
    """A row of the sample sheet; what a volume does not have is empty."""

    volume: str
    image: str
    reference: str = ""
    group: str = ""
    clicks: str = ""
    series: str = ""

    def plain(self) -> dict[str, str]:
        """The row as the conversion takes it; `series` only where one is chosen."""
        row = {"volume": self.volume, "image": self.image, "reference": self.reference}
        return {**row, "series": self.series} if self.series else row


@dataclass(frozen=True)
class Click:
    """A row of a clicks table; x and y in pixels of the frame, slice counted from 0."""

    volume: str
    structure: str
    slice: int
    x: float
    y: float


@dataclass(frozen=True)
class Checkpoint:
    """A model ready to be planned: one checkpoint file and what identifies its content."""

    model: str
    family: str
    architecture: str
    file: str
    digest: str
    catalogued: bool
    image_size: int | None = None
    run: str = ""  # the model of the configuration whose glob found the file

    def identity(self) -> dict[str, Any]:
        """What the masks of this model depend on, as plain values; `digest` starts with its kind.

        `sha256:` is the sum of the catalogue, `content:` that of a local file's tensors. The bytes of an architecture
        given as a local file are part of it.
        """
        identity: dict[str, Any] = {
            "name": self.model,
            "family": self.family,
            "architecture": self.architecture,
            "digest": self.digest,
        }
        if self.image_size is not None:
            identity["image_size"] = self.image_size
        if Path(self.architecture).is_file():
            identity["architecture_crc32"] = f"{zlib.crc32(Path(self.architecture).read_bytes()):08x}"
        return identity


@dataclass(frozen=True)
class Study:
    """A checked configuration with its tables and checkpoints."""

    settings: Settings
    volumes: tuple[Volume, ...]
    clicks: tuple[Click, ...]
    checkpoints: dict[str, Checkpoint]
    experiments: dict[str, Experiment]
    shards: dict[str, tuple[Volume, ...]] = field(default_factory=dict)

    @property
    def scored_structures(self) -> list[str]:
        """Names of the structures that are segmented and scored, in the configuration's order."""
        return self.settings.scored_structures

    @property
    def groups(self) -> dict[str, str]:
        """The group (subject) of each volume that has one."""
        return {row.volume: row.group for row in self.volumes if row.group}

    @property
    def image_schemes(self) -> list[str]:
        """Names of the experiments' schemes that prompt every slice."""
        return [name for name, scheme in self.settings.used_schemes.items() if scheme.predictor == "image"]

    def sources(self, volumes: Iterable[Volume]) -> list[str]:
        """Images and references of some volumes, with the data files of detached headers.

        With `on_invalid: skip` only those that exist: the conversion records what is missing.
        """
        paths = [path for row in volumes for path in (row.image, row.reference) if path]
        beside = [data_file(path) for path in paths]
        paths += [str(file) for file in beside if file is not None and file.exists()]
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

    def clicks_of(self, shard: str) -> list[Click]:
        """The clicks on the shard's volumes."""
        names = {volume.volume for volume in self.shards[shard]}
        return [click for click in self.clicks if click.volume in names]


def shard_of(volume: str, shards: int) -> str:
    """Name of the shard that a volume always belongs to, whatever else is in the sheet."""
    return f"{zlib.crc32(volume.encode()) % shards:03d}"


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


def read_study(config: Mapping[str, Any], catalogue: Mapping[str, CatalogueEntry], digests: Path) -> Study:
    """Read and check the configuration, its tables and its checkpoints.

    `catalogue` holds the checkpoints that can be fetched, by file name; `digests` is the file that remembers digests of
    local checkpoints. Paths are relative to the working directory. Raises ConfigurationError with all faults.
    """
    settings, faults = read_valid_part(config)
    if settings is None:
        raise ConfigurationError(faults)
    volumes = read_volumes(settings.volumes, settings.on_invalid == "skip", faults)
    clicks = _read_clicks(settings, volumes, faults)
    checkpoints, expanded = _resolve_models(settings, catalogue, digests, faults)
    experiments = _resolve_experiments(settings, expanded, faults)
    _check_structures(settings, faults)
    if not faults:  # else what is missing may be missing because of another fault
        _check_sources_of_prompts(settings, experiments, volumes, clicks, faults)
    if settings.report.example and settings.report.example not in {row.volume for row in volumes}:
        faults.append(f"report.example: volume '{settings.report.example}' is not in {settings.volumes}")
    if faults:
        raise ConfigurationError(faults)
    shards: dict[str, list[Volume]] = {}
    for row in volumes:
        shards.setdefault(shard_of(row.volume, settings.shards), []).append(row)
    ordered = {name: tuple(shards[name]) for name in sorted(shards)}
    return Study(settings, tuple(volumes), tuple(clicks), checkpoints, experiments, ordered)


def _check_structures(settings: Settings, faults: list[str]) -> None:
    columns = {f"{name}_{suffix}" for name in [*settings.structures, "combined"] for suffix in MEDIAN_SUFFIXES}
    for name in settings.structures:
        if name in SCORED_TOGETHER:
            faults.append(f"structures.{name}: this name is taken by a score over all structures; choose another")
        if name in columns.union(MEDIAN_COLUMNS, SURFACE_COLUMNS):
            faults.append(f"structures.{name}: this name is taken by a column of the median table; choose another")
    if not any(structure.scored for structure in settings.structures.values()):
        faults.append("structures: none is scored; leave `scored: false` out for at least one")
    for name, scheme in settings.schemes.items():
        for structure_name in scheme.structures or []:
            if structure_name not in settings.structures:
                close = hint(structure_name, settings.structures)
                faults.append(f"schemes.{name}.structures: there is no structure '{structure_name}'{close}")
        scored = [key for key, structure in settings.structures.items() if structure.scored]
        if scheme.structures is not None and (left_out := [key for key in scored if key not in scheme.structures]):
            faults.append(f"schemes.{name}.structures: leaves out {', '.join(left_out)}, which is to be scored")


def _check_sources_of_prompts(
    settings: Settings,
    experiments: Mapping[str, Experiment],
    volumes: Sequence[Volume],
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
        for kind in [kind for kind in ("box", "mask") if getattr(scheme, kind)]:
            lacking += [f"a {kind} of '{key}'" for key in objects if key not in masked]
        if scheme.presence:
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
            if settings.models[model].family == "sam":
                faults += [
                    f"experiments.{name}: '{scheme}' is a video scheme, and '{model}' (family sam) has no memory; "
                    "move one of them to another experiment"
                    for scheme in experiment.schemes
                    if scheme in settings.schemes and settings.schemes[scheme].predictor == "video"
                ]
        for pair in [(model, scheme) for model in models for scheme in experiment.schemes]:
            if pair in seen:
                faults.append(f"experiments.{name}: {pair[0]} with {pair[1]} is already part of '{seen[pair]}'")
            seen[pair] = name
        if models:
            experiments[name] = Experiment(models=models, schemes=experiment.schemes)
    return experiments


def _resolve_models(
    settings: Settings, catalogue: Mapping[str, CatalogueEntry], digests: Path, faults: list[str]
) -> tuple[dict[str, Checkpoint], dict[str, list[str]]]:
    """Return every single model with its checkpoint, and for each configured name the names that it stands for."""
    resolved: dict[str, Checkpoint] = {}
    expanded: dict[str, list[str]] = {}
    used = {model for experiment in settings.experiments.values() for model in experiment.models}
    for name, model in settings.models.items():
        expanded[name] = []
        if name not in used:
            continue
        _check_architecture(name, model, faults)
        for single, file in _checkpoint_files(name, model, settings.checkpoints, faults):
            if not NAME.fullmatch(single):
                faults.append(
                    f"models.{name}: '{single}' becomes part of file names: rename {file}, with letters, digits, and "
                    ". _ + - inside"
                )
                continue
            run = name if model.checkpoints else ""
            checkpoint = _resolve_checkpoint(single, model, file, settings.checkpoints, catalogue, digests, faults, run)
            if checkpoint is None:
                continue
            if single in resolved:
                faults.append(f"models.{name}: two models would be named '{single}'; rename one")
            resolved[single] = checkpoint
            expanded[name].append(single)
    return resolved, expanded


def _checkpoint_files(name: str, model: Model, folder: str, faults: list[str]) -> list[tuple[str, str]]:
    """Names of single models, with their files."""
    if model.checkpoint is not None:
        in_folder = "/" not in model.checkpoint
        return [(name, f"{folder}/{model.checkpoint}" if in_folder else model.checkpoint)]
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
    digests: Path,
    faults: list[str],
    run: str,
) -> Checkpoint | None:
    entry = catalogue.get(Path(file).name) if Path(file).parent == Path(folder) else None
    if entry is not None:
        if (entry.family, entry.architecture) != (model.family, model.architecture):
            faults.append(
                f"models.{name}: {Path(file).name} holds family {entry.family}, architecture {entry.architecture}; "
                f"found {model.family}, {model.architecture}"
            )
        digest = f"sha256:{entry.sha256}"
        return Checkpoint(name, model.family, model.architecture, file, digest, True, model.image_size, run)
    if not Path(file).is_file():
        faults.append(
            f"models.{name}: there is no checkpoint {file}, and the catalogue has no '{Path(file).name}' to fetch"
            f"{hint(Path(file).name, catalogue)}"
        )
        return None
    digest = f"content:{content_digest(file, digests)}"
    return Checkpoint(name, model.family, model.architecture, file, digest, False, model.image_size, run)


def _check_architecture(name: str, model: Model, faults: list[str]) -> None:
    if Path(model.architecture).is_file():
        return
    if model.family == "sam":
        if model.architecture not in SAM_ARCHITECTURES:
            faults.append(
                f"models.{name}.architecture: '{model.architecture}' is neither one of {', '.join(SAM_ARCHITECTURES)} "
                "nor an existing YAML file"
            )
        return
    package = find_spec("sam2")
    if package is None or not package.submodule_search_locations:
        return  # planned where the package is not installed: the job itself will tell
    configs = Path(package.submodule_search_locations[0])
    if not (configs / model.architecture).is_file():
        known = sorted(str(path.relative_to(configs)) for path in configs.glob("configs/sam2*/*.yaml"))
        close = hint(model.architecture, known)
        faults.append(
            f"models.{name}.architecture: '{model.architecture}' is neither in the sam2 package nor an existing YAML "
            f"file{close}"
        )


def read_rows(path: str, delimiter: str, required: set[str], optional: set[str], faults: list[str]) -> list[dict]:
    """Read a table with a header; each row also holds its line number under `line`."""
    if not Path(path).is_file():
        faults.append(f"{path}: no such file")
        return []
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        faults.append(f"{path}: is not UTF-8 text ({error}); save it in that encoding")
        return []
    with io.StringIO(text, newline="") as lines:
        reader = csv.DictReader(lines, delimiter=delimiter)
        columns = set(reader.fieldnames or [])
        missing, unknown = required - columns, columns - required - optional
        if missing:
            faults.append(f"{path}: column(s) {', '.join(sorted(missing))} missing; found {', '.join(sorted(columns))}")
            return []
        if unknown:
            faults.append(f"{path}: unknown column(s) {', '.join(sorted(map(str, unknown)))}")
        return [{**{k: v or "" for k, v in row.items()}, "line": reader.line_num} for row in reader]


def read_volumes(path: str, skip_missing: bool, faults: list[str]) -> list[Volume]:
    """Read the sample sheet; what is wrong with it is added to `faults`.

    skip_missing: whether a file that does not exist is left for the conversion to record.
    """
    rows = read_rows(
        path, separator(path, "\t"), {"volume", "image"}, {"reference", "clicks", "group", "series"}, faults
    )
    volumes: list[Volume] = []
    lines: dict[str, int] = {}
    for row in rows:
        place = f"{path} line {row['line']}"
        name = row["volume"]
        if not NAME.fullmatch(name):
            faults.append(f"{place}: volume '{name}' becomes a file name: use letters, digits, and . _ + - inside")
            continue
        if name in lines:
            faults.append(f"{place}: volume '{name}' stands already in line {lines[name]}")
            continue
        lines[name] = row["line"]
        for column in ("image", "reference"):
            missing = not row.get(column) or not (skip_missing or Path(row[column]).exists())
            if missing and (row.get(column) or column == "image"):
                faults.append(f"{place}: {column} '{row[column]}' of volume '{name}' does not exist")
        rest = (row.get(key, "") for key in ("reference", "group", "clicks", "series"))
        volumes.append(Volume(name, row["image"], *rest))
    if not rows and Path(path).is_file() and not any(fault.startswith(path) for fault in faults):
        faults.append(f"{path}: lists no volume")
    return volumes


def _read_clicks(settings: Settings, volumes: Sequence[Volume], faults: list[str]) -> list[Click]:
    """Read the study's table of clicks and the tables that single volumes name in the sample sheet."""
    clicks = read_click_table(settings.clicks, settings, None, faults) if settings.clicks else []
    if clicks and not {click.volume for click in clicks} & {row.volume for row in volumes}:
        faults.append(
            f"{settings.clicks}: none of its volumes is in {settings.volumes}; found '{clicks[0].volume}', ..."
        )
    for volume in volumes:
        if volume.clicks:
            clicks += read_click_table(volume.clicks, settings, volume.volume, faults)
    return clicks


def read_click_table(path: str, settings: Settings, volume: str | None, faults: list[str]) -> list[Click]:
    """Read a clicks table: the study's, or that of one `volume`. What is wrong with it is added to `faults`."""
    clicks: list[Click] = []
    required = {"structure", "slice", "x", "y"} | ({"volume"} if volume is None else set())
    for row in read_rows(path, separator(path, ","), required, {"volume"}, faults):
        place = f"{path} line {row['line']}"
        structure = row["structure"]
        if structure not in settings.structures:
            faults.append(f"{place}: there is no structure '{structure}'{hint(structure, settings.structures)}")
        try:
            numbers = int(row["slice"]), float(row["x"]), float(row["y"])
        except ValueError:
            faults.append(
                f"{place}: slice, x and y are '{row['slice']}', '{row['x']}', '{row['y']}'; expected a whole number "
                "and two numbers"
            )
            continue
        if numbers[0] < 0:
            faults.append(f"{place}: slice is {numbers[0]}; slices are counted from 0")
        if volume in (None, row.get("volume") or volume):
            clicks.append(Click(volume or row["volume"], structure, *numbers))
    return clicks
