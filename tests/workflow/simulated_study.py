"""A simulated full study, for tests of scale alone: `python tests/workflow/simulated_study.py [folder]`.

No model runs and no image exists. Score, slice, run and volume tables of the paper's 18 configurations on 488 volumes
are drawn from the model below with a fixed seed, and go through the real aggregation and the real report, which says
SIMULATED on every page and figure. Prints the time, the memory and the size of the page.

The model. A structure is an ellipsoid of random size around a middle slice. On a slice at distance t from the prompted
one (in half-widths of the structure) the Dice is logistic(quality + ease + noise - decay * t ** 2): `quality` belongs
to the configuration and the structure, `ease` to the volume and is shared by all configurations, and `decay` is 0 for
image schemes. Video schemes run on beyond the structure for a geometric number of slices. In 2 of 100 volumes a video
scheme loses a structure on its way. Scores of volumes are sums over their slices; surface scores are smooth functions
of Dice.
"""

from __future__ import annotations

import datetime
import json
import resource
import sys
import tempfile
import time
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from volprompt.files import join_tables, write_table
from volprompt.identity import write_identity
from volprompt.report.page import write_report
from volprompt.report.shards import StudyDesign, group_by_shard
from volprompt.scores.rounds import ROUND_COLUMNS
from volprompt.settings.config import Settings
from volprompt.settings.reading import read_settings
from volprompt.study.study import shard_of
from volprompt.tables.aggregate import aggregate
from volprompt.tables.design import TableDesign

REPOSITORY = Path(__file__).parents[2]
STAMP = "SIMULATED"
DEPTH, SPACING = 160, (0.7, 0.365, 0.365)
VOXEL_MM3 = float(np.prod(SPACING))
AREA = {"femur": 9500.0, "tibia": 7500.0}
HALF_WIDTH = 52
QUALITY = {"point": 1.9, "box": 2.6, "point_video": 2.2, "three_points_video": 3.0}
GAIN = {"tibia": 0.35, "femur": 0.0}
DECAY = {"point": 0.0, "box": 0.0, "point_video": 1.1, "three_points_video": 0.7}
# Parameters, and seconds of encoding a volume.
SIZES = {
    "sam_vit_b": (93_735_472, 24.0),
    "sam_vit_l": (312_342_832, 52.0),
    "sam_vit_h": (641_090_608, 90.0),
    "sam2_hiera_tiny": (38_945_986, 3.4),
    "sam2_hiera_small": (46_043_842, 4.1),
    "sam2_hiera_base_plus": (80_833_666, 6.3),
    "sam2_hiera_large": (224_430_130, 12.5),
}


@dataclass(frozen=True)
class Simulated:
    """Where a simulated study's tables lie."""

    folder: Path
    design: StudyDesign
    every_slice_schemes: list[str]
    shards: list[str]
    covariates: dict[str, dict[str, str]]

    @property
    def jobs(self) -> list[tuple[str, str, str]]:
        """Experiment, model and shard of every job."""
        experiments = self.design.experiments.items()
        return [(e, m, s) for e, (models, _) in experiments for m in models for s in self.shards]

    def aggregate(self) -> None:
        """Write the study's tables from those of its jobs, as the workflow does."""
        scores = [self.folder.joinpath("scores", e, m, f"{s}.parquet") for e, m, s in self.jobs]
        for path in scores:
            write_identity(path, {}, {})
        aggregate(
            scores=scores,
            slices=[self.folder.joinpath("scores", e, m, f"{s}_slices.parquet") for e, m, s in self.jobs],
            rounds=[self.folder.joinpath("scores", e, m, f"{s}_rounds.parquet") for e, m, s in self.jobs],
            masks=[self.folder.joinpath("masks", *job) for job in self.jobs],
            volumes=[self.folder / "volumes" / shard for shard in self.shards],
            design=TableDesign(
                scored=self.design.scored,
                every_slice_schemes=self.every_slice_schemes,
                groups=self.design.groups,
                covariates=self.covariates,
                baseline=("sam_vit_b", "box"),
                margin=0.02,
            ),
            tables=self.folder / "tables",
        )

    def report(self, **changes: Any) -> Path:
        """Write the page, stamped; changes: other arguments of `write_report`."""
        page = self.folder / "report" / "index.html"
        arguments: dict[str, Any] = {
            "aggregated": self.folder / "tables",
            "shards": group_by_shard(
                [str(self.folder / "volumes" / shard) for shard in self.shards],
                [str(self.folder / "prompts" / f"{shard}.parquet") for shard in self.shards],
                [str(self.folder.joinpath("masks", *job)) for job in self.jobs],
            ),
            "design": self.design,
            "title": "SAM 1 and SAM 2 on knees",
            "description": "No model ran and no image exists: all numbers are drawn at random, to test the page.",
            "example": None,
            "compare_with": "oai-zib",
            "print_formats": (),
            "show_volumes": False,
            "stamp": STAMP,
            "today": datetime.date(2025, 1, 1),
            "page": page,
        }
        write_report(**arguments | changes)
        return page


