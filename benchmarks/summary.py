"""What the other scripts found, in one table, beside published figures: python benchmarks/summary.py.

Reads what `compare.py` and `utilisation.py` wrote into results/benchmarks, of all sizes and devices.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cases import RESULTS

# Of SAM 2's repository: one object on an A100, frames per second, compiled and before (October 2024).
PUBLISHED = {
    "sam2.1_hiera_tiny": "91 frames/s compiled, 47 before (A100)",
    "sam2.1_hiera_small": "85, 43",
    "sam2.1_hiera_base_plus": "64, 35",
    "sam2.1_hiera_large": "40, 24",
    "sam_vit_b": "12.1 images/s, 92.1 with everything on (A100, segment-anything-fast)",
    "sam_vit_h": "2.8, 23.6",
}


def ratios(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """Case, measure, value and published figure, of what `compare.py` wrote."""
    for row in json.loads(path.read_text(encoding="utf-8")):
        case = f"{row['case']} ({row['device']}, {row['ours_precision']})"
        published = PUBLISHED.get(row["case"], "")
        yield case, "times the official predictors", f"{row['ratio']:.2f}", ""
        yield case, "the same with start-up", f"{row['ratio_with_startup']:.2f}", ""
        yield case, "slices/s, all schemes", f"{row['ours_slices'] / row['ours_seconds']:.2f}", published
        yield case, "lowest Dice between both", f"{row['lowest_dice']:.4f}", ""


def utilisation(path: Path) -> Iterator[tuple[str, str, str, str]]:
    """The same of what `utilisation.py` wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    case = f"{found.pop('case')} ({path.stem.rsplit('_', 1)[1]})"
    for measure, value in found.items():
        published = PUBLISHED.get(case.split(" ")[0], "") if measure == "slices/s with 1 objects" else ""
        yield case, measure, f"{value:.0%}" if "share" in measure else f"{value:.2f}", published


def main() -> None:
    """Print the table."""
    print("| case | measure | here | published |\n|---|---|---:|---|")
    for name, read in (("compare_*.json", ratios), ("utilisation_*.json", utilisation)):
        for path in sorted(RESULTS.glob(name)):
            for cells in read(path):
                print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
