"""What both recipes share: options, schedule, averaged weights, loss curve."""

from __future__ import annotations

import argparse
import csv
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from volprompt.files import atomic

HERE = Path(__file__).parent
SAVE_EVERY_SECONDS = 240
LOG_EVERY_STEPS = 50
WIDE = 1024

# One training step: the progress from 0 to 1 in, the parts of the loss out; their sum is minimised.
Step = Callable[[float], Mapping[str, torch.Tensor]]


def options(
    description: str | None, checkpoint: str, architecture: str, steps: int, learning_rate: float
) -> argparse.ArgumentParser:
    """The options of a recipe."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--output", type=Path, default=HERE / "checkpoints" / "candidates" / checkpoint)
    parser.add_argument("--architecture", default=str(HERE / architecture))
    parser.add_argument("--steps", type=int, default=steps, help="length of the schedule")
    parser.add_argument("--minutes", type=float, default=math.inf, help="end the schedule earlier, after this time")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of torch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--learning-rate", type=float, default=learning_rate)
    parser.add_argument("--warm-up", type=int, default=200, help="steps until the full learning rate")
    parser.add_argument("--start", type=Path, help="a checkpoint to go on from, instead of random weights")
    parser.add_argument("--knees", type=int, default=110, help="synthetic knees in the bank of anatomies")
    parser.add_argument("--shapes", type=int, default=50, help="volumes of arbitrary shapes in the bank")
    parser.add_argument("--cache", type=Path, default=HERE / ".cache", help="folder of the bank of anatomies")
    return parser


def seeded(given: argparse.Namespace) -> np.random.Generator:
    """Seed torch, set its threads, and return the generator of the training pictures."""
    torch.manual_seed(given.seed)
    torch.set_num_threads(given.threads)
    return np.random.default_rng(given.seed)


def train(
    module: torch.nn.Module, step: Step, given: argparse.Namespace, content: Callable[[dict], object]
) -> torch.nn.Module:
    """Minimise the sum of the parts that `step` returns; write checkpoint and loss curve as it goes.

    content: turns a state dict into what the checkpoint file holds. Returns the module with averaged weights.
    """
    optimizer = torch.optim.AdamW(_groups(module), lr=given.learning_rate, betas=(0.9, 0.98))
    averaged = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.998))
    curve = _Curve(given.output.with_suffix(".training.csv"))
    saved, done = time.monotonic(), 0.0
    for number in range(given.steps):
        done = max(number / given.steps, curve.seconds / (60 * given.minutes))
        if done >= 1:
            break
        rate = given.learning_rate * min(1.0, (number + 1) / given.warm_up) * (0.5 + 0.5 * math.cos(math.pi * done))
        for group in optimizer.param_groups:
            group["lr"] = rate * group["share"]
        parts = step(done)
        optimizer.zero_grad(set_to_none=True)
        sum(parts.values()).backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        averaged.update_parameters(module)
        curve.add(number + 1, rate, parts)
        if time.monotonic() - saved > SAVE_EVERY_SECONDS:
            saved = time.monotonic()
            _save(content(averaged.module.state_dict()), given.output)
    module.load_state_dict(averaged.module.state_dict())
    _save(content(module.state_dict()), given.output)
    return module


def _groups(module: torch.nn.Module) -> list[dict]:
    """Weight decay for matrices only; a lower rate where so many units add up that the usual one is unstable."""
    matrices = [p for p in module.parameters() if p.ndim > 1]
    wide = [p for p in matrices if p[0].numel() > WIDE]
    narrow = [p for p in matrices if p[0].numel() <= WIDE]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups = [(narrow, 0.02, 1.0), (wide, 0.02, 0.15), (others, 0.0, 1.0)]
    return [{"params": part, "weight_decay": decay, "share": share} for part, decay, share in groups if part]


def _save(content: object, path: Path) -> None:
    with atomic(path) as temporary:
        torch.save(content, temporary)


class _Curve:
    """The loss curve: means over `LOG_EVERY_STEPS` steps, as CSV and on the screen."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.path.unlink(missing_ok=True)
        self.begin = time.monotonic()
        self.sums: dict[str, list[float]] = {}

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.begin

    def add(self, step: int, rate: float, parts: Mapping[str, torch.Tensor]) -> None:
        for name, value in parts.items():
            self.sums.setdefault(name, []).append(float(value.detach()))
        if step % LOG_EVERY_STEPS:
            return
        means = {name: f"{np.mean(values):.4f}" if values else "" for name, values in self.sums.items()}
        row = {"step": step, "seconds": f"{self.seconds:.0f}", "learning_rate": f"{rate:.2e}", **means}
        new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(" ".join(f"{name} {value}" for name, value in row.items()), flush=True)
        for values in self.sums.values():
            values.clear()