def simulate(
    folder: Path,
    volumes: int = 488,
    shards: int = 16,
    seed: int = 0,
    prefix: str = "knee",
    experiments: Sequence[str] = ("sam1", "sam2"),
) -> Simulated:
    """Draw the tables of the paper's experiments, or of some of them, on so many volumes into `folder`."""
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    config["experiments"] = {name: config["experiments"][name] for name in experiments}
    settings = read_settings(config)
    random = np.random.default_rng(seed)
    names = [f"{prefix}_{number:04d}" for number in range(volumes)]
    sheet = pd.DataFrame({"volume": names, "shard": [shard_of(name, shards) for name in names]})
    groups = {name: f"subject_{2 * number // 3:04d}" for number, name in enumerate(names)}
    sheet["status"], sheet["reference"] = "ok", "masks.nii.gz"
    broken, unknown = volumes // 160, volumes // 240
    sheet.loc[sheet.index[:broken], "status"] = "failed"
    sheet.loc[sheet.index[broken : broken + unknown], "reference"] = ""
    sheet["ease"] = random.normal(0, 0.45, volumes)
    study = Simulated(
        folder,
        design_of(settings, groups),
        every_slice_schemes_of(settings),
        sorted(sheet["shard"].unique()),
        {"side": {name: "left" if number % 2 else "right" for number, name in enumerate(names)}},
    )
    for shard, part in sheet.groupby("shard"):
        write_volumes(folder / "volumes" / str(shard), part)
    shapes = {structure: draw_shapes(random, volumes, area) for structure, area in AREA.items()}
    for experiment, (models, schemes) in study.design.experiments.items():
        for model in models:
            write_model(folder, experiment, model, schemes, sheet, shapes, random)
    return study


def design_of(settings: Settings, groups: dict[str, str]) -> StudyDesign:
    """What the report has to know of the paper's configuration."""
    structures = settings.structures.items()
    return StudyDesign(
        labels={name: structure.labels for name, structure in structures},
        scored=[name for name, structure in structures if structure.scored],
        schemes=settings.schemes,
        experiments={name: (parts.models, parts.schemes) for name, parts in settings.experiments.items()},
        groups=groups,
        models={
            name: {"family": model.family, "architecture": model.architecture}
            for name, model in settings.models.items()
        },
        frames=settings.frames,
        inference=settings.inference,
        scores=settings.scores,
    )


def every_slice_schemes_of(settings: Settings) -> list[str]:
    return [name for name, scheme in settings.schemes.items() if scheme.prompts_every_slice]


def write_volumes(folder: Path, part: pd.DataFrame) -> None:
    """The volume table of a shard."""
    table = part[["volume", "status", "reference"]].assign(
        reason=np.where(part["status"] == "failed", "the image is not a 3D volume: its shape is 384 x 384", ""),
        source=[f"data/knees/{name}.nii.gz" for name in part["volume"]],
        shape=[[DEPTH, 384, 384]] * len(part),
        spacing=[list(SPACING)] * len(part),
        warnings=[[] for _ in range(len(part))],
    )
    write_table(table, folder / "volumes.parquet")


def draw_shapes(random: np.random.Generator, volumes: int, area: float) -> np.ndarray:
    """Reference pixels, (volumes, slices): ellipsoids of random size around a random middle."""
    half = HALF_WIDTH * random.normal(1, 0.08, (volumes, 1))
    middle = DEPTH / 2 + random.normal(0, 3, (volumes, 1))
    place = (np.arange(DEPTH) - middle) / half
    size = area * random.lognormal(0, 0.12, (volumes, 1))
    return np.rint(size * np.clip(1 - place**2, 0, None) ** 0.5).astype(np.int64)


