"""What each optimisation is worth: the same work with and without it, interleaved in one process.

python benchmarks/ablation.py [--runs N] [--official]: demo models on a whole phantom; --official adds ViT-B.
"""

from __future__ import annotations

import argparse
import gzip
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from cases import TINY, Case, demo, random_weights
from isal import igzip

from volprompt.models import kernels, memory_tracking, products
from volprompt.models.base import PromptableModel, without_initialisation
from volprompt.models.devices import Device
from volprompt.models.engine import segment_volumes
from volprompt.models.kernels import AttentionSettings
from volprompt.models.loading import load_model
from volprompt.models.memory_attention import MemoryAttention
from volprompt.models.memory_plan import MemoryRules
from volprompt.models.sam import SamModel
from volprompt.models.sam2 import Sam2Model
from volprompt.models.sam2_parts import attention_of
from volprompt.segmentation import schedule, volume_job
from volprompt.segmentation.masks import unpack_bits


class Setting:
    """A loaded model, a volume and its prompts."""

    def __init__(self, case: Case, folder: Path, **changes: Any) -> None:
        self.model, self.volume, self.schemes = case.load(folder, **changes)

    def run(self, **prompts: Any) -> Any:
        """Segment the volume with all of its prompts, or with those given instead."""
        volume = replace(self.volume, prompts=prompts or self.volume.prompts)
        return segment_volumes(self.model, [volume], self.schemes, 4)[0]


