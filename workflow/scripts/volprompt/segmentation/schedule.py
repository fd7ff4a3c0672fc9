"""The schedule of a segmentation job: which volumes are taken together, read ahead, segmented, and written behind."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from volprompt.errors import is_memory_fault
from volprompt.logs import PROGRESS, duration, logger
from volprompt.segmentation.background import StoreBehind, load_ahead
from volprompt.segmentation.volume_job import JobSettings, VolumeJob

if TYPE_CHECKING:
    from volprompt.models.segmented import LoadedVolume

# Groups of volumes whose masks wait to be written, or are being written, while the next group is segmented.
GROUPS_TO_WRITE = 2
# Volumes whose masks are written at the same time.
VOLUMES_WRITTEN = 4
# Seconds between two log lines on the progress within volumes.
PROGRESS_SECONDS = 30
# Per volume what was read of it, with the seconds that it took, or why it could not be read.
Loaded = Mapping[str, "tuple[LoadedVolume, float] | Exception"]


class Schedule:
    """Takes a shard's volumes through a job."""

    def __init__(self, settings: JobSettings) -> None:
        self.settings = settings
        model, inference = settings.model, settings.inference
        on_gpu = model.device.type == "cuda"
        # On a CPU a batch of large images is no faster than one after another, and takes more memory.
        in_batches = on_gpu or model.image_size <= 512
        self.batch_size = inference.batch_size or (8 if in_batches else 1)
        self.objects_together = inference.objects_together or (16 if in_batches else 1)
        logger.info("Slices encoded together: %d; objects tracked together: %d", self.batch_size, self.objects_together)

    def run(self, ready: pd.DataFrame, candidates: pd.DataFrame) -> Iterator[VolumeJob]:
        """Segment the volumes, with the next ones read ahead and the masks written behind.

        ready: their rows of the volume table; candidates: the shard's prompt table. Yields each volume once its masks
        are written.
        """
        by_volume = dict(tuple(candidates.groupby("volume")))
        jobs = [
            VolumeJob.of_row(self.settings, row, by_volume.get(row.volume, candidates.iloc[:0]))
            for row in ready.itertuples()
        ]
        finished: list[VolumeJob] = []

        def complete(job: VolumeJob, seconds: dict[str, float]) -> None:
            job.complete_rows(seconds)
            finished.append(job)

        groups = list(self.groups(jobs))
        room = GROUPS_TO_WRITE * max(map(len, groups))
        with StoreBehind(VolumeJob.write, complete, room, min(room, VOLUMES_WRITTEN)) as behind:
            for group, loaded in load_ahead(groups, read_group):
                self.segment(group, loaded)
                for job in group:
                    behind.add(job)
                yield from _drained(finished)
        yield from _drained(finished)

    def groups(self, jobs: Iterable[VolumeJob]) -> Iterator[list[VolumeJob]]:
        """Groups of volumes with enough carried objects for a good batch."""
        group: list[VolumeJob] = []
        for job in jobs:
            group.append(job)
            if sum(job.carried_objects for job in group) >= self.objects_together or not job.carried_objects:
                yield group
                group = []
        if group:
            yield group

    def segment(self, group: Sequence[VolumeJob], loaded: Loaded) -> None:
        """Segment a group's volumes in lockstep; if that fails, one after another, to find out which it was.

        Where memory is too small for a single one, batches are halved, for the volumes behind it too.
        """
        for job in group:
            if isinstance(error := loaded.get(job.name), Exception):
                job.fail(error)
        present = [job for job in group if job.prompts]
        if not present:
            return
        failure = self._failure(present, loaded)
        if failure is None:
            return
        if len(present) == 1:
            while failure is not None and is_memory_fault(failure) and self._halve_batches():
                failure = self._failure(present, loaded)
            if failure is not None:
                present[0].fail(failure)
            return
        logger.warning("%s: %s; once more, one volume at a time", ", ".join(job.name for job in present), failure)
        for job in present:
            self.segment([job], loaded)

    def _halve_batches(self) -> bool:
        """Halve the batches of the encoder and of objects; whether there was anything to halve."""
        model = self.settings.model
        if self.batch_size == 1 and model.largest_batch == 1:
            return False
        self.batch_size, model.largest_batch = max(1, self.batch_size // 2), max(1, model.largest_batch // 2)
        _release_gpu_memory()
        logger.warning(
            "memory is short; once more with batches of %d slices and %d objects", self.batch_size, model.largest_batch
        )
        return True

    def _failure(self, jobs: Sequence[VolumeJob], loaded: Mapping[str, Any]) -> Exception | None:
        """Segment volumes, and return what went wrong, without the tensors: the next attempt needs the room."""
        try:
            self._segment_loaded(jobs, loaded)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            return error
        return None

    def _segment_loaded(self, jobs: Sequence[VolumeJob], loaded: Mapping[str, Any]) -> None:
        from volprompt.models.engine import segment_volumes

        inference = self.settings.inference
        segmented = segment_volumes(
            self.settings.model,
            [loaded[job.name][0] for job in jobs],
            self.settings.schemes,
            self.batch_size,
            inference.reset_between_directions,
            progress_logger(),
            inference.fill_holes,
            inference.video_resize,
        )
        for job, of_volume in zip(jobs, segmented, strict=True):
            job.take(of_volume, loaded[job.name][1])


def read_group(group: Sequence[VolumeJob]) -> Loaded:
    """Read the volumes of a group that have prompts, or say why they cannot be read."""
    loaded: dict[str, tuple[LoadedVolume, float] | Exception] = {}
    for job in group:
        if job.prompts:
            try:
                loaded[job.name] = job.read()
            except Exception as error:
                loaded[job.name] = error
    return loaded


def _release_gpu_memory() -> None:
    """Give back what torch keeps of a failed attempt, in pieces that are too small now."""
    import torch

    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _drained(finished: list[VolumeJob]) -> list[VolumeJob]:
    """What the list holds; the list is empty afterwards."""
    taken = finished.copy()
    finished.clear()
    return taken


def progress_logger() -> Callable[[str, int, int, str], None]:
    """A callback that logs the progress within volumes now and then, with the time left: see `volume_work.Progress`.

    It goes by the rate since the first call for the same kind of steps, or since now for the first kind.
    """
    last = now = time.monotonic()
    kind = ""
    began = (now, 0)  # when the present kind of steps did, and how many were done then

    def log(volume: str, done: int, total: int, what: str) -> None:
        nonlocal last, kind, began
        now = time.monotonic()
        if (new := what.partition(" (")[0]) != kind:
            began = (now, done) if kind else began
            kind = new
        if now - last > PROGRESS_SECONDS and done > began[1]:
            last = now
            left = (now - began[0]) / (done - began[1]) * (total - done)
            logger.info("volume %s: %d of %d %s; %s left", volume, done, total, what, duration(left), extra=PROGRESS)

    return log
