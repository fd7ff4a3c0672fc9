"""Masks of a shard's volumes by one model: each slice is encoded once and serves every scheme."""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from volprompt.checkpoints import CheckpointError
from volprompt.config import Inference, Scheme
from volprompt.devices import choose_device
from volprompt.errors import VolpromptError
from volprompt.files import sha256_of, table_metadata, write_table
from volprompt.logs import Progress, logger
from volprompt.masks import mask_path, write_mask
from volprompt.models import load_model
from volprompt.models.base import PromptableModel, VolumeFeatures
from volprompt.prompts import read_prompts
from volprompt.schemes import ObjectPrompt, scheme_prompts
from volprompt.volumes import grid_of_row, read_frames, read_volume_table

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
    """Seconds spent in named phases; on a GPU the queued work is waited for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to the phase `name`."""
        started = time.perf_counter()
        try:
            yield
        finally:
            if torch.cuda.is_available() and torch.cuda.is_initialized():
                torch.cuda.synchronize()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


class Shard:
    """What is the same for every volume of a job."""

    def __init__(
        self,
        volumes: Path,
        masks: Path,
        model: PromptableModel,
        schemes: Mapping[str, Scheme],
        structures: Sequence[str],
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
        self.batch_size = inference.batch_size or (4 if model.device.type == "cuda" else 1)

    def segment_volume(self, row: Any, table: pd.DataFrame) -> list[dict[str, Any]]:
        """Write the masks of one volume under every scheme; return its rows of the run table."""
        depth = int(row.shape[0])
        prompts, runs = self._prompts(row.volume, table, depth)
        if not prompts:
            return runs
        watch = Stopwatch()
        with watch.phase("read"):
            frames = read_frames(self.volumes, row.volume)
        slices = self._needed_slices(prompts, depth)
        with watch.phase("encode"):
            features = self.model.encode(frames, slices, self.batch_size, _slices_done(row.volume, len(slices)))
        for name, given in prompts.items():
            own = Stopwatch()
            with own.phase("prompt"):
                found = self._masks(self.schemes[name], features, given, frames.shape)
            with own.phase("write"):
                for structure, mask in found.items():
                    write_mask(mask, grid_of_row(row), mask_path(self.masks, name, row.volume, structure))
            runs.append(_run_row(row.volume, name, depth, given, {**watch.seconds, **own.seconds}))
        return runs

    def _prompts(
        self, volume: str, table: pd.DataFrame, depth: int
    ) -> tuple[dict[str, list[ObjectPrompt]], list[dict[str, Any]]]:
        """Prompts per scheme, and a failed row for each scheme that this volume has no prompt for."""
        prompts, failed = {}, []
        for name, scheme in self.schemes.items():
            try:
                prompts[name] = scheme_prompts(scheme, table, self.structures, self.scored, depth)
            except VolpromptError as error:
                logger.error("FAILED: volume %s, scheme %s: %s", volume, name, error)
                failed.append(failed_run(volume, name, f"{volume}: {error}"))
        return prompts, failed

    def _needed_slices(self, prompts: Mapping[str, Sequence[ObjectPrompt]], depth: int) -> list[int]:
        """Every slice where a video scheme is run, else those with a prompt."""
        if any(self.schemes[name].predictor == "video" for name in prompts):
            return list(range(depth))
        return sorted({prompt.slice for given in prompts.values() for prompt in given})

    def _masks(
        self, scheme: Scheme, features: VolumeFeatures, given: Sequence[ObjectPrompt], shape: tuple[int, ...]
    ) -> dict[str, np.ndarray]:
        """Masks of one scheme, bool (slice, y, x), by structure."""
        size = (shape[1], shape[2])
        if scheme.predictor == "video":
            tracked = self.model.track(features, given, size, self.inference.reset_between_directions)
            return {prompt.structure: mask for prompt, mask in zip(given, tracked, strict=True)}
        masks = {prompt.structure: np.zeros(shape, dtype=bool) for prompt in given}
        for prompt, mask in self.model.decode(features, given, size, scheme.multimask):
            masks[prompt.structure][prompt.slice] = mask
        for structure in set(scheme.structures or self.scored) - set(masks):
            masks[structure] = np.zeros(shape, dtype=bool)
        return masks


def segment_shard(
    *,
    volumes: str | Path,
    prompts: str | Path,
    checkpoint: str,
    model: Mapping[str, str],
    schemes: Mapping[str, Mapping[str, Any]],
    structures: Sequence[str],
    scored: Sequence[str],
    inference: Mapping[str, Any],
    masks: str | Path,
    threads: int | None = None,
) -> None:
    """Write the masks of a shard's volumes under every scheme, and `run.parquet` beside them.

    model: a `Checkpoint.identity`; schemes and inference: as configured; structures: all configured ones in order;
    scored: those that are segmented unless a scheme says otherwise. A volume that fails is recorded with its reason and
    the others go on. Raises CheckpointError, ArchitectureError or DeviceError before the first volume.
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
        for row in ready.itertuples():
            made = _guarded(shard, row, candidates[candidates["volume"] == row.volume])
            for run in made:
                run.update(peak_memory())
            runs += made
            progress.step(row.volume, _summary(made))
    write_table(pd.DataFrame([{**run, **facts} for run in runs], columns=_columns(facts)), Path(masks) / "run.parquet")


def _prepare(
    model: Mapping[str, str], checkpoint: str, inference: Inference, threads: int | None
) -> tuple[PromptableModel, dict[str, Any]]:
    """Choose the device, verify the checkpoint and load the model; also what every row of the run table repeats."""
    if threads:
        torch.set_num_threads(threads)
    device = choose_device(inference.device, inference.precision)
    started = time.perf_counter()
    found = sha256_of(checkpoint)
    kind, _, expected = model["digest"].partition(":")
    if kind == "sha256" and found != expected:
        raise CheckpointError(
            f"{checkpoint}: its SHA-256 is {found}; the catalogue expects {expected}. Delete the file to have it "
            "fetched again, or give your own checkpoint another name."
        )
    loaded = load_model(model, checkpoint, device)
    seconds = time.perf_counter() - started
    logger.info("%s: %s parameters, loaded in %.1f s", model["name"], f"{loaded.parameters:,}", seconds)
    facts = {
        "model": model["name"],
        "parameters": loaded.parameters,
        "checkpoint_sha256": found,
        "device": device.name,
        "precision": device.precision,
        "seconds_load": seconds,
        "versions": json.dumps({package: _version(package) for package in PACKAGES}),
    }
    return loaded, facts


def _guarded(shard: Shard, row: Any, table: pd.DataFrame) -> list[dict[str, Any]]:
    """The run rows of a volume; where it fails in an unforeseen way, failed ones with the reason."""
    try:
        return shard.segment_volume(row, table)
    except (MemoryError, torch.OutOfMemoryError):
        raise  # not the volume's fault: the job fails, and its next attempt asks for more
    except Exception as error:
        logger.exception("FAILED: volume %s", row.volume)
        reason = f"{row.volume}: {type(error).__name__}: {error}"
        return [failed_run(row.volume, scheme, reason) for scheme in shard.schemes]


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
        "prompts": sum(len(prompt.points) + (prompt.box is not None) for prompt in prompts),
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


def _slices_done(volume: str, slices: int) -> Any:
    """A callback that logs the encoder's progress within a volume, at most every 30 seconds."""
    last = time.monotonic()

    def seen(done: int) -> None:
        nonlocal last
        if time.monotonic() - last > 30:
            last = time.monotonic()
            logger.info("volume %s: %d of %d slices encoded", volume, done, slices)

    return seen


def _version(package: str) -> str:
    if package == "volprompt":
        from volprompt import __version__

        return __version__
    return version(package)
