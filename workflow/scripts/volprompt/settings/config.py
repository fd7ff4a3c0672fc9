"""The configuration's types, with defaults and the checks between keys."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from volprompt.families import FAMILIES, UnknownFamily, family_of
from volprompt.settings.schemes import Scheme
from volprompt.settings.section import Section
from volprompt.settings.values import EACH, ONE, Folder, Name, PathText


def _checked_family(value: str) -> str:
    try:
        return family_of(value).name
    except UnknownFamily as error:
        raise ValueError(str(error)) from error


def _list_families(schema: dict[str, Any]) -> None:
    schema["examples"] = [*FAMILIES, "package.module:Class"]


FamilyName = Annotated[str, AfterValidator(_checked_family), Field(json_schema_extra=_list_families)]


class Frames(Section):
    """How a volume is cut into frames."""

    axis: Literal["sagittal", "coronal", "axial", 0, 1, 2] = Field(
        "sagittal", description="Slice axis: an anatomical plane, or the number of a stored axis of the image."
    )
    intensity_percentiles: tuple[float, float] = Field(
        (0.5, 99.5), description="Percentiles of the whole volume that become black and white."
    )
    window: tuple[float, float] | None = Field(
        None,
        description="Intensities that become black and white, in place of percentiles: for CT, in Hounsfield units.",
    )
    coding: Literal["lossless", "jpeg75"] = Field(
        "lossless", description="jpeg75 sends each frame through JPEG at quality 75, as the paper's code did."
    )

    @model_validator(mode="after")
    def _percentiles_in_order(self) -> Frames:
        low, high = self.intensity_percentiles
        if not 0 <= low < high <= 100:
            raise ValueError(f"intensity_percentiles are {low} and {high}; expected 0 <= low < high <= 100")
        return self

    @model_validator(mode="after")
    def _window_in_order(self) -> Frames:
        if self.window and not self.window[0] < self.window[1]:
            raise ValueError(f"window is {self.window[0]} and {self.window[1]}; expected low < high")
        return self

    @property
    def grey(self) -> dict[str, tuple[float, float]]:
        """The setting that says which intensities become black and white: `window` or `intensity_percentiles`."""
        return {"window": self.window} if self.window else {"intensity_percentiles": self.intensity_percentiles}


class References(Section):
    """How reference label maps are taken."""

    resample: Literal["nearest"] | None = Field(
        None,
        description="nearest: a reference on another grid than its image is resampled onto it, with a warning; null: "
        "it is refused.",
    )


class Ignore(Section):
    """Voxels of a reference that nobody has looked at; no score counts them."""

    labels: list[Annotated[int, Field(ge=1)]] = Field(
        [], description="Label numbers of voxels that are left out of every score, such as nnU-Net's label `ignore`."
    )


class Structure(Section):
    """A structure of the reference label map."""

    labels: list[Annotated[int, Field(ge=1)]] = Field(
        description="Label numbers that make up the structure; none for one that is only clicked on."
    )
    scored: bool = Field(True, description="Whether the structure is segmented and scored, or only gives prompts.")

    @model_validator(mode="after")
    def _scored_has_labels(self) -> Structure:
        if self.scored and not self.labels:
            raise ValueError("has no labels to be scored against; give some, or set scored: false")
        return self


def _families_of_free_size() -> str:
    return " or ".join(family.name for family in FAMILIES.values() if family.free_image_size)


class Model(Section):
    """A model: its family, its architecture and its checkpoint, or a glob of checkpoints (one model per file)."""

    family: FamilyName
    architecture: str = Field(
        description="; ".join(family.architectures_in_words for family in FAMILIES.values())
        + "; or the path of a file that describes one."
    )
    checkpoint: PathText | None = Field(
        None, description="File name in the checkpoint folder, or a path with at least one slash."
    )
    checkpoints: PathText | None = Field(None, description="Glob of checkpoint files: one model per file.")
    image_size: int | None = Field(
        None,
        ge=64,
        multiple_of=32,
        description=f"Family {_families_of_free_size()}: pixels of the model's image, if not the architecture's.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Model:
        if (self.checkpoint is None) == (self.checkpoints is None):
            raise ValueError("give either checkpoint or checkpoints")
        family = family_of(self.family)
        if self.image_size and not family.free_image_size:
            raise ValueError(
                f"image_size belongs to family {_families_of_free_size()}; a model of {family.title} has the size of "
                "its architecture"
            )
        return self


class Experiment(Section):
    """Models and schemes that are run together: each slice is encoded once for all schemes."""

    models: list[str] = Field(min_length=1)
    schemes: list[str] = Field(min_length=1)


class Inference(Section):
    """Where and how the models run."""

    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="auto: CUDA where there is a GPU, else the CPU.")
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="auto: bfloat16 on GPUs that have it, else float32."
    )
    reset_between_directions: bool = Field(
        False, description="Whether the reverse pass of a video scheme forgets the forward pass."
    )
    fill_holes: int = Field(
        0,
        ge=0,
        description="Video schemes: holes of at most so many pixels of the decoder's mask are filled (the package: 8, "
        "where its CUDA extension is built).",
    )
    video_resize: Literal["shared", "bicubic"] = Field(
        "shared",
        description="How frames of video schemes are resized: shared with image schemes, or as the package's video "
        "loader does (bicubic on 8 bit), which encodes slices a second time.",
    )
    batch_size: int | None = Field(
        None, ge=1, description="Slices per encoder batch (default: 8; 1 for images of more than 512 pixels on a CPU)."
    )
    objects_together: int | None = Field(
        None,
        ge=1,
        description="Tracked objects for which volumes are taken together (default: 16; for images of more than 512 "
        "pixels on a CPU 1, so one volume at a time).",
    )
    attention: Literal["auto", "package"] = Field(
        "auto",
        description="auto: by kernels chosen for device and shape, equal but for rounding; package: as the models' own "
        "packages compute it.",
    )
    compile: bool = Field(
        False, description="Whether torch compiles encoder, attention and heads first, which takes a minute or two."
    )


# Settings of `inference` that say how something is computed, and change no result: a change runs nothing again.
EXECUTION_SETTINGS = frozenset({"batch_size", "objects_together", "attention", "compile"})


def execution_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of EXECUTION_SETTINGS in a checked configuration, as far as it has them."""
    return {key: value for key, value in (config.get("inference") or {}).items() if key in EXECUTION_SETTINGS}


