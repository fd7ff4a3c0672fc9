"""How much of the hardware is used: python benchmarks/utilisation.py [--device cuda --size full].

The share of the measured matrix-product peak that encoder and tracking reach (operations as `torch.utils.flop_counter`
counts them, attention included), slices per second over the number of objects that are tracked together, and how much
of a job's time the model computes. Before anything is timed, it runs once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from cases import RESULTS, TINY, Case, demo, official
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from volprompt.models.base import PromptableModel
from volprompt.models.engine import segment_volumes
from volprompt.models.segmented import LoadedVolume

# Objects on a volume at the product's width, and the widths that are compared.
WIDTH, WIDTHS = 16, (1, 2, 4, 8, 16, 32)


def on_cpu(query: Any, key: Any, value: Any, *_: Any, out_shape: Any = None, **__: Any) -> int:
    """Operations of fused attention on a CPU, which torch does not count."""
    return sdpa_flop_count(query, key, value)


COUNTED = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: on_cpu}


def matmul_peak(device: str, precision: str, side: int) -> float:
    """Operations per second of a large matrix product."""
    kind = torch.bfloat16 if precision == "bfloat16" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    best = min(timed(lambda: left @ right, device) for _ in range(10))
    return 2 * side**3 / best


def timed(work: Callable[[], Any], device: str) -> float:
    """Seconds until the device has done the work."""
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def with_objects(volume: LoadedVolume, objects: int) -> LoadedVolume:
    """The volume with so many tracked objects: the first prompt of its video scheme again and again."""
    first = volume.prompts["point_video"][0]
    prompts = [replace(first, structure=f"{first.structure}_{number}") for number in range(objects)]
    return replace(volume, prompts={"point_video": prompts})


def shares(case: Case, folder: Path, peak: float) -> dict[str, float]:
    """Print and return the shares of encoder and tracking, and slices per second by the number of objects."""
    model, volume, schemes = case.load(folder)
    batch = 8 if case.device == "cuda" else 1

    def encode() -> None:
        with model.inference():
            for start in range(0, len(volume.frames), batch):
                model.encode(volume.frames[start : start + batch])

    encoding, encoding_seconds = counted(encode, model)
    found = {"encoder, share of the peak": print_share(case, "encoder", encoding, encoding_seconds, peak)}
    rows = []
    for objects in WIDTHS:
        wide = with_objects(volume, objects)
        both, seconds = counted(lambda wide=wide: segment_volumes(model, [wide], schemes, batch), model)
        rows.append((objects, len(volume.frames) / seconds, objects * len(volume.frames) / seconds))
        if objects == WIDTH:
            print_share(case, f"encoder and tracking of {objects} objects", both, seconds, peak)
            part = f"tracking of {objects} objects"
            share = print_share(case, part, both - encoding, seconds - encoding_seconds, peak)
            found[f"{part}, share of the peak"] = share
    print("\n| objects together | slices/s | slices/s, each object counted |\n|---:|---:|---:|")
    for objects, slices, each in rows:
        print(f"| {objects} | {slices:.2f} | {each:.2f} |")
        found[f"slices/s with {objects} objects"] = slices
    return found


def print_share(case: Case, part: str, operations: float, spent: float, peak: float) -> float:
    """Print a line of the table of shares, and return the share."""
    share = operations / spent / peak
    print(f"| {case.name} | {part} | {operations / 1e12:.3f} | {spent:.2f} | {share:.0%} |")
    return share


def counted(work: Callable[[], Any], model: PromptableModel) -> tuple[float, float]:
    """Operations and seconds of some work of a model, which is done once before."""
    model.module.requires_grad_(False)  # the counter follows gradients wherever they could be asked for
    with FlopCounterMode(display=False, custom_mapping=COUNTED) as counter:
        work()
    model.module.requires_grad_(True)
    work()
    return counter.get_total_flops(), timed(work, model.device.type)


def busy(case: Case, folder: Path) -> dict[str, float]:
    """Print and return the share of a whole job, behind its start, in which the model computes.

    On a GPU that is taken from events in its queue.
    """
    case.segment(folder, folder / "first")
    spent = timed(lambda: case.segment(folder, folder / "masks"), case.device)
    runs = pd.read_parquet(folder / "masks" / "run.parquet")
    start = sum(float(runs.iloc[0][f"seconds_{phase}"]) for phase in ("import", "verify", "build", "load"))
    computing = runs.drop_duplicates("volume")["seconds_encode"].sum() + runs["seconds_prompt"].sum()
    print(
        f"{case.name}: {case.volumes} volumes in {spent - start:.1f} s behind a start of {start:.1f} s; the model "
        f"computes {computing / (spent - start):.0%} of it"
    )
    return {"the model computes, share of a job": computing / (spent - start)}


def main() -> None:
    """Print peak, shares and the busy share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("demo", "full"), default="demo")
    given = parser.parse_args()
    precision = "bfloat16" if given.device == "cuda" else "float32"
    settings: dict[str, Any] = {"device": given.device, "precision": precision}
    if given.size == "demo":
        case = demo("sam2", volumes=2, shape=(20, 96, 96), spacing=(5.6, 1.46, 1.46), **settings)
    else:
        case = official("sam2.1_hiera_tiny", "sam2", TINY, None, volumes=16, **settings)
    torch.set_num_threads(case.threads)
    peak = matmul_peak(given.device, precision, 8192 if given.device == "cuda" else 2048)
    print(f"matrix product: {peak / 1e12:.2f} Tflop/s ({given.device}, {precision})\n")
    print("| case | part | Tflop | seconds | share of the peak |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        case.make(Path(temporary))
        found = shares(case, Path(temporary), peak)
        print()
        found |= busy(case, Path(temporary))
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"utilisation_{given.size}_{given.device}.json"
    path.write_text(json.dumps({"case": case.name, **found}, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
