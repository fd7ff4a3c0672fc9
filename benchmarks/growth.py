"""How cost grows with slices, objects, schemes and volumes: python benchmarks/growth.py [--device cuda].

The demo's SAM 2, video schemes; seconds of encoding and tracking, and the slices whose features are kept at most.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from cases import REPOSITORY

from volprompt.models.base import PromptableModel
from volprompt.models.devices import Device
from volprompt.models.engine import segment_volumes
from volprompt.models.features import SliceFeatures
from volprompt.models.loading import load_model
from volprompt.models.segmented import LoadedVolume
from volprompt.prompts.schemes import ObjectPrompt
from volprompt.settings.schemes import Scheme

SIZE = (384, 384)


def volume(name: str, slices: int, objects: int, schemes: int) -> LoadedVolume:
    """Noise and points: what they show does not change what they cost."""
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (slices, *SIZE)).astype(np.uint8)
    label = np.array([1], dtype=np.int32)
    prompts = {
        f"scheme_{scheme}": [
            ObjectPrompt(f"object_{each}", slices // 2, rng.uniform(0, 384, (1, 2)).astype(np.float32), label)
            for each in range(objects)
        ]
        for scheme in range(schemes)
    }
    return LoadedVolume(name, frames, SIZE, prompts)


def measure(model: PromptableModel, slices: int, objects: int, schemes: int, volumes: int) -> str:
    """A line of the table."""
    works = [volume(str(number), slices, objects, schemes) for number in range(volumes)]
    scheme = Scheme(predictor="video", point="centroid")
    kept = [0]
    require = SliceFeatures.require

    def counted(features: SliceFeatures, wanted: list[int]) -> None:
        require(features, wanted)
        kept[0] = max(kept[0], len(features._kept))

    SliceFeatures.require = counted  # type: ignore[method-assign, assignment]
    try:
        started = time.perf_counter()
        done = segment_volumes(model, works, dict.fromkeys(works[0].prompts, scheme), 4)
        seconds = time.perf_counter() - started
    finally:
        SliceFeatures.require = require  # type: ignore[method-assign]
    encode = sum(each.seconds_encode for each in done)
    track = sum(sum(each.seconds_prompt.values()) for each in done)
    steps = slices * objects * schemes * volumes
    return (
        f"| {slices} | {objects} | {schemes} | {volumes} | {seconds:.2f} | {encode:.2f} | {track:.2f} "
        f"| {1000 * track / steps:.2f} | {kept[0]} |"
    )


def main() -> None:
    """Print the table, one quantity growing at a time."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--architecture", default=str(REPOSITORY / "demo" / "sam2_demo.yaml"))
    parser.add_argument("--checkpoint", default=str(REPOSITORY / "demo" / "checkpoints" / "demo_sam2.pt"))
    given = parser.parse_args()
    assert Path(given.checkpoint).exists()
    torch.set_num_threads(given.threads)
    device = Device(given.device, given.precision, given.device)
    model = load_model({"family": "sam2", "architecture": given.architecture}, given.checkpoint, device)
    measure(model, 8, 2, 1, 1)
    print("| slices | objects | schemes | volumes | seconds | encode | track | ms per object and slice | slices kept |")
    print("|---|---|---|---|---|---|---|---|---|")
    base = (40, 2, 2, 1)
    for place, values in enumerate([(20, 40, 80, 160), (1, 4, 8), (1, 4), (2, 4)]):
        for value in values:
            print(measure(model, *base[:place], value, *base[place + 1 :]), flush=True)


if __name__ == "__main__":
    main()
