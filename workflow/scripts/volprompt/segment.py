"""Masks of a shard's volumes by one model: each slice is encoded once and serves every scheme."""

from __future__ import annotations

import json
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from volprompt.background import StoreBehind, load_ahead
from volprompt.checkpoints import CheckpointError
from volprompt.config import Inference, Scheme
from volprompt.devices import choose_device, keep_freed_memory
from volprompt.errors import VolpromptError
from volprompt.files import sha256_of, table_metadata, write_table
from volprompt.logs import Progress, log_progress, logger
from volprompt.masks import mask_path, unpack_bits, write_mask
from volprompt.models import load_model
from volprompt.prompts import read_prompts
from volprompt.schemes import ObjectPrompt, frame_grid, present_slices, scheme_prompts, with_masks
from volprompt.volumes import grid_of_row, read_frames, read_reference, read_volume_table

if TYPE_CHECKING:
    from volprompt.models.base import PromptableModel
    from volprompt.models.engine import Volume

# Volumes whose masks wait to be written, or are being written.
VOLUMES_TO_WRITE = 2
# What torch says in a plain RuntimeError where memory is short or a GPU does not work any more.
MACHINE_FAULTS = ("can't allocate memory", "CUDA error", "CUBLAS_STATUS", "CUDNN_STATUS")
PACKAGES = ("volprompt", "torch", "torchvision", "sam2", "segment-anything")
RUN_COLUMNS = (
    "volume",
    "scheme",
    "status",
    "stage",
    "reason",
    "slices",
    "prompts",
    "prompted_slices",
    "seconds_read",
    "seconds_encode",
    "seconds_prompt",
    "seconds_write",
    "seconds",
    "slices_per_second",
)