def seconds(work: Callable[[], Any]) -> float:
    """How long `work` takes."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def under(context: Callable[[], AbstractContextManager], work: Callable[[], float]) -> Callable[[], float]:
    """The same work within a context, made anew each time."""

    def within() -> float:
        with context():
            return work()

    return within


def line(what: str, runs: int, without: Callable[[], float], with_it: Callable[[], float]) -> None:
    """Print the medians of both, and that of the ratios of pairs."""
    without(), with_it()  # warm up
    pairs = [(without(), with_it()) for _ in range(runs)]
    before, after = (float(np.median(side)) for side in zip(*pairs, strict=True))
    ratio = float(np.median([one / other for one, other in pairs]))
    print(f"| {what} | {before:.3f} | {after:.3f} | {ratio:.2f} |", flush=True)


@contextmanager
def one_after_another() -> Iterator[None]:
    """Reading and writing as part of the main work."""

    class Store:
        def __init__(self, store: Any, done: Any, limit: int, threads: int) -> None:
            self.store, self.done = store, done

        def __enter__(self) -> Store:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def add(self, item: Any) -> None:
            self.done(item, self.store(item))

    def load(items: Any, load: Any) -> Iterator[Any]:
        return ((item, load(item)) for item in items)

    with mock.patch.object(schedule, "load_ahead", load), mock.patch.object(schedule, "StoreBehind", Store):
        yield


def always_fused() -> AbstractContextManager:
    """The fused kernel where a kernel is chosen by the shape of each call."""
    fused = kernels.Kernel("fused", False, "as ever", kernels._fused)
    return mock.patch.object(kernels, "attention_kernel", return_value=fused)


def sam2_lines(folder: Path, runs: int) -> None:
    """What tracking gains."""
    case = demo("sam2")
    case.make(folder)
    setting = Setting(case, folder)
    each_alone = [{name: given} for name, given in setting.volume.prompts.items()]
    line(
        "SAM 2, three schemes: each slice encoded once, not per scheme",
        runs,
        lambda: sum(seconds(lambda alone=alone: setting.run(**alone)) for alone in each_alone),
        lambda: seconds(setting.run),
    )
    videos = {name: given for name, given in setting.volume.prompts.items() if name != "point"}
    objects = [{name: [prompt]} for name, given in videos.items() for prompt in given]

    def tracking(of: Setting = setting, **prompts: Any) -> float:
        return sum(of.run(**prompts or videos).seconds_prompt.values())

    line(
        "SAM 2, tracking alone: four objects in lockstep, not one after another",
        runs,
        lambda: sum(tracking(**one) for one in objects),
        tracking,
    )
    each_row = partial(mock.patch.object, memory_tracking, "equal_neighbours", lambda slices: 1)
    line("SAM 2, tracking alone: first self-attention once per slice", runs, under(each_row, tracking), tracking)
    one_by_one = partial(mock.patch.object, MemoryRules, "head_start", 10**9)
    line("SAM 2, tracking alone: the reverse pass beside the forward one", runs, under(one_by_one, tracking), tracking)
    package = Setting(case, folder, attention="package")
    line(
        "SAM 2, tracking alone: kernels and positions of our own, not the package's",
        runs,
        lambda: tracking(package),
        tracking,
    )
    with mock.patch.object(kernels, "MANY_SCORES_BY_ONEDNN", 2**23):
        fused = Setting(case, folder)
    line(
        "SAM 2, tracking alone, on an AMD CPU: attention to memory by rows, with narrow values, not fused",
        runs,
        lambda: tracking(fused),
        tracking,
    )
    mkl = partial(mock.patch.object, products, "FASTER", False)

    def whole() -> float:
        return seconds(setting.run)

    line("SAM 2, whole, on an AMD CPU: large products by oneDNN, not MKL", runs, under(mkl, whole), whole)
    name = "SAM 2, whole, on a CPU: attention of encoder and decoder by its shape, not fused"
    line(name, runs, under(always_fused, whole), whole)
    half = Setting(case, folder, precision="bfloat16")

    def whole_in_half() -> float:
        return seconds(half.run)

    cast_always = partial(mock.patch.object, torch, "no_grad", torch.inference_mode)
    name = "SAM 2, whole, bfloat16: weights cast once, not at every use"
    line(name, runs, under(cast_always, whole_in_half), whole_in_half)
    line("SAM 2, whole: bfloat16, not float32", runs, lambda: seconds(setting.run), lambda: seconds(half.run))
    job = demo("sam2", volumes=4, shape=(40, 384, 384), spacing=(2.8, 0.365, 0.365), name="job")
    job.make(folder / "job")

    def whole_job() -> float:
        return seconds(lambda: job.segment(folder / "job", folder / "job" / "masks"))

    serial = under(one_after_another, whole_job)
    line("SAM 2, job of four volumes: reading and writing in the background", runs, serial, whole_job)
    one_writer = under(partial(mock.patch.object, volume_job, "WRITERS", 1), whole_job)
    line("SAM 2, the same job: two masks of a volume written at a time", runs, one_writer, whole_job)
    alone = under(partial(mock.patch.object, job, "inference", {"objects_together": 1}), whole_job)
    line("SAM 2, the same job: volumes tracked together", runs, alone, whole_job)
    bits = setting.run(**videos).masks["point_video"]["femur"]
    mask = unpack_bits(bits, setting.volume.size[1]).tobytes()
    line(
        "a mask compressed by ISA-L level 1, not gzip level 1",
        runs,
        lambda: seconds(lambda: gzip.compress(mask, 1)),
        lambda: seconds(lambda: igzip.compress(mask, 1)),
    )
    sizes = len(gzip.compress(mask, 1)), len(igzip.compress(mask, 1))
    print(f"| (its size in bytes) | {sizes[0]} | {sizes[1]} | {sizes[0] / sizes[1]:.2f} |")


def sam_lines(folder: Path, runs: int) -> None:
    """What image schemes gain."""
    case = demo("sam")
    case.make(folder)
    setting, package = Setting(case, folder), Setting(case, folder, attention="package")
    line("SAM, two schemes: fused attention", runs, lambda: seconds(package.run), lambda: seconds(setting.run))
    name = "SAM, two schemes, on a CPU: the decoder's attention by its shape, not fused"
    line(
        name,
        runs,
        under(always_fused, lambda: seconds(setting.run)),
        lambda: seconds(setting.run),
    )
    each_alone = [{name: given} for name, given in setting.volume.prompts.items()]
    line(
        "SAM, two schemes: each slice encoded once, not per scheme",
        runs,
        lambda: sum(seconds(lambda alone=alone: setting.run(**alone)) for alone in each_alone),
        lambda: seconds(setting.run),
    )

    def slice_by_slice() -> float:
        with mock.patch("volprompt.models.volume_work.DECODER_BATCH", 1):
            return sum(setting.run().seconds_prompt.values())

    line(
        "SAM, decoding alone: prompts of many slices as a batch, not slice by slice",
        runs,
        slice_by_slice,
        lambda: sum(setting.run().seconds_prompt.values()),
    )


def memory_lines(runs: int) -> None:
    """What only shows at an official size: a slice that reads a full memory, SAM 2.1 tiny."""
    with without_initialisation():
        module = Sam2Model.build(TINY)
    attention = module.memory_attention
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    pixels, memories = 64 * 64, module.num_maskmem
    for precision in ("float32", "bfloat16"):
        device = torch.device("cpu")
        narrow, package = (
            attention_of(attention, pixels, memories, AttentionSettings(device, precision, as_package))
            for as_package in (False, True)
        )
        kind = getattr(torch, precision)
        coarse, own = torch.randn(1, 256, 64, 64).to(kind), torch.randn(1, pixels, 256)
        memory = torch.randn(1, memories * pixels + 64, 64).to(kind)

        def attend(ours: MemoryAttention, given: Any = (coarse, own, memory, memory, 64)) -> float:
            with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=given[0].dtype == torch.bfloat16):
                return seconds(lambda: ours(*given))

        line(
            f"SAM 2.1, attention to a full memory, {precision}: narrow values",
            runs,
            lambda attend=attend, package=package: attend(package),
            lambda attend=attend, narrow=narrow: attend(narrow),
        )


def official_lines(folder: Path, runs: int) -> None:
    """What only shows at an official size: ViT-B."""
    weights = folder / "vit_b.pth"
    torch.save(random_weights("sam", "vit_b"), weights)
    model = {"family": "sam", "architecture": "vit_b"}
    fused, plain = (
        load_model(model, str(weights), Device("cpu", "float32", "CPU", attention)) for attention in ("auto", "package")
    )
    frame = fused.prepare(np.random.default_rng(0).integers(0, 255, (1, 384, 384)).astype(np.uint8))

    def encode(loaded: PromptableModel) -> float:
        with loaded.inference():
            return seconds(lambda: loaded.encode(frame))

    line("ViT-B, one slice: fused attention", runs, lambda: encode(plain), lambda: encode(fused))

    def build() -> float:
        with without_initialisation():
            return seconds(lambda: SamModel.build("vit_b"))

    line("ViT-B: built without drawing weights", runs, lambda: seconds(lambda: SamModel.build("vit_b")), build)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--official", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    print("| optimisation | without, s | with, s | ratio |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        sam2_lines(Path(temporary) / "sam2", given.runs)
        sam_lines(Path(temporary) / "sam", given.runs)
        memory_lines(given.runs)
        if given.official:
            official_lines(Path(temporary), given.runs)


if __name__ == "__main__":
    main()
