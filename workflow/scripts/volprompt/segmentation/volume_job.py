"""One volume's work in a segmentation job: its prompts, its frames, its masks and its rows of the run table."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from volprompt.errors import comes_from_the_machine
from volprompt.logs import logger
from volprompt.prompts.available import frame_grid
from volprompt.prompts.schemes import (
    ObjectPrompt,
    SchemePrompts,
    present_slices,
    scheme_prompts,
    with_masks,
    with_spread_points,
)
from volprompt.segmentation.masks import mask_path, rounds_path, write_bits, write_rounds
from volprompt.segmentation.runs import confidence_rows, failed_run, peak_memory, run_row
from volprompt.settings.config import Inference
from volprompt.settings.schemes import Scheme
from volprompt.volumes.converted import grid_of_row, read_frames, read_reference
from volprompt.volumes.references import structure_mask

if TYPE_CHECKING:
    from volprompt.models.model import Model
    from volprompt.models.rounds import CorrectionReference
    from volprompt.models.segmented import LoadedVolume, Segmented

# Masks of a volume that are compressed at the same time.
WRITERS = 2


@dataclass(frozen=True, kw_only=True)
class JobSettings:
    """What is the same for every volume of a job.

    volumes_folder: the converted shard; masks_folder: where masks go; labels: label numbers of every configured
    structure, in order; scored: the structures that are segmented unless a scheme says otherwise; ignored: label
    numbers of voxels that no score counts.
    """

    volumes_folder: Path
    masks_folder: Path
    model: Model
    schemes: Mapping[str, Scheme]
    labels: Mapping[str, Sequence[int]]
    scored: Sequence[str]
    inference: Inference
    ignored: Sequence[int] = ()

    def objects_of(self, scheme: str) -> Sequence[str]:
        """Names of the structures that a scheme segments."""
        return self.schemes[scheme].structures or self.scored


@dataclass
class VolumeJob:
    """A volume on its way through a job.

    row: its row of the volume table.
    asked: what each scheme asks.
    prompts: per scheme that has any.
    runs: its rows of the run table.
    size: height and width of a frame.
    masks: bits per scheme and structure, once segmented.
    rounds: of schemes with corrections the bits of each round per structure.
    clicks: the correction clicks, rows of `corrections.parquet`.
    confidence: rows of `confidence.parquet`.
    present: for each structure the slices that the reference shows it on, bool (slice,).
    """

    settings: JobSettings
    row: Any
    asked: dict[str, SchemePrompts] = field(default_factory=dict)
    prompts: dict[str, list[ObjectPrompt]] = field(default_factory=dict)
    runs: list[dict[str, Any]] = field(default_factory=list)
    size: tuple[int, int] = (0, 0)
    masks: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    rounds: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    clicks: list[dict[str, Any]] = field(default_factory=list)
    confidence: list[pd.DataFrame] = field(default_factory=list)
    present: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def of_row(cls, settings: JobSettings, row: Any, candidates: pd.DataFrame) -> VolumeJob:
        """Choose the volume's prompts per scheme; one under which nothing can be prompted gets a failed row.

        candidates: the volume's rows of the prompt table.
        """
        job = cls(settings, row)
        frame = frame_grid(grid_of_row(row))
        structures = list(settings.labels)
        for name, scheme in settings.schemes.items():
            asked = scheme_prompts(scheme, candidates, structures, settings.scored, job.depth, frame)
            job.asked[name] = asked
            for structure, reason in asked.unprompted.items():
                logger.error("NOT PROMPTED: volume %s, scheme %s, %s: %s", job.name, name, structure, reason)
            if asked.prompts or not asked.unprompted:
                job.prompts[name] = asked.prompts
            else:
                reasons = "; ".join(dict.fromkeys(asked.unprompted.values()))
                job.runs.append(failed_run(job.name, name, f"{job.name}: {reasons}"))
        job.present = {name: present_slices(candidates, name, job.depth) for name in structures}
        return job

    @property
    def name(self) -> str:
        """The volume."""
        return str(self.row.volume)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.row.shape[0])

    @property
    def carried_objects(self) -> int:
        """Number of objects that are carried through the volume, slice by slice."""
        return sum(
            len({prompt.structure for prompt in prompts})
            for name, prompts in self.prompts.items()
            if not self.settings.schemes[name].prompts_every_slice
        )

    def read(self) -> tuple[LoadedVolume, float]:
        """Read and prepare the frames; return them with the seconds that it took."""
        from volprompt.models.segmented import LoadedVolume

        started = time.perf_counter()
        frames = read_frames(self.settings.volumes_folder, self.name)
        self.size = frames.shape[1:]
        schemes = [self.settings.schemes[name] for name in self.prompts]
        read = any(scheme.mask or scheme.points > 1 or scheme.corrections for scheme in schemes)
        reference = read_reference(self.settings.volumes_folder, self.name) if read else None
        self._add_masks(reference)
        volume = LoadedVolume(
            self.name,
            self.settings.model.prepare(frames),
            self.size,
            self.prompts,
            reference=self._correction_reference(reference) if any(one.corrections for one in schemes) else None,
            spacing=grid_of_row(self.row).spacing,
        )
        return volume, time.perf_counter() - started

    def _add_masks(self, reference: np.ndarray | None) -> None:
        """Give prompts what the reference alone can tell: masks, and points beyond the first one."""
        if reference is None:
            return
        labels, spacing = self.settings.labels, frame_grid(grid_of_row(self.row)).spacing
        for name, prompts in self.prompts.items():
            scheme = self.settings.schemes[name]
            if scheme.mask:
                self.prompts[name] = with_masks(prompts, reference, labels)
            elif scheme.points > 1:
                self.prompts[name] = with_spread_points(prompts, scheme.points, reference, labels, spacing)

    def _correction_reference(self, reference: np.ndarray | None) -> CorrectionReference:
        """What the correction clicks of the schemes are made from. reference: label map (slice, y, x)."""
        from volprompt.models.rounds import CorrectionReference

        assert reference is not None, "schemes with corrections are left out without a reference"
        ignored = self.settings.ignored
        prompted = {
            prompt.structure
            for name, prompts in self.prompts.items()
            for prompt in prompts
            if self.settings.schemes[name].corrections
        }
        return CorrectionReference(
            masks={name: _packed(structure_mask(reference, self.settings.labels[name])) for name in sorted(prompted)},
            spacing=grid_of_row(self.row).spacing,
            ignored=_packed(structure_mask(reference, ignored)) if ignored else None,
        )

    def take(self, segmented: Segmented, seconds_read: float) -> None:
        """Keep what the engine made of the volume, and begin its rows of the run table."""
        self.masks, self.rounds = segmented.masks, segmented.rounds
        for name, made in segmented.clicks.items():
            self.clicks += [{"volume": self.name, "scheme": name, **click._asdict()} for click in made]
        for name, of_scheme in segmented.confidence.items():
            for structure, found in of_scheme.items():
                rows = confidence_rows(found.predicted_iou, found.object_score)
                self.confidence.append(rows.assign(volume=self.name, scheme=name, structure=structure))
        for name, prompts in self.prompts.items():
            seconds = {
                "read": seconds_read,
                "encode": segmented.seconds_encode,
                "prompt": segmented.seconds_prompt[name],
            }
            seconds_rounds = segmented.seconds_rounds.get(name, [])
            clicked = [click.structure for click in segmented.clicks.get(name, [])]
            asked = self.asked[name]
            self.runs.append(run_row(self.name, name, self.depth, prompts, asked, seconds, seconds_rounds, clicked))

    def fail(self, error: Exception) -> None:
        """Record that nothing could be segmented, for an unforeseen reason.

        What is the machine's fault and not the volume's is raised again: another attempt of the job may succeed.
        """
        if comes_from_the_machine(error):
            raise error
        logger.error("FAILED: volume %s", self.name, exc_info=error)
        reason = f"{self.name}: {type(error).__name__}: {error}"
        self.runs += [failed_run(self.name, scheme, reason) for scheme in self.prompts]
        self.prompts = {}

    def write(self) -> dict[str, float]:
        """Write the masks and let go of them; return the seconds per scheme, of all writers together."""
        files = [
            (name, structure)
            for name in self.masks
            for structure in self.settings.objects_of(name)
            if structure not in self.asked[name].unprompted
        ]
        with ThreadPoolExecutor(WRITERS, "write") as pool:
            spent = list(pool.map(lambda file: self._write_structure(*file), files))
        seconds = dict.fromkeys(self.masks, 0.0)
        for (name, _), of_file in zip(files, spent, strict=True):
            seconds[name] += of_file
        self.masks, self.rounds = {}, {}
        return seconds

    def _write_structure(self, scheme: str, structure: str) -> float:
        """Write the mask of a structure, and those of its rounds; return the seconds."""
        started = time.perf_counter()
        place, grid = (self.settings.masks_folder, scheme, self.name, structure), grid_of_row(self.row)
        write_bits(self._bits(scheme, structure, self.masks[scheme].get(structure)), grid, mask_path(*place))
        if structure in self.rounds.get(scheme, {}):
            rounds = [self._bits(scheme, structure, bits) for bits in self.rounds[scheme][structure]]
            write_rounds(rounds, grid, rounds_path(*place))
        return time.perf_counter() - started

    def _bits(self, scheme: str, structure: str, bits: np.ndarray | None) -> np.ndarray:
        """The mask to write, uint8 (slice, y, ceil(x / 8)). bits: None for an absent structure, whose mask is empty."""
        if bits is None:
            return np.zeros((self.depth, self.size[0], -(-self.size[1] // 8)), np.uint8)
        if self.settings.schemes[scheme].presence:
            return np.where(self.present[structure][:, None, None], bits, 0).astype(np.uint8)
        return bits

    def complete_rows(self, seconds_write: Mapping[str, float]) -> None:
        """Add to the rows of the run table what is known once the masks are written."""
        for row in self.runs:
            if row["scheme"] in seconds_write:
                row["seconds_write"] = seconds_write[row["scheme"]]
                row["seconds"] += seconds_write[row["scheme"]]
                row["slices_per_second"] = row["slices"] / row["seconds"]
            row.update(peak_memory())


def _packed(mask: np.ndarray) -> np.ndarray:
    """A mask, bool (slice, y, x), as bits, uint8 (slice, y, ceil(x / 8))."""
    return np.packbits(mask, axis=-1)