class Stopwatch:
    """Seconds spent in named phases."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


@dataclass
class VolumeRun:
    """A volume on its way through a job: its row of the volume table, its prompts, then its rows of the run table."""

    row: Any
    prompts: dict[str, list[ObjectPrompt]]
    runs: list[dict[str, Any]]
    size: tuple[int, int] = (0, 0)
    masks: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    present: dict[str, np.ndarray] = field(default_factory=dict)  # of structures: bool (slice,)

    @property
    def name(self) -> str:
        """The volume."""
        return str(self.row.volume)

    @property
    def depth(self) -> int:
        """Number of slices."""
        return int(self.row.shape[0])

    def fail(self, error: Exception) -> None:
        """Record that nothing could be segmented, for an unforeseen reason.

        What is the machine's fault and not the volume's is raised again: another attempt of the job may succeed.
        """
        if _of_the_machine(error):
            raise error
        logger.error("FAILED: volume %s", self.name, exc_info=error)
        reason = f"{self.name}: {type(error).__name__}: {error}"
        self.runs += [failed_run(self.name, scheme, reason) for scheme in self.prompts]
        self.prompts = {}


class Shard:
    """What is the same for every volume of a job."""

    def __init__(
        self,
        volumes: Path,
        masks: Path,
        model: PromptableModel,
        schemes: Mapping[str, Scheme],
        structures: Mapping[str, Sequence[int]],
        scored: Sequence[str],
        inference: Inference,
    ) -> None:
        self.volumes = volumes
        self.masks = masks
        self.model = model
        self.schemes = schemes
        self.structures = structures
        self.scored = scored
        self.inference = inference
        on_gpu = model.device.type == "cuda"
        # On a CPU a batch of large images is no faster than one after another, and takes more memory.
        self.batch_size = inference.batch_size or (8 if on_gpu or model.image_size <= 512 else 1)
        self.objects_together = inference.objects_together or (16 if on_gpu else 1)
        logger.info("batch_size %d, objects_together %d", self.batch_size, self.objects_together)

    def segment(self, ready: pd.DataFrame, candidates: pd.DataFrame) -> Iterator[VolumeRun]:
        """Segment the volumes, with the next ones read ahead and the masks written behind."""
        by_volume = dict(tuple(candidates.groupby("volume")))
        runs = [self.start(row, by_volume.get(row.volume, candidates.iloc[:0])) for row in ready.itertuples()]
        finished: list[VolumeRun] = []
        with StoreBehind(self.write, _written(finished), VOLUMES_TO_WRITE) as behind:
            for group, loaded in load_ahead(self.together(runs), self.read):
                self.segment_together(group, loaded)
                for run in group:
                    behind.add(run)
                yield from _taken(finished)
        yield from _taken(finished)

    def start(self, row: Any, table: pd.DataFrame) -> VolumeRun:
        """A volume with its prompts per scheme, and a failed row for each scheme that it has no prompt for."""
        run = VolumeRun(row, {}, [])
        frame = frame_grid(grid_of_row(row))
        for name, scheme in self.schemes.items():
            try:
                run.prompts[name] = scheme_prompts(scheme, table, list(self.structures), self.scored, run.depth, frame)
            except VolpromptError as error:
                logger.error("FAILED: volume %s, scheme %s: %s", run.name, name, error)
                run.runs.append(failed_run(run.name, name, f"{run.name}: {error}"))
        run.present = {name: present_slices(table, name, run.depth) for name in self.structures}
        return run

    def together(self, runs: Iterable[VolumeRun]) -> Iterator[list[VolumeRun]]:
        """Groups of volumes with so many tracked objects that they make a good batch."""
        group: list[VolumeRun] = []
        for run in runs:
            group.append(run)
            if sum(map(self._tracked, group)) >= self.objects_together or not self._tracked(run):
                yield group
                group = []
        if group:
            yield group

    def _tracked(self, run: VolumeRun) -> int:
        return sum(
            len({prompt.structure for prompt in given})
            for name, given in run.prompts.items()
            if self.schemes[name].predictor == "video"
        )

    def read(self, group: Sequence[VolumeRun]) -> dict[str, tuple[Volume, float] | Exception]:
        """Read and prepare the frames of a group's volumes, with the seconds that it took, or say why not."""
        from volprompt.models.engine import Volume

        loaded: dict[str, tuple[Volume, float] | Exception] = {}
        for run in group:
            if not run.prompts:
                continue
            started = time.perf_counter()
            try:
                frames = read_frames(self.volumes, run.name)
                run.size = frames.shape[1:]
                self._add_masks(run)
                volume = Volume(run.name, self.model.prepare(frames), run.size, run.prompts)
                loaded[run.name] = volume, time.perf_counter() - started
            except Exception as error:
                loaded[run.name] = error
        return loaded

    def _add_masks(self, run: VolumeRun) -> None:
        """Give the prompts of schemes with `mask` the reference's masks."""
        names = [name for name in run.prompts if self.schemes[name].mask]
        reference = read_reference(self.volumes, run.name) if names else None
        for name in names:
            assert reference is not None, "a prompt table with masks comes from a reference"
            run.prompts[name] = with_masks(run.prompts[name], reference, self.structures)

    def segment_together(
        self, group: Sequence[VolumeRun], loaded: Mapping[str, tuple[Volume, float] | Exception]
    ) -> None:
        """Segment a group's volumes in lockstep; where that fails, one after another, to find out which it was."""
        for run in group:
            if isinstance(error := loaded.get(run.name), Exception):
                run.fail(error)
        present = [run for run in group if run.prompts]
        failure = self._failure(present, loaded)
        if failure is None:
            return
        if len(present) == 1:
            present[0].fail(failure)
            return
        logger.warning("%s: %s; once more, one volume at a time", ", ".join(run.name for run in present), failure)
        for run in present:
            self.segment_together([run], loaded)

    def _failure(self, runs: Sequence[VolumeRun], loaded: Mapping[str, Any]) -> Exception | None:
        """Segment volumes, and return what went wrong, without the tensors: the next attempt needs the room."""
        try:
            self._segment_loaded(runs, loaded)
        except Exception as error:
            traceback.clear_frames(error.__traceback__)
            return error
        return None

    def _segment_loaded(self, runs: Sequence[VolumeRun], loaded: Mapping[str, Any]) -> None:
        from volprompt.models.engine import segment_volumes

        volumes = [loaded[run.name][0] for run in runs]
        done = segment_volumes(
            self.model,
            volumes,
            self.schemes,
            self.batch_size,
            self.inference.reset_between_directions,
            _slices_done(),
            self.inference.fill_holes,
            self.inference.video_resize,
        )
        for run, segmented in zip(runs, done, strict=True):
            run.masks = segmented.masks
            for name, given in run.prompts.items():
                seconds = {
                    "read": loaded[run.name][1],
                    "encode": segmented.seconds_encode,
                    "prompt": segmented.seconds_prompt[name],
                }
                run.runs.append(_run_row(run.name, name, run.depth, given, seconds))

    def write(self, run: VolumeRun) -> dict[str, float]:
        """Write the masks of a volume; returns the seconds per scheme."""
        seconds = {}
        for name, masks in run.masks.items():
            started = time.perf_counter()
            for structure in self.schemes[name].structures or self.scored:
                bits = masks.get(structure)  # none where an image scheme had no prompt on any slice
                mask = np.zeros((run.depth, *run.size), bool) if bits is None else unpack_bits(bits, run.size[1])
                if self.schemes[name].presence:
                    mask[~run.present[structure]] = False
                write_mask(mask, grid_of_row(run.row), mask_path(self.masks, name, run.name, structure))
            seconds[name] = time.perf_counter() - started
        run.masks = {}
        return seconds