def write_model(
    folder: Path,
    experiment: str,
    model: str,
    schemes: Sequence[str],
    sheet: pd.DataFrame,
    shapes: dict[str, np.ndarray],
    random: np.random.Generator,
) -> None:
    """Score, slice and run tables of a model on every shard."""
    scores, slices, runs = [], [], []
    for scheme in schemes:
        ran = (sheet["status"] == "ok").to_numpy()
        ran = ran & ~((scheme == "three_points_video") & (sheet.index.to_numpy() % 97 == 96))
        runs.append(draw_runs(model, scheme, sheet, ran, random))
        counts = {name: draw_slices(model, scheme, name, shapes[name], sheet, random) for name in shapes}
        named = {"experiment": experiment, "model": model, "scheme": scheme}
        found = score_table(counts, scheme).assign(**named)
        found["volume"] = np.tile(sheet["volume"].to_numpy(), len(found) // len(sheet))
        status = np.where(ran, np.where(sheet["reference"] == "", "no_reference", "ok"), "failed")
        found["status"] = np.tile(status, len(found) // len(sheet))
        numbers = [column for column in found if found[column].dtype == float]
        found.loc[found["status"] != "ok", numbers] = np.nan
        scores.append(found)
        slices.append(slice_table(counts, sheet, status == "ok", "video" in scheme).assign(**named))
    shards = sheet.set_index("volume")["shard"]
    for kind, parts, end in (("scores", scores, ".parquet"), ("scores", slices, "_slices.parquet")):
        whole = pd.concat(parts, ignore_index=True)
        for shard, part in whole.groupby(whole["volume"].map(shards)):
            write_table(part, folder / kind / experiment / model / f"{shard}{end}")
    whole = pd.concat(runs, ignore_index=True)
    for shard, part in whole.groupby(whole["volume"].map(shards)):
        write_table(part, folder.joinpath("masks", experiment, model, str(shard), "run.parquet"))
        write_table(join_tables([], ROUND_COLUMNS), folder / "scores" / experiment / model / f"{shard}_rounds.parquet")


def draw_slices(
    model: str, scheme: str, structure: str, reference: np.ndarray, sheet: pd.DataFrame, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Pixel counts of every slice, (volumes, slices): intersection, predicted, reference."""
    video = "video" in scheme
    size = list(SIZES).index(model) % 3
    count = len(sheet)
    middle = DEPTH // 2
    distance = np.abs(np.arange(DEPTH) - middle) / HALF_WIDTH
    lost = random.random((count, 1)) < 0.02 * video
    quality = QUALITY[scheme] + GAIN[structure] + 0.12 * size + sheet["ease"].to_numpy()[:, None]
    quality = quality + random.normal(0, 0.25, (count, 1)) + random.normal(0, 0.15, reference.shape)
    dice = 1 / (1 + np.exp(-(quality - DECAY[scheme] * distance**2 - 4 * lost * (distance > 0.4))))
    shown = reference > 0
    predicted = np.rint(reference * random.normal(1.01, 0.03, reference.shape).clip(0.5)).astype(np.int64)
    if video:
        beyond = random.geometric(0.35, (count, 2)) - 1
        first, last = shown.argmax(axis=1), DEPTH - 1 - shown[:, ::-1].argmax(axis=1)
        index = np.arange(DEPTH)
        before = (index >= (first - beyond[:, 0])[:, None]) & (index < first[:, None])
        after = (index <= (last + beyond[:, 1])[:, None]) & (index > last[:, None])
        predicted = np.where(before | after, random.integers(100, 1500, reference.shape), predicted)
    intersection = np.minimum(np.rint(dice * (predicted + reference) / 2), np.minimum(predicted, reference))
    return {"intersection": intersection.astype(np.int64) * shown, "predicted": predicted, "reference": reference}


def score_table(counts: dict[str, dict[str, np.ndarray]], scheme: str) -> pd.DataFrame:
    """Scores of every volume, structure after structure, then combined, union and mean."""
    whole = {
        key: np.concatenate([parts[key] for parts in counts.values()], axis=1)
        for key in ("intersection", "predicted", "reference")
    }
    video = "video" in scheme
    tables = [scores_of(parts, video).assign(structure=name) for name, parts in counts.items()]
    mean = pd.DataFrame({"dice": np.mean([table["dice"] for table in tables], axis=0), "structure": "mean"})
    combined = scores_of(whole, video).assign(structure="combined")
    union = combined.assign(structure="union", dice_where_present=np.nan, dice_prompted=np.nan)
    return pd.concat([*tables, combined, union, mean], ignore_index=True)


def scores_of(counts: dict[str, np.ndarray], video: bool) -> pd.DataFrame:
    """Scores of volumes from their slices' counts, (volumes, slices)."""
    shown = counts["reference"] > 0
    sums = {key: values.sum(axis=1) for key, values in counts.items()}
    dice = 2 * sums["intersection"] / (sums["predicted"] + sums["reference"])
    inside = (counts["predicted"] * shown).sum(axis=1)
    middle = slice(DEPTH // 2, None, DEPTH)
    prompted = {key: values[:, middle].sum(axis=1) for key, values in counts.items()}
    on_prompted = 2 * prompted["intersection"] / (prompted["predicted"] + prompted["reference"])
    return pd.DataFrame(
        {
            "dice": dice,
            "nsd": dice**4,
            "hd95_mm": 0.5 + 40 * (1 - dice) ** 1.2,
            "assd_mm": 0.1 + 12 * (1 - dice),
            "tolerance_mm": 1.0,
            "volume_mm3": sums["predicted"] * VOXEL_MM3,
            "reference_mm3": sums["reference"] * VOXEL_MM3,
            "over_propagation": (sums["predicted"] - inside) / sums["reference"],
            "dice_where_present": 2 * sums["intersection"] / (inside + sums["reference"]),
            "dice_prompted": on_prompted if video else np.nan,
            "volume_error": sums["predicted"] / sums["reference"] - 1,
            "predicted_iou": 1 - 0.8 * (1 - dice),
            "object_score": np.nan,
        }
    )


def slice_table(
    counts: dict[str, dict[str, np.ndarray]], sheet: pd.DataFrame, kept: np.ndarray, video: bool
) -> pd.DataFrame:
    """One row per structure, scored volume and slice."""
    names = sheet["volume"].to_numpy()[kept]
    parts = []
    for structure, values in counts.items():
        table = pd.DataFrame({key: found[kept].ravel() for key, found in values.items()})
        table["slice"] = np.tile(np.arange(DEPTH, dtype=np.int32), len(names))
        table["volume"], table["structure"] = np.repeat(names, DEPTH), structure
        parts.append(table)
    whole = pd.concat(parts, ignore_index=True)
    distance = (whole["slice"] - DEPTH // 2).astype("Int32")
    return whole.assign(distance=distance if video else pd.array([None] * len(whole), dtype="Int32"))


def draw_runs(
    model: str, scheme: str, sheet: pd.DataFrame, ran: np.ndarray, random: np.random.Generator
) -> pd.DataFrame:
    """The run table's rows of a configuration."""
    converted = (sheet["status"] == "ok").to_numpy()
    parameters, encode = SIZES[model]
    prompt = {"point": 1.8, "box": 1.9, "point_video": 7.5, "three_points_video": 7.9}[scheme]
    count = len(sheet)
    table = pd.DataFrame(
        {
            "volume": sheet["volume"],
            "scheme": scheme,
            "status": np.where(ran, "ok", "failed"),
            "stage": "segment",
            "reason": np.where(ran, "", "slice 80 has no point (click or centroid) for 'patella'"),
            "no_prompt": "{}",
            "prompts": {"point": 208, "box": 208, "point_video": 2, "three_points_video": 6}[scheme],
            "prompts_of": json.dumps(
                dict.fromkeys(AREA, {"point": 104, "box": 104, "point_video": 1, "three_points_video": 3}[scheme])
            ),
            "human_prompts": {"point": 208, "box": 208, "point_video": 2, "three_points_video": 3}[scheme],
            "seconds_encode": encode * random.lognormal(0, 0.03, count),
            "seconds_prompt": prompt * random.lognormal(0, 0.05, count),
            "peak_memory_mb": 3_200.0,
            "peak_gpu_memory_mb": 900 + parameters / 1e5,
            "model": model,
            "parameters": parameters,
            "device": "no device (simulated)",
            "precision": "bfloat16",
            "checkpoint_sha256": f"{zlib.crc32(model.encode()):064x}",
            "versions": json.dumps({"volprompt": "simulated"}),
        }
    )
    table["seconds"] = table["seconds_encode"] + table["seconds_prompt"] + 0.6
    table["slices_per_second"] = DEPTH / table["seconds"]
    return table[converted]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(name)
        watch = [time.perf_counter()]
        study = simulate(folder)
        watch.append(time.perf_counter())
        study.aggregate()
        watch.append(time.perf_counter())
        page = study.report()
        watch.append(time.perf_counter())
        steps = zip(("drawing", "tables", "report"), np.diff(watch), strict=True)
        print(", ".join(f"{step} {seconds:.1f} s" for step, seconds in steps))
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"peak memory {memory:.0f} MB, page {page.stat().st_size / 1e6:.2f} MB: {page}")


if __name__ == "__main__":
    main()
