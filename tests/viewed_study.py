"""A small study on disk for the viewer: two boxes, `femur` and `tibia`, in noise; predictions shifted by volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd

from volprompt.files import join_tables, write_table
from volprompt.prompts.candidates import extract_shard
from volprompt.report.shards import ShardFiles, StudyDesign
from volprompt.scores.rounds import ROUND_COLUMNS
from volprompt.segmentation.masks import mask_path, rounds_path, write_mask, write_rounds
from volprompt.segmentation.runs import CLICK_COLUMNS
from volprompt.settings.schemes import Scheme
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import grid_of_row, read_volume_table

STRUCTURES = {"femur": [1], "tibia": [3]}
SCHEMES = {
    "box": Scheme(predictor="image", box=True),
    "clicks": Scheme(predictor="video", slice="nearest", point=["centroid"], negatives="others"),
}
CORRECTED = {
    "corrected": Scheme(predictor="video", slice="nearest", point=["centroid"], corrections={"clicks": 2}),
}
# Of every volume: round, structure, slice, x, y and label.
CLICKS = [(1, "femur", 10, 14, 18, 1), (1, "tibia", 7, 35, 40, 0), (2, "femur", 12, 37, 20, 0)]
SHAPE = (20, 60, 48)  # slice, y, x
SPACING = (3.0, 1.0, 1.5)
FEMUR = (slice(5, 15), slice(10, 26), slice(12, 36))
TIBIA = (slice(6, 14), slice(30, 50), slice(14, 34))


def masks(shift: int = 0, overrun: int = 0) -> dict[str, np.ndarray]:
    """The two boxes, bool (slice, y, x), moved by `shift` pixels along x and going on for `overrun` slices."""
    made = {}
    for name, box in (("femur", FEMUR), ("tibia", TIBIA)):
        mask = np.zeros(SHAPE, dtype=bool)
        mask[slice(box[0].start, box[0].stop + overrun), *box[1:]] = True
        made[name] = np.roll(mask, shift, axis=2)
    return made


class Study:
    """The study's score table, files and design. Volume number k is predicted k pixels off, all of them
    for `overrun` slices too many; the `bare` ones have no reference.

    The `corrected` scheme has two rounds of corrections. The femur is predicted 4 and 2 pixels farther off in rounds 0
    and 1. The tibia needs one click: it is 4 pixels farther off in round 0, and has no round 2."""

    def __init__(
        self,
        folder: Path,
        volumes: Sequence[str] = ("a", "b", "c"),
        bare: Sequence[str] = (),
        overrun: int = 0,
        corrected: bool = False,
    ) -> None:
        self.folder = folder
        schemes = SCHEMES | (CORRECTED if corrected else {})
        rows = []
        for number, name in enumerate([*volumes, *bare]):
            self._write(number, name)
            reference = "" if name in bare else str(folder / f"{number}_labels.nii")
            image = str(folder / f"{number}_image.nii")
            rows.append({"volume": name, "image": image, "reference": reference})
        frames = {"axis": "sagittal", "intensity_percentiles": [0.5, 99.5], "coding": "lossless"}
        convert_shard(rows, frames, STRUCTURES, folder / "volumes" / "000")
        clicks = [
            {"volume": name, "structure": s, "slice": 10, "x": 20, "y": y}
            for name in bare
            for s, y in (("femur", 15), ("tibia", 40))
        ]
        extract_shard(folder / "volumes" / "000", STRUCTURES, clicks, folder / "prompts.parquet")
        self.masks = folder / "masks"
        scores = []
        for number, row in enumerate(read_volume_table(folder / "volumes" / "000").itertuples()):
            for scheme in schemes:
                for name, mask in masks(number, overrun).items():
                    write_mask(mask, grid_of_row(row), mask_path(self.masks, scheme, row.volume, name))
                dice = float("nan") if row.volume in bare else 1 - number / 20
                status = "no_reference" if row.volume in bare else "ok"
                scores += [
                    {
                        "experiment": "e",
                        "model": "m",
                        "scheme": scheme,
                        "volume": row.volume,
                        "structure": structure,
                        "dice": dice,
                        "status": status,
                    }
                    for structure in ("femur", "tibia", "combined", "union", "mean")
                ]
        self.scores = pd.DataFrame(scores)
        if corrected:
            self._write_rounds()
        rounds = {("e", "m"): str(folder / "000_rounds.parquet")} if corrected else {}
        jobs = {("e", "m"): str(self.masks)}
        self.shards = [ShardFiles(str(folder / "volumes" / "000"), str(folder / "prompts.parquet"), jobs, rounds)]
        self.design = StudyDesign(STRUCTURES, ["femur", "tibia"], schemes, {"e": (["m"], list(schemes))})

    def _write_rounds(self) -> None:
        """Masks, clicks and scores of the rounds; the Dice values of round r are 1 - number / 20 - (2 - r) / 10."""
        clicks, scores = [], []
        for number, row in enumerate(read_volume_table(self.folder / "volumes" / "000").itertuples()):
            of_rounds = {"femur": (number + 4, number + 2, number), "tibia": (number + 4, number)}
            for name, shifts in of_rounds.items():
                path = rounds_path(self.masks, "corrected", row.volume, name)
                write_rounds([np.packbits(masks(shift)[name], axis=-1) for shift in shifts], grid_of_row(row), path)
            named = {"volume": row.volume, "scheme": "corrected"}
            keys = ("round", "structure", "slice", "x", "y", "label")
            clicks += [named | dict(zip(keys, click, strict=True)) for click in CLICKS]
            scores += [
                named | {"structure": name, "round": made, "dice": 1 - number / 20 - (2 - made) / 10}
                for made in range(3)
                for name in ("femur", "tibia", "combined")
            ]
        write_table(join_tables([pd.DataFrame(clicks)], CLICK_COLUMNS), self.masks / "corrections.parquet")
        table = pd.DataFrame(scores).assign(experiment="e", model="m", prompts=1)
        write_table(join_tables([table], ROUND_COLUMNS), self.folder / "000_rounds.parquet")

    def _write(self, number: int, name: str) -> None:
        noise = np.random.default_rng(number).integers(0, 60, SHAPE)
        labels = np.zeros(SHAPE, dtype=np.uint8)
        for (label,), mask in zip(STRUCTURES.values(), masks().values(), strict=True):
            labels[mask] = label
        image = (noise + 120 * (labels > 0)).astype(np.int16)
        # Axes of the frames: slices towards the right, y downwards, x backwards.
        affine = np.array(
            [[SPACING[0], 0, 0, 0], [0, 0, -SPACING[2], 0], [0, -SPACING[1], 0, 0], [0, 0, 0, 1]], dtype=float
        )
        nib.save(nib.Nifti1Image(image, affine), self.folder / f"{number}_image.nii")
        nib.save(nib.Nifti1Image(labels, affine), self.folder / f"{number}_labels.nii")
