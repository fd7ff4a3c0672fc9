"""Write the demo's checkpoints: both small models, freshly initialised, in the file layout of the official ones.

python demo/make_checkpoints.py [FOLDER] [--seed SEED]
"""

import argparse
from pathlib import Path

import torch

from volprompt.files import atomic
from volprompt.models.sam import build_sam
from volprompt.models.sam2 import build_sam2

HERE = Path(__file__).parent


def make_checkpoints(folder: Path, seed: int) -> list[Path]:
    """Write demo_sam.pth and demo_sam2.pt into `folder` where they are missing; return their paths."""
    made = []
    for name, build in (("demo_sam.pth", small_sam), ("demo_sam2.pt", small_sam2)):
        path = folder / name
        made.append(path)
        if path.exists():
            continue
        torch.manual_seed(seed)
        with atomic(path) as temporary:
            torch.save(build(), temporary)
    return made


def small_sam() -> dict:
    """The content of a SAM checkpoint: the state dict itself."""
    return build_sam(str(HERE / "sam_small.yaml")).state_dict()


def small_sam2() -> dict:
    """The content of a SAM 2 checkpoint: the state dict under `model`."""
    return {"model": build_sam2(str(HERE / "sam2_small.yaml")).state_dict()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, default=HERE / "checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    for path in make_checkpoints(**vars(parser.parse_args())):
        print(path)
