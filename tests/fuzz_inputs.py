"""Inputs that are nearly right: images, tables and configurations with bytes flipped, cut off or exchanged, by a seed.

Each ends in a result or in one clear fault; anything else is a finding. By hand, with findings kept in a folder:

    python -m tests.fuzz_inputs --count 500 --seed 1 --keep findings
"""

from __future__ import annotations

import argparse
import gzip
import multiprocessing
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import yaml
from tests.unit.image_files import (
    oblique,
    pack,
    write_analyze,
    write_dicom,
    write_enhanced,
    write_itk,
    write_mgh,
    write_nifti,
    write_segmentation,
)

SECONDS = 20.0
ADDRESS_SPACE = 6 * 2**30
HEADER_BYTES = 600
SHAPE, AFFINE = (12, 10, 8), oblique((2.0, 1.0, 3.0))
STRUCTURES = {"femur": [1], "tibia": [2]}
FRAMES = {"axis": "sagittal", "intensity_percentiles": [0, 100], "coding": "lossless"}
# An exception's name where a sentence should be.
UNFORESEEN = re.compile(r"(^|[:;|] )[A-Z]\w+(Error|Exception|Warning): |Traceback")
NUMBERS = [struct.pack("<i", value) for value in (0, -1, 1, 2**31 - 1, -(2**31), 65536)]
NUMBERS += [struct.pack("<f", value) for value in (0.0, -1.0, 1e-38, 3e38, float("inf"), float("nan"))]
WORDS = [
    b"0",
    b"-5",
    b"1e38",
    b"nan",
    b"inf",
    b"99999999999",
    b"../../etc/passwd",
    b"",
    b"/dev/zero",
    b"%d",
    b"LIST",
    b"~",
]


@dataclass(frozen=True)
class Outcome:
    """What became of an input: `result`, `fault`, or as a finding `unforeseen`, `crash` or `hang`."""

    name: str
    kind: str
    text: str
    seconds: float
    check_mib: float = 0.0


# The inputs


def _labels() -> np.ndarray:
    labels = np.zeros(SHAPE, np.int16)
    labels[2:6, 2:6, 1:7], labels[7:10, 3:8, 2:6] = 1, 2
    return labels


def _grey() -> np.ndarray:
    return (2 * np.random.default_rng(3).integers(0, 400, SHAPE) + 300 * _labels()).astype(np.int16)


def write_sources(folder: Path) -> dict[str, Path]:
    """Write an image in every format, by a name for it; each in a folder of its own."""
    plain = {
        "nifti": ("image.nii", write_nifti),
        "nifti_gz": ("image.nii.gz", write_nifti),
        "analyze": ("image.hdr", lambda path, array, affine: write_analyze(path.with_suffix(".img"), array, affine)),
        "mgh": ("image.mgh", write_mgh),
        "mgz": ("image.mgz", write_mgh),
        "nrrd": ("image.nrrd", write_itk),
        "nrrd_gz": ("image.nrrd", lambda *args: write_itk(*args, compress=True)),
        "nhdr": ("image.nhdr", write_itk),
        "mha": ("image.mha", write_itk),
        "mha_gz": ("image.mha", lambda *args: write_itk(*args, compress=True)),
        "mhd": ("image.mhd", write_itk),
    }
    sources = {}
    for name, (file, write) in plain.items():
        for kind, array in (("image", _grey()), ("reference", _labels())):
            (folder / name / kind).mkdir(parents=True)
            write(folder / name / kind / file, array, AFFINE)
            sources[f"{name} {kind}"] = folder / name / kind / file
    slices = write_dicom(folder / "dicom" / "series", _grey(), AFFINE)
    sources["dicom image"] = folder / "dicom" / "series"
    for archive in ("series.zip", "series.tar.gz"):
        (folder / archive).mkdir()
        sources[f"{archive} image"] = Path(pack(folder / "dicom" / "series", folder / archive / archive))
    (folder / "enhanced").mkdir()
    sources["enhanced image"] = write_enhanced(folder / "enhanced" / "image.dcm", _grey(), AFFINE)
    shutil.rmtree(folder / "enhanced" / "image.dcm_first")
    (folder / "segmentation").mkdir()
    masks = [(_labels() == number).transpose(2, 1, 0) for number in (1, 2)]
    sources["segmentation reference"] = write_segmentation(folder / "segmentation" / "labels.dcm", slices, masks)
    return sources


