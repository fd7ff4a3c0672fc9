"""The paper's whole study, planned and not run."""

from pathlib import Path

import pytest
import yaml
from tests.workflow.small_study import REPOSITORY, Study


def paper_study(folder: Path, volumes: int) -> Study:
    """The shipped configuration over a generated sheet; the images are empty files, which planning does not open."""
    (folder / "images").mkdir()
    rows, clicks = ["volume\timage\treference"], ["volume,structure,slice,x,y"]
    for number in range(volumes):
        name = f"oai_{9_000_000 + 37 * number}"
        image, reference = f"images/{name}.nii.gz", f"images/{name}_mask.nii.gz"
        (folder / image).touch()
        (folder / reference).touch()
        rows.append(f"{name}\t{image}\t{reference}")
        clicks += [f"{name},{structure},80,150,120" for structure in ("femur", "tibia", "patella")]
    (folder / "config").mkdir()
    (folder / "config" / "volumes.tsv").write_text("\n".join(rows) + "\n")
    (folder / "config" / "clicks.csv").write_text("\n".join(clicks) + "\n")
    config = yaml.safe_load((REPOSITORY / "config" / "config.yaml").read_text())
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    return Study(folder)


@pytest.mark.parametrize("entry", ["Snakefile", "workflow/Snakefile"])
def test_jobs_of_the_papers_study(tmp_path: Path, entry: str) -> None:
    study = paper_study(tmp_path, volumes=488)
    study.workflow = (REPOSITORY / entry).parent
    # 3 SAM and 4 SAM 2 models on 16 shards each
    assert study.plan() == {
        "convert": 16,
        "extract_prompts": 16,
        "fetch_checkpoint": 7,
        "segment": 7 * 16,
        "score": 7 * 16,
        "aggregate": 1,
        "report": 1,
        "all": 1,
    }


def test_gpu_is_asked_for_by_segment_alone(tmp_path: Path) -> None:
    study = paper_study(tmp_path, volumes=20)
    config = study.config
    config["inference"]["device"] = "cuda"
    study.configure(**config)
    planned = study.run("--dry-run", "--logger", "jobs").planned
    assert {job["rule_name"] for job in planned if job["resources"].get("gpu")} == {"segment"}