def _written(finished: list[VolumeRun]) -> Callable[[VolumeRun, dict[str, float]], None]:
    """What is done with a volume whose masks are written: its rows are completed."""

    def done(run: VolumeRun, seconds: Mapping[str, float]) -> None:
        for row in run.runs:
            if row["scheme"] in seconds:
                row["seconds_write"] = seconds[row["scheme"]]
                row["seconds"] += seconds[row["scheme"]]
                row["slices_per_second"] = row["slices"] / row["seconds"]
            row.update(peak_memory())
        finished.append(run)

    return done


def _taken(finished: list[VolumeRun]) -> list[VolumeRun]:
    taken = finished.copy()
    finished.clear()
    return taken


def _of_the_machine(error: Exception) -> bool:
    """Whether an error is a lack of memory or a fault of the GPU, for some of which torch has no class of their own."""
    import torch

    named = isinstance(error, RuntimeError) and any(words in str(error) for words in MACHINE_FAULTS)
    return named or isinstance(error, MemoryError | torch.OutOfMemoryError)


def segment_shard(
    *,
    volumes: str | Path,
    prompts: str | Path,
    checkpoint: str,
    model: Mapping[str, Any],
    schemes: Mapping[str, Mapping[str, Any]],
    structures: Mapping[str, Sequence[int]],
    scored: Sequence[str],
    inference: Mapping[str, Any],
    masks: str | Path,
    threads: int | None = None,
) -> None:
    """Write the masks of a shard's volumes under every scheme, and `run.parquet` beside them.

    model: a `Checkpoint.identity`; schemes and inference: as configured; structures: label numbers of all configured
    ones in order; scored: those that are segmented unless a scheme says otherwise. A volume that fails is recorded with
    its reason and the others go on. Raises CheckpointError, ArchitectureError or DeviceError before the first volume.
    """
    table = read_volume_table(volumes)
    candidates = read_prompts(prompts)
    unusable = json.loads(table_metadata(prompts).get("failed", "{}"))
    ready = table[(table["status"] == "ok") & ~table["volume"].isin(unusable)]
    runs = [failed_run(volume, scheme, reason, "prompts") for volume, reason in unusable.items() for scheme in schemes]
    Path(masks).mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"model": model["name"]}
    if len(ready):
        settings = Inference(**inference)
        loaded, facts = _prepare(model, checkpoint, settings, threads)
        parsed = {name: Scheme(**scheme) for name, scheme in schemes.items()}
        shard = Shard(Path(volumes), Path(masks), loaded, parsed, structures, scored, settings)
        progress = Progress(len(ready))
        for done in shard.segment(ready, candidates):
            runs += done.runs
            progress.step(done.name, _summary(done.runs))
    write_table(pd.DataFrame([{**run, **facts} for run in runs], columns=_columns(facts)), Path(masks) / "run.parquet")