# The changes


def _flip(content: bytearray, dice: random.Random) -> None:
    for _ in range(dice.randint(1, 8)):
        end = min(len(content), HEADER_BYTES) if dice.random() < 0.7 else len(content)
        content[dice.randrange(end)] ^= 1 << dice.randrange(8)


def _cut(content: bytearray, dice: random.Random) -> None:
    del content[dice.randrange(len(content)) :]


def _swap(content: bytearray, dice: random.Random) -> None:
    size, end = dice.choice([2, 4, 8]), min(len(content), HEADER_BYTES)
    one, other = (dice.randrange(0, max(1, end - size), size) for _ in range(2))
    content[one : one + size], content[other : other + size] = content[other : other + size], content[one : one + size]


def _set_number(content: bytearray, dice: random.Random) -> None:
    at = dice.randrange(0, max(1, min(len(content), HEADER_BYTES) - 4), 2)
    content[at : at + 4] = dice.choice(NUMBERS)


def _set_word(content: bytearray, dice: random.Random) -> None:
    """Exchange a word of a text for another one, as many headers are texts."""
    words = list(re.finditer(rb"[^\s=:,()\[\]{}]+", bytes(content[:HEADER_BYTES])))
    if words:
        word = dice.choice(words)
        content[word.start() : word.end()] = dice.choice(WORDS)


def _move_line(content: bytearray, dice: random.Random) -> None:
    """Drop a line, double it, or put it elsewhere."""
    lines = bytes(content).split(b"\n")
    line = lines.pop(dice.randrange(min(len(lines), 20)))
    for _ in range(dice.randrange(3)):
        lines.insert(dice.randrange(min(len(lines) + 1, 20)), line)
    content[:] = b"\n".join(lines)


CHANGES: list[Callable[[bytearray, random.Random], None]] = [_flip, _cut, _swap, _set_number, _set_word, _move_line]


def change(path: Path, dice: random.Random) -> str:
    """Change a file, or one file of a folder, and return what was done. A .gz file is sometimes changed inside."""
    if path.is_dir():
        path = dice.choice(sorted(path.iterdir()))
    content = bytearray(path.read_bytes())
    inside = content[:2] == b"\x1f\x8b" and dice.random() < 0.7
    if inside:
        content = bytearray(gzip.decompress(content))
    done = dice.choice(CHANGES)
    if content:
        done(content, dice)
    path.write_bytes(gzip.compress(content) if inside else content)
    return f"{path.name}{done.__name__}{' inside' if inside else ''}"


# What is tried


def _try_image(row: dict[str, str], folder: Path) -> tuple[str, str, float]:
    """Check and convert a volume in this process. Returns kind, text, and the memory that the check took, MiB."""
    from volprompt.study.check import check_volumes
    from volprompt.volumes.convert import convert_shard
    from volprompt.volumes.converted import read_volume_table

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    faults = check_volumes([row], "sagittal", None, folder / "faults.tsv")
    mib = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    convert_shard([row], FRAMES, STRUCTURES, folder / "000")
    (found,) = read_volume_table(folder / "000").itertuples()
    text = f"{'; '.join(fault.finding for fault in faults)} | {found.reason}"
    if faults and found.status == "ok":
        return "unforeseen", f"the check refuses what is converted: {text}", mib
    return ("result" if found.status == "ok" else "fault"), text, mib


def _try_study(config: Path, folder: Path) -> tuple[str, str, float]:
    """Read a study with its tables in this process."""
    from volprompt.settings.reading import ConfigurationError, load_config
    from volprompt.study.study import read_study

    del folder
    try:
        read_study(load_config(config), {})
    except ConfigurationError as error:
        return "fault", str(error), 0.0
    return "result", "", 0.0


def _work(pipe: Connection) -> None:
    import logging

    import volprompt.volumes.convert

    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    logging.getLogger("volprompt").setLevel(logging.CRITICAL)
    assert volprompt.volumes.convert
    while True:
        kind, what, folder = pipe.recv()
        try:
            pipe.send((_try_image if kind == "image" else _try_study)(what, folder))
        except BaseException as error:
            pipe.send(("unforeseen", f"{type(error).__name__}: {error}", 0.0))


