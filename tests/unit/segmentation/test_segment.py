"""The loop over a shard's volumes: which are taken together, what a failure takes with it, what is recorded."""

import json
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from volprompt.models import engine
from volprompt.models.segmented import LoadedVolume, Segmented
from volprompt.prompts.candidates import extract_shard, read_prompts
from volprompt.segmentation.masks import read_mask
from volprompt.segmentation.schedule import Schedule, progress_logger
from volprompt.segmentation.volume_job import JobSettings, VolumeJob
from volprompt.settings.config import Inference
from volprompt.settings.schemes import Corrections, Scheme
from volprompt.volumes.convert import convert_shard
from volprompt.volumes.converted import grid_of_row, read_reference, read_volume_table

LABELS = {"femur": [1]}
SHAPE = (4, 6, 8)


class Model:
    """Stands for a loaded model; the engine itself is replaced."""

    device = torch.device("cpu")
    image_size = 1024
    largest_batch = 2

    def prepare(self, frames: np.ndarray) -> np.ndarray:
        return frames


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four volumes with a block of femur, converted, and their prompts."""
    import nibabel as nib

    rows = []
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:4, 2:5] = 1
    for name in ("a", "b", "c", "d"):
        image = np.random.default_rng(1).integers(0, 100, SHAPE).astype(np.int16)
        nib.save(nib.Nifti1Image(image, np.eye(4)), tmp_path / f"{name}.nii")
        nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / f"{name}_labels.nii")
        reference = str(tmp_path / f"{name}_labels.nii")
        rows.append({"volume": name, "image": str(tmp_path / f"{name}.nii"), "reference": reference})
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard(rows, frames, LABELS, tmp_path / "volumes")
    extract_shard(tmp_path / "volumes", LABELS, [], tmp_path / "prompts.parquet")
    return tmp_path


SCHEMES = {
    "point": Scheme(predictor="image", point="centroid"),
    "video": Scheme(predictor="video", point="centroid", slice="nearest"),
}


def schedule(folder: Path, schemes: dict[str, Scheme] = SCHEMES, **inference: Any) -> Schedule:
    settings = JobSettings(
        volumes_folder=folder / "volumes",
        masks_folder=folder / "masks",
        model=Model(),  # type: ignore[arg-type]
        schemes=schemes,
        labels=LABELS,
        scored=["femur"],
        inference=Inference(**inference),
    )
    return Schedule(settings)


def run_all(made: Schedule, folder: Path) -> list[VolumeJob]:
    return list(made.run(read_volume_table(folder / "volumes"), read_prompts(folder / "prompts.parquet")))


def empty_masks(volume: LoadedVolume) -> Segmented:
    bits = np.zeros((len(volume.frames), volume.size[0], -(-volume.size[1] // 8)), np.uint8)
    return Segmented({name: {"femur": bits} for name in volume.prompts}, 1.0, dict.fromkeys(volume.prompts, 0.5))


@pytest.mark.parametrize(("together", "groups"), [(1, ["a", "b", "c", "d"]), (2, ["ab", "cd"]), (3, ["abc", "d"])])
def test_volumes_are_taken_together_until_there_are_enough_objects(
    folder: Path, monkeypatch: pytest.MonkeyPatch, together: int, groups: list[str]
) -> None:
    seen: list[str] = []

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        seen.append("".join(volume.name for volume in volumes))
        return [empty_masks(volume) for volume in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    runs = run_all(schedule(folder, objects_together=together), folder)
    assert seen == groups
    assert [run.name for run in runs] == ["a", "b", "c", "d"]
    for run in runs:
        assert {row["scheme"]: row["status"] for row in run.runs} == {"point": "ok", "video": "ok"}
        for row in run.runs:
            parts = [row[f"seconds_{phase}"] for phase in ("read", "encode", "prompt", "write")]
            assert row["seconds"] == pytest.approx(sum(parts))
            assert row["slices_per_second"] == pytest.approx(4 / row["seconds"])
    assert len(list((folder / "masks").glob("*/*.nii.gz"))) == 8


def test_a_volume_that_fails_is_found_and_the_others_are_segmented(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        if any(volume.name == "b" for volume in volumes):
            raise ValueError("odd")
        return [empty_masks(volume) for volume in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    runs = {run.name: run.runs for run in run_all(schedule(folder, objects_together=4), folder)}
    assert {name: {row["status"] for row in rows} for name, rows in runs.items()} == {
        "a": {"ok"},
        "b": {"failed"},
        "c": {"ok"},
        "d": {"ok"},
    }
    assert {row["reason"] for row in runs["b"]} == {"b: ValueError: odd"}
    assert len(runs["b"]) == 2


def test_frames_that_cannot_be_read_fail_their_volume_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "segment_volumes", lambda model, volumes, *_: [empty_masks(v) for v in volumes])
    (folder / "volumes" / "c_frames.nii").unlink()
    runs = {run.name: run.runs for run in run_all(schedule(folder, objects_together=4), folder)}
    assert {row["status"] for row in runs["c"]} == {"failed"}
    assert {row["status"] for name in "abd" for row in runs[name]} == {"ok"}


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_a_fault_of_the_machine_with_several_volumes_is_tried_with_one(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Alone it ends the job, whose next attempt may have more memory, or another GPU."""

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        if len(volumes) > 1:
            raise error
        return [empty_masks(volume) for volume in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    runs = run_all(schedule(folder, objects_together=4), folder)
    assert {row["status"] for run in runs for row in run.runs} == {"ok"}

    def fail(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        raise error

    monkeypatch.setattr(engine, "segment_volumes", fail)
    with pytest.raises(type(error)):
        run_all(schedule(folder, objects_together=1), folder)


def test_a_failed_attempt_leaves_no_tensors_behind(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[weakref.ref] = []

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        assert all(tensor() is None for tensor in left)
        features = torch.zeros(3)
        left.append(weakref.ref(features))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(engine, "segment_volumes", segment)
    with pytest.raises(torch.OutOfMemoryError):
        run_all(schedule(folder, objects_together=4), folder)
    # Four volumes, one, and that one with batches of one slice
    assert len(left) == 3


@pytest.mark.parametrize(
    ("device", "image_size", "batches"),
    [("cuda", 1024, (8, 16)), ("cpu", 1024, (1, 1)), ("cpu", 512, (8, 16)), ("cuda", 256, (8, 16))],
)
def test_batches_by_device_and_image(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, image_size: int, batches: tuple[int, int]
) -> None:
    monkeypatch.setattr(Model, "device", torch.device(device))
    monkeypatch.setattr(Model, "image_size", image_size)
    made = schedule(folder)
    assert (made.batch_size, made.objects_together) == batches
    given = schedule(folder, batch_size=3, objects_together=5)
    assert (given.batch_size, given.objects_together) == (3, 5)


def test_batches_are_halved_where_memory_is_too_small_for_one_volume(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And stay so for the volumes behind it. Nothing is halved for a fault that is none of memory."""
    tried: list[tuple[str, int, int]] = []

    def segment(model: Any, volumes: list[LoadedVolume], schemes: Any, batch_size: int, *_: Any) -> list[Segmented]:
        tried.append(("".join(volume.name for volume in volumes), batch_size, model.largest_batch))
        if batch_size > 1 or model.largest_batch > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return [empty_masks(volume) for volume in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    runs = run_all(schedule(folder, objects_together=2, batch_size=4), folder)
    assert {row["status"] for run in runs for row in run.runs} == {"ok"}
    assert tried == [("ab", 4, 2), ("a", 4, 2), ("a", 2, 1), ("a", 1, 1), ("b", 1, 1), ("cd", 1, 1)]


def test_progress_within_a_volume(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Now and then, with the time that is left for steps of this kind at their rate, whatever came before them."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr("time.monotonic", lambda: clock.now)
    caplog.set_level("INFO", "volprompt")
    progress = progress_logger()
    for clock.now, done in ((10, 10), (40, 20), (50, 25), (80, 40)):
        progress("knee", done, 40, "slices encoded (corrections follow)")
    for number, (clock.now, done) in enumerate([(100, 0), (120, 10), (130, 15)], 1):
        progress("knee", done, 120, f"slices tracked again (correction {number} of at most 3)")
    assert caplog.messages == [
        "volume knee: 20 of 40 slices encoded (corrections follow); 40 s left",
        "volume knee: 40 of 40 slices encoded (corrections follow); 0 s left",
        "volume knee: 10 of 120 slices tracked again (correction 2 of at most 3); 3 min 40 s left",
    ]


def test_two_groups_of_volumes_can_wait_to_be_written(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The third group is segmented before any mask of the first is written."""
    segmented: list[str] = []
    third = threading.Event()

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        segmented.extend(volume.name for volume in volumes)
        if len(segmented) == 3:
            third.set()
        return [empty_masks(volume) for volume in volumes]

    def write(*_: Any) -> None:
        assert third.wait(10), "the model waits for the disk"

    monkeypatch.setattr(engine, "segment_volumes", segment)
    monkeypatch.setattr("volprompt.segmentation.volume_job.write_bits", write)
    run_all(schedule(folder), folder)
    assert segmented == ["a", "b", "c", "d"]


def test_a_lack_of_memory_in_reading_ends_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(Model, "prepare", prepare)
    with pytest.raises(MemoryError):
        run_all(schedule(folder), folder)


def test_a_full_disk_ends_the_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine, "segment_volumes", lambda model, volumes, *_: [empty_masks(v) for v in volumes])
    monkeypatch.setattr("volprompt.segmentation.volume_job.write_bits", write)
    with pytest.raises(OSError, match="No space left"):
        run_all(schedule(folder), folder)


def test_a_structure_without_prompts_gets_an_empty_mask(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image scheme prompts only where the reference has the structure; its mask file exists all the same."""

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        return [Segmented({name: {} for name in v.prompts}, 0, dict.fromkeys(v.prompts, 0.0)) for v in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    run_all(schedule(folder), folder)
    assert (folder / "masks" / "point" / "a_label-femur_mask.nii.gz").exists()


@pytest.mark.parametrize("carried", [{"predictor": "video"}, {"predictor": "image", "propagate": "box"}])
def test_only_carried_objects_count(folder: Path, carried: dict[str, Any]) -> None:
    """Volumes whose schemes prompt every slice are not gathered: nothing of them moves in lockstep."""
    made = schedule(folder, objects_together=16)
    schemes = {**made.settings.schemes, "video": Scheme(**carried, point="centroid")}
    made.settings = replace(made.settings, schemes=schemes)
    # Each object is prompted on two slices.
    prompts = [SimpleNamespace(structure=f"part_{number // 2}") for number in range(18)]
    still, moving = (VolumeJob(made.settings, None, {}, {name: prompts}) for name in ("point", "video"))  # type: ignore[dict-item]
    assert [len(group) for group in made.groups([still, still, moving, moving, moving])] == [1, 1, 2, 1]


def test_no_rows_are_lost_in_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "segment_volumes", lambda model, volumes, *_: [empty_masks(v) for v in volumes])
    rows = pd.DataFrame([row for run in run_all(schedule(folder), folder) for row in run.runs])
    assert len(rows) == 8
    assert rows["peak_memory_mb"].gt(0).all()


def test_masks_of_a_scheme_with_presence_are_empty_where_the_reference_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The femur of the fixture is on slices 1 and 2 of 4; the model finds it everywhere."""

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        full = np.full((SHAPE[0], SHAPE[2], -(-SHAPE[1] // 8)), 255, np.uint8)
        return [
            Segmented({name: {"femur": full} for name in v.prompts}, 0, dict.fromkeys(v.prompts, 0.0)) for v in volumes
        ]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    schemes = {
        "without": Scheme(predictor="video", point="centroid", slice="nearest"),
        "with": Scheme(predictor="video", point="centroid", slice="nearest", presence=True),
    }
    run_all(schedule(folder, schemes), folder)
    (row,) = list(read_volume_table(folder / "volumes").itertuples())[:1]
    masks = {
        name: read_mask(folder / "masks" / name / "a_label-femur_mask.nii.gz", grid_of_row(row)) for name in schemes
    }
    assert masks["without"].any(axis=(1, 2)).tolist() == [True] * 4
    assert masks["with"].any(axis=(1, 2)).tolist() == [False, True, True, False]


def test_a_mask_scheme_is_given_the_reference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        seen.extend(prompt.mask for volume in volumes for prompt in volume.prompts["mask"] if prompt.mask is not None)
        return [empty_masks(volume) for volume in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    schemes = {"mask": Scheme(predictor="video", mask=True, slice="nearest")}
    (first, *_) = run_all(schedule(folder, schemes), folder)
    assert first.runs[0]["prompts"] == 1
    assert first.runs[0]["prompted_slices"] == '{"femur": [2]}'
    reference = read_reference(folder / "volumes", "a")
    assert reference is not None
    assert (seen[0] == (reference[2] == 1)).all()
    assert seen[0].sum() == 6


def test_what_became_of_each_object(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The femur is on slices 1 and 2 of 4, another structure nowhere, and a third one on slice 3 alone."""
    import nibabel as nib

    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 2:4, 2:5], labels[3, 1, 1] = 1, 2
    nib.save(nib.Nifti1Image(labels, np.eye(4)), folder / "a_labels.nii")
    named = {"femur": [1], "meniscus": [2], "patella": [3]}
    row = {"volume": "a", "image": str(folder / "a.nii"), "reference": str(folder / "a_labels.nii")}
    frames = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
    convert_shard([row], frames, named, folder / "one")
    extract_shard(folder / "one", named, [], folder / "one.parquet")
    monkeypatch.setattr(engine, "segment_volumes", lambda model, volumes, *_: [empty_masks(v) for v in volumes])
    schemes = {
        "own": Scheme(predictor="video", box=True, slice="largest"),
        "middle": Scheme(predictor="video", box=True),
        "none": Scheme(predictor="video", box=True, slice={"index": 0}),
        "patella": Scheme(predictor="video", box=True, structures=["patella"]),
    }
    settings = replace(
        schedule(folder, schemes).settings, volumes_folder=folder / "one", labels=named, scored=list(named)
    )
    (job,) = Schedule(settings).run(read_volume_table(folder / "one"), read_prompts(folder / "one.parquet"))
    runs = {run["scheme"]: run for run in job.runs}
    assert {name: run["status"] for name, run in runs.items()} == {
        "own": "ok",
        "middle": "ok",
        "none": "failed",
        "patella": "ok",
    }
    assert runs["own"]["prompted_slices"] == '{"femur": [1], "meniscus": [3]}'
    assert (runs["own"]["absent"], runs["own"]["no_prompt"]) == ('["patella"]', "{}")
    assert list(json.loads(runs["middle"]["no_prompt"])) == ["meniscus"]
    assert "slice 0 has no box for 'femur'" in runs["none"]["reason"]
    assert (runs["patella"]["prompted_slices"], runs["patella"]["absent"]) == ("{}", '["patella"]')
    files = {path.parent.name: set() for path in (folder / "masks").glob("*/*")}
    for path in (folder / "masks").glob("*/*.nii.gz"):
        files[path.parent.name].add(path.name.split("label-")[1].split("_")[0])
    assert files == {"own": {"femur", "meniscus", "patella"}, "middle": {"femur", "patella"}, "patella": {"patella"}}


CORRECTED = {
    "plain": Scheme(predictor="video", point="centroid", slice="nearest"),
    "corrected": Scheme(predictor="video", mask=True, slice="nearest", corrections=Corrections(clicks=2)),
}


def test_corrections_are_given_the_reference(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As bits, with the true spacing, and with the voxels that no score counts."""
    seen: list[LoadedVolume] = []

    def segment(model: Any, volumes: list[LoadedVolume], *_: Any) -> list[Segmented]:
        seen.extend(volumes)
        return [empty_masks(volume) for volume in volumes]

    monkeypatch.setattr(engine, "segment_volumes", segment)
    made = schedule(folder, CORRECTED)
    made.settings = replace(made.settings, ignored=[1])
    run_all(made, folder)
    run_all(schedule(folder, CORRECTED), folder)
    run_all(schedule(folder), folder)
    reference = read_reference(folder / "volumes", "a")
    assert reference is not None
    with_ignored, known, without = seen[0].reference, seen[4].reference, seen[8].reference
    assert without is None
    assert known is not None
    assert list(known.masks) == ["femur"]
    assert (known.masks["femur"] == np.packbits(reference == 1, axis=-1)).all()
    assert known.spacing == (1, 1, 1)
    assert known.ignored is None
    assert with_ignored is not None
    assert (with_ignored.ignored == known.masks["femur"]).all()
    assert seen[4].prompts["corrected"][0].mask is not None