def _prepare(
    model: Mapping[str, Any], checkpoint: str, inference: Inference, threads: int | None
) -> tuple[PromptableModel, dict[str, Any]]:
    """Choose the device, verify the checkpoint and load the model; also what every row of the run table repeats."""
    watch = Stopwatch()
    with watch.phase("import"):
        import torch

        device = choose_device(inference.device, inference.precision)
        if device.kind == "cpu":
            keep_freed_memory()
    if threads:
        torch.set_num_threads(threads)
    with watch.phase("verify"):
        found = sha256_of(checkpoint)
    kind, _, expected = model["digest"].partition(":")
    if kind == "sha256" and found != expected:
        raise CheckpointError(
            f"{checkpoint}: its SHA-256 is {found}; the catalogue expects {expected}. Delete the file to have it "
            "fetched again, or give your own checkpoint another name."
        )
    loaded = load_model(model, checkpoint, device, watch.phase)
    seconds = ", ".join(f"{phase} {spent:.1f} s" for phase, spent in watch.seconds.items())
    logger.info("%s: %s parameters (%s)", model["name"], f"{loaded.parameters:,}", seconds)
    facts = {
        "model": model["name"],
        "parameters": loaded.parameters,
        "checkpoint_sha256": found,
        "device": device.name,
        "precision": device.precision,
        **{f"seconds_{phase}": spent for phase, spent in watch.seconds.items()},
        "versions": json.dumps({package: _version(package) for package in PACKAGES}),
    }
    return loaded, facts


def failed_run(volume: str, scheme: str, reason: str, stage: str = "segment") -> dict[str, Any]:
    """A row of the run table for a volume without masks under a scheme; stage: where the fault was found."""
    return {"volume": volume, "scheme": scheme, "status": "failed", "stage": stage, "reason": reason}


def _run_row(
    volume: str, scheme: str, depth: int, prompts: Sequence[ObjectPrompt], seconds: Mapping[str, float]
) -> dict[str, Any]:
    """Reading and encoding are shared by the experiment's schemes, and counted in full for each."""
    total = sum(seconds.values())
    return {
        "volume": volume,
        "scheme": scheme,
        "status": "ok",
        "stage": "segment",
        "reason": "",
        "slices": depth,
        "prompts": sum(len(prompt.points) + (prompt.box is not None) + (prompt.mask is not None) for prompt in prompts),
        "prompted_slices": json.dumps(_prompted_slices(prompts)),
        **{f"seconds_{phase}": value for phase, value in seconds.items()},
        "seconds": total,
        "slices_per_second": depth / total,
    }


def _prompted_slices(prompts: Sequence[ObjectPrompt]) -> dict[str, list[int]]:
    slices: dict[str, list[int]] = {}
    for prompt in prompts:
        slices.setdefault(prompt.structure, []).append(prompt.slice)
    return slices


def peak_memory() -> dict[str, float]:
    """Peak memory of this process so far in MB, on the host and on the GPU (NaN without one)."""
    import torch

    on_gpu = torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else float("nan")
    return {"peak_memory_mb": _peak_on_host(), "peak_gpu_memory_mb": on_gpu}


def _peak_on_host() -> float:
    """In MB. Linux counts a parent's memory into getrusage's figure of its child, but not into VmHWM."""
    status = Path("/proc/self/status")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024 / 1e6
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def _columns(facts: Mapping[str, Any]) -> list[str]:
    return [*RUN_COLUMNS, "peak_memory_mb", "peak_gpu_memory_mb", *facts]


def _summary(runs: Sequence[Mapping[str, Any]]) -> str:
    done = [run for run in runs if run["status"] == "ok"]
    if not done:
        return "no masks"
    phases = ("seconds_encode", "seconds_read")
    seconds = sum(done[0][phase] for phase in phases)
    seconds += sum(run["seconds"] - sum(run[phase] for phase in phases) for run in done)
    rate = done[0]["slices"] / seconds
    return f"{len(done)} of {len(runs)} schemes, {done[0]['slices']} slices in {seconds:.1f} s ({rate:.2f} slices/s)"


def _slices_done() -> Callable[[str, int, int], None]:
    """A callback that logs the progress within volumes, at most every 30 seconds."""
    last = time.monotonic()

    def seen(volume: str, done: int, slices: int) -> None:
        nonlocal last
        if time.monotonic() - last > 30:
            last = time.monotonic()
            log_progress("volume %s: %d of %d slices encoded", volume, done, slices)

    return seen


def _version(package: str) -> str:
    if package == "volprompt":
        from volprompt import __version__

        return __version__
    return version(package)