class Worker:
    """A process that tries inputs, and is replaced when it dies or takes too long."""

    def __init__(self) -> None:
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    def attempt(self, name: str, kind: str, what: object, folder: Path) -> Outcome:
        """Try an input; arguments as `_try_image` or `_try_study` take them."""
        start = time.monotonic()
        self.pipe.send((kind, what, folder))
        found, text, mib = "hang", f"longer than {SECONDS:g} s", 0.0
        try:
            if self.pipe.poll(SECONDS):
                found, text, mib = self.pipe.recv()
        except EOFError:
            self.process.join()
            found, text = "crash", f"exit code {self.process.exitcode}"
        if found in ("crash", "hang"):
            self.process.kill()
            self._start()
        elif found == "fault" and UNFORESEEN.search(text):
            found = "unforeseen"
        return Outcome(name, found, text, time.monotonic() - start, mib)

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()


def _write_study(folder: Path, image: Path, reference: Path) -> Path:
    """A small study with sample sheet and clicks; returns its configuration."""
    rows = ["volume\timage\treference\tgroup", f"a\t{image}\t{reference}\tp1", f"b\t{image}\t{reference}\tp2"]
    (folder / "volumes.tsv").write_text("\n".join(rows) + "\n")
    (folder / "clicks.csv").write_text("volume,structure,slice,x,y\na,femur,3,4,5\nb,tibia,2,1.5,2.5\n")
    (folder / "weights.pt").write_bytes(b"weights")
    config = {
        "volumes": str(folder / "volumes.tsv"),
        "clicks": str(folder / "clicks.csv"),
        "results": str(folder / "results"),
        "frames": {"axis": "sagittal", "intensity_percentiles": [0.5, 99.5]},
        "structures": {"femur": {"labels": [1]}, "tibia": {"labels": [2]}},
        "schemes": {"point": {"predictor": "image", "point": "centroid", "negatives": "others"}},
        "models": {"mine": {"family": "sam", "architecture": "vit_b", "checkpoint": str(folder / "weights.pt")}},
        "experiments": {"one": {"models": ["mine"], "schemes": ["point"]}},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return folder / "config.yaml"


def outcomes(count: int, seed: int, keep: Path | None = None) -> Iterator[Outcome]:
    """Try `count` inputs, four of five of them images. keep: folder for the inputs of findings."""
    worker = Worker()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as temporary:
        sources = write_sources(Path(temporary) / "sources")
        whole = {kind: sources[f"nifti {kind}"] for kind in ("image", "reference")}
        for number in range(count):
            dice = random.Random(f"{seed} {number}")
            folder = Path(temporary) / f"{number:05d}"
            folder.mkdir()
            if number % 5:
                name = dice.choice(sorted(sources))
                role = name.split()[-1]
                copy = shutil.copytree(sources[name].parent, folder / "source") / sources[name].name
                done = change(copy if copy.is_dir() else dice.choice(sorted(copy.parent.iterdir())), dice)
                what: object = {"volume": "knee", **{kind: str(path) for kind, path in whole.items()}, role: str(copy)}
            else:
                config = _write_study(folder, whole["image"], whole["reference"])
                name = dice.choice(["config.yaml", "volumes.tsv", "clicks.csv"])
                done, what = change(folder / name, dice), config
            outcome = worker.attempt(f"{number} {name}: {done}", "image" if number % 5 else "study", what, folder)
            if keep and outcome.kind not in ("result", "fault"):
                shutil.copytree(folder, keep / folder.name, dirs_exist_ok=True)
            shutil.rmtree(folder)
            yield outcome
    worker.stop()


def main() -> int:
    """Print findings as they come, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    arguments = parser.parse_args()
    counts: Counter[str] = Counter()
    slowest, largest = 0.0, 0.0
    for outcome in outcomes(arguments.count, arguments.seed, arguments.keep):
        counts[outcome.kind] += 1
        slowest, largest = max(slowest, outcome.seconds), max(largest, outcome.check_mib)
        if outcome.kind not in ("result", "fault"):
            print(f"{outcome.kind}: {outcome.name}: {outcome.text[:300]}", flush=True)
    print(dict(counts), f"slowest {slowest:.1f} s, largest check {largest:.0f} MiB")
    return int(set(counts) > {"result", "fault"})


if __name__ == "__main__":
    sys.exit(main())