Millimetres = Annotated[float, Field(gt=0)]


def _one_or_each(value: Any) -> str:
    return EACH if isinstance(value, Mapping) else ONE


class Scores(Section):
    """Settings of the scores."""

    # The kind is chosen by what is given, so that a fault names one kind and not both.
    surface_tolerance_mm: Annotated[
        Annotated[Millimetres, Tag(ONE)] | Annotated[dict[Name, Millimetres], Tag(EACH)], Discriminator(_one_or_each)
    ] = Field(
        1.0,
        description="Tolerance of the normalized surface Dice, millimetres: one for all structures, or one for each "
        "scored structure.",
    )
    border: Literal["count", "ignore"] = Field(
        "count",
        description="count: the border of the volume is a surface of a structure that reaches it; ignore: a structure "
        "that the border cuts off has no surface there.",
    )
    acceptable_dice: float = Field(
        0.8,
        gt=0,
        lt=1,
        description="A combined Dice below it counts as bad, where confidence is to tell bad volumes; a slice with at "
        "least it counts as acceptable.",
    )


class Comparisons(Section):
    """Which configurations are compared, beside schemes within a model and models under a scheme."""

    baseline: tuple[str, str] | None = Field(
        None, description="Model and scheme that every other configuration is compared with."
    )
    margin: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Differences of Dice and NSD within it count as equivalent; adds two one-sided tests to each pair.",
    )


class Report(Section):
    """Settings of the report; a change reruns the report alone."""

    title: str = "Zero-shot segmentation study"
    description: str = Field("", description="A paragraph below the title: what was studied, on which data.")
    example: Name | None = Field(None, description="Volume of the overlay figures (default: the median volume).")
    print_formats: list[Literal["pdf", "png"]] = Field(
        ["pdf"], description="Formats of the figures beside SVG; PNG has 600 dots per inch."
    )
    compare_with: Literal["oai-zib"] | None = Field(
        None,
        description="Whose published medians are shown beside the study's, in report and tables: those of the paper "
        "on OAI-ZIB; for a study of the same data.",
    )
    volumes: Literal["chosen", "all"] = Field(
        "chosen",
        description="all: beside the volumes that the report's viewer shows, each one has a page of its own.",
    )
    paths: Literal["show", "hide"] = Field(
        "show", description="hide: of absolute paths, in reasons and remarks too, the page shows the last part alone."
    )


class Settings(Section):
    """The whole configuration."""

    preset: Literal["paper", "best"] | None = Field(
        None, description="Settings that hold wherever the configuration says nothing itself; see docs/methods.md."
    )
    results: Folder = Field("results", description="Folder of everything that the workflow makes.")
    checkpoints: Folder = Field("checkpoints", description="Folder of downloaded checkpoints.")
    volumes: PathText = Field(
        "config/volumes.tsv", description="Sample sheet: volume, image, reference, group, clicks, series."
    )
    clicks: PathText | None = Field(None, description="Table of clicks: volume, structure, slice, x, y.")
    shards: int = Field(16, ge=1, description="Jobs per stage and model.")
    max_failed_fraction: float = Field(
        0.0, ge=0, le=1, description="Share of failed volume-configuration pairs above which the run ends in an error."
    )
    on_invalid: Literal["stop", "skip"] = Field(
        "stop",
        description="stop: nothing starts while a volume's files have faults; skip: such volumes are recorded as "
        "failed, and do not count towards max_failed_fraction.",
    )
    frames: Frames = Frames()
    references: References = References()
    ignore: Ignore = Ignore()
    structures: dict[Name, Structure] = Field(min_length=1)
    schemes: dict[Name, Scheme] = Field(min_length=1)
    models: dict[Name, Model] = Field(min_length=1)
    experiments: dict[Name, Experiment] = Field(min_length=1)
    inference: Inference = Inference()
    scores: Scores = Scores()
    comparisons: Comparisons = Comparisons()
    report: Report = Report()

    @property
    def scored_structures(self) -> list[str]:
        """Names of the structures that are segmented and scored, in order."""
        return [name for name, structure in self.structures.items() if structure.scored]

    @property
    def used_schemes(self) -> dict[str, Scheme]:
        """The schemes of the experiments, in the order of `schemes`."""
        used = {name for experiment in self.experiments.values() for name in experiment.schemes}
        return {name: scheme for name, scheme in self.schemes.items() if name in used}


def json_schema() -> str:
    """The configuration's JSON schema, as text for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Settings.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"
