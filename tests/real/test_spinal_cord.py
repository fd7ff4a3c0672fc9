"""Another anatomy: the shipped configuration on a real spinal cord, with the demo's models in place of large ones."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import yaml
from tests.workflow.small_study import REPOSITORY, Study

pytestmark = pytest.mark.real

DEMO = REPOSITORY / "demo"


def test_from_a_configuration_of_twenty_lines(shared_data: Path, tmp_path: Path) -> None:
    """Every scheme gives masks on the source's grid, scored against the reference; the cord runs along the axial axis.

    The demo's models have seen nothing but synthetic knees, so little is asked of their masks: those of boxes, and of a
    mask that is carried on, have to find some of the cord.
    """
    text = (REPOSITORY / "config" / "spinal_cord.yaml").read_text()
    assert len([line for line in text.splitlines() if line.strip() and not line.startswith("#")]) <= 22
    config = yaml.safe_load(text)
    image, reference = (shared_data / "spinal_cord" / f"t2_{kind}.nii.gz" for kind in ("image", "label"))
    (tmp_path / "cord.tsv").write_text(f"volume\timage\treference\ncord\t{image}\t{reference}\n")
    models = {
        "sam_vit_b": {
            "family": "sam",
            "architecture": str(DEMO / "sam_demo.yaml"),
            "checkpoint": str(DEMO / "checkpoints" / "demo_sam.pth"),
        },
        "sam2_1_tiny": {
            "family": "sam2",
            "architecture": str(DEMO / "sam2_demo.yaml"),
            "checkpoint": str(DEMO / "checkpoints" / "demo_sam2.pt"),
        },
    }
    config |= {"volumes": "cord.tsv", "results": "results", "models": models}
    config["inference"] = {"device": "cpu", "precision": "float32"}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    run = Study(tmp_path).run()
    assert run.code == 0, run.text

    scores = pd.read_parquet(tmp_path / "results" / "tables" / "scores.parquet")
    assert set(scores["status"]) == {"ok"}
    cord = scores[scores["structure"] == "cord"].set_index(["model", "scheme"])["dice"]
    assert set(cord.index.get_level_values("scheme")) == {"point", "box", "box_video", "mask_video"}
    assert cord["sam_vit_b", "box"] > 0.5
    assert cord["sam2_1_tiny", "mask_video"] > 0.3
    truth = np.asarray(nib.load(reference).dataobj) > 0
    (path,) = (tmp_path / "results" / "masks").rglob("mask_video/*_mask.nii.gz")
    mask = nib.load(path)
    assert mask.shape == truth.shape
    # Axes of the file are P, S, R: the axial axis is the second one, and the mask given on its middle slice stays.
    middle = truth.shape[1] // 2
    found = np.asarray(mask.dataobj)[:, [middle, truth.shape[1] - 1 - middle]] > 0
    given = truth[:, [middle, truth.shape[1] - 1 - middle]]
    assert 2 * (found & given).sum() / (found.sum() + given.sum()) > 0.9
