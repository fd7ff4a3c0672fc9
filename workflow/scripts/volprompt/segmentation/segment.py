"""Masks of a shard's volumes by one model: each slice is encoded once and serves every scheme."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from volprompt.checkpoints.catalogue import CheckpointError, CheckpointNotYet
from volprompt.checkpoints.digests import archive_digest, sha256_of_weights
from volprompt.checkpoints.shards import weight_files
from volprompt.files import join_tables, table_metadata, write_table
from volprompt.identity import NO_SETTINGS, digest_of_intact, signature_of, write_identity
from volprompt.logs import Progress, logger
from volprompt.models.devices import choose_device, keep_freed_memory
from volprompt.models.loading import adapter_of, load_model, predictors_of
from volprompt.prompts.candidates import read_prompts
from volprompt.segmentation.runs import (
    CLICK_COLUMNS,
    CONFIDENCE_COLUMNS,
    Stopwatch,
    failed_run,
    package_versions,
    run_columns,
)
from volprompt.segmentation.schedule import Schedule
from volprompt.segmentation.volume_job import JobSettings
from volprompt.settings.config import Inference
from volprompt.settings.schemes import Scheme
from volprompt.volumes.converted import read_volume_table

if TYPE_CHECKING:
    from volprompt.models.model import Model


def segment_shard(
    *,
    volumes: str | Path,
    prompts: str | Path,
    checkpoint: str,
    model: Mapping[str, Any],
    schemes: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, Sequence[int]],
    scored: Sequence[str],
    inference: Mapping[str, Any],
    masks: str | Path,
    threads: int | None = None,
    ignored: Sequence[int] = (),
    identity: Mapping[str, Any] = NO_SETTINGS,
) -> None:
    """Write the masks of a shard's volumes under every scheme, and beside them tables and their identity.

    The tables are `run.parquet`, `corrections.parquet` (the clicks) and `confidence.parquet`, see `runs.py`.

    model: a `Checkpoint.description`; schemes and inference: as configured; labels: label numbers of the structures
    that the study asks for, in order; scored: those that are segmented unless a scheme says otherwise; ignored: label
    numbers of voxels that no score counts, where no correction is made; identity: the settings that reach the masks.
    A volume that fails is recorded with its reason and the others go on. Raises CheckpointError, ArchitectureError or
    DeviceError before the first volume.
    """
    made_from = {"volumes": digest_of_intact(volumes), "prompts": digest_of_intact(prompts)}
    table = read_volume_table(volumes)
    candidates = read_prompts(prompts)
    unusable = json.loads(table_metadata(prompts).get("failed", "{}"))
    ready = table[(table["status"] == "ok") & ~table["volume"].isin(unusable)]
    runs = [failed_run(volume, scheme, reason, "prompts") for volume, reason in unusable.items() for scheme in schemes]
    Path(masks).mkdir(parents=True, exist_ok=True)
    facts: dict[str, Any] = {"model": model["name"]}
    clicks: list[dict[str, Any]] = []
    confidence: list[pd.DataFrame] = []
    if len(ready):
        parsed = Inference(**inference)
        parsed_schemes = {name: Scheme(**scheme) for name, scheme in schemes.items()}
        loaded, facts, weights = _prepare(model, checkpoint, parsed_schemes, parsed, threads)
        settings = JobSettings(
            volumes_folder=Path(volumes),
            masks_folder=Path(masks),
            model=loaded,
            schemes=parsed_schemes,
            labels=labels,
            scored=scored,
            inference=parsed,
            ignored=ignored,
        )
        progress = Progress(len(ready))
        for job in Schedule(settings).run(ready, candidates):
            runs += job.runs
            clicks += job.clicks
            confidence += job.confidence
            progress.step(job.name, _summary(job.runs))
    run_table = pd.DataFrame([{**run, **facts} for run in runs], columns=run_columns(facts))
    write_table(run_table, Path(masks) / "run.parquet")
    write_table(join_tables([pd.DataFrame(clicks)], CLICK_COLUMNS), Path(masks) / "corrections.parquet")
    write_table(join_tables(confidence, CONFIDENCE_COLUMNS), Path(masks) / "confidence.parquet")
    if len(ready):
        identity = {**identity, "checkpoint": weights}
    write_identity(masks, identity, made_from)


def _prepare(
    model: Mapping[str, Any],
    checkpoint: str,
    schemes: Mapping[str, Scheme],
    inference: Inference,
    threads: int | None,
) -> tuple[Model, dict[str, Any], dict[str, str]]:
    """Choose the device, verify the checkpoint and load the model.

    Returns the model, what every row of the run table repeats, and the digests of the weights by their kind.
    """
    watch = Stopwatch()
    with watch.phase("import"):
        device = choose_device(inference.device, inference.precision)
        device = replace(device, attention=inference.attention, compile=inference.compile)
        import torch

        if device.kind == "cpu":
            keep_freed_memory()
        _require_predictors(model["family"], schemes)
    if threads:
        torch.set_num_threads(threads)
    file = Path(checkpoint)
    files = weight_files(file)
    before = signature_of(files, file.parent)
    with watch.phase("verify"):
        found = sha256_of_weights(file)
        content = archive_digest(file) or found
    kind, _, expected = model["digest"].partition(":")
    if kind == "sha256" and found != expected:
        raise CheckpointError(
            f"{checkpoint}: its SHA-256 is {found}; the catalogue expects {expected}. Delete the file to have it "
            "fetched again, or give your own checkpoint another name."
        )
    loaded = load_model(model, checkpoint, device, watch.phase)
    if signature_of(files, file.parent) != before:
        raise CheckpointNotYet(f"{checkpoint} was written to while it was loaded. Run again once it is complete.")
    for place, kernel in loaded.kernels.items():
        logger.info("attention to %s: %s", place, kernel)
    seconds = ", ".join(f"{phase} {spent:.1f} s" for phase, spent in watch.seconds.items())
    logger.info("%s: %s parameters (%s)", model["name"], f"{loaded.parameters:,}", seconds)
    facts = {
        "model": model["name"],
        "parameters": loaded.parameters,
        "checkpoint_sha256": found,
        "device": device.name,
        "precision": device.precision,
        "attention": json.dumps(loaded.kernels),
        "compiled": device.compile,
        **{f"seconds_{phase}": spent for phase, spent in watch.seconds.items()},
        "versions": json.dumps(package_versions(model["family"])),
    }
    return loaded, facts, {"sha256": found, "content": content}


def _require_predictors(family: str, schemes: Mapping[str, Scheme]) -> None:
    """Raise ArchitectureError if an adapter cannot run a scheme; of one's own models planning does not know that."""
    from volprompt.models.model import ArchitectureError

    known = predictors_of(adapter_of(family))
    for name, scheme in schemes.items():
        if scheme.predictor not in known:
            raise ArchitectureError(
                f"scheme '{name}' has predictor {scheme.predictor}, and the adapter of family {family} is for "
                f"{' and '.join(known)} alone; move one of them to another experiment"
            )


def _summary(runs: Sequence[Mapping[str, Any]]) -> str:
    done = [run for run in runs if run["status"] == "ok"]
    if not done:
        return "no masks"
    phases = ("seconds_encode", "seconds_read")
    seconds = sum(done[0][phase] for phase in phases)
    seconds += sum(run["seconds"] - sum(run[phase] for phase in phases) for run in done)
    rate = done[0]["slices"] / seconds
    return f"{len(done)} of {len(runs)} schemes, {done[0]['slices']} slices in {seconds:.1f} s ({rate:.2f} slices/s)"
