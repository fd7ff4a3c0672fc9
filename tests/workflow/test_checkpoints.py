"""Checkpoints of the catalogue in the workflow: fetched once from a server, verified, never lost."""

import functools
import hashlib
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from tests.workflow.small_study import REPOSITORY, SAM, Study, new_study, snakemake

from volprompt.files import sha256_of
from volprompt.models.sam import SamModel


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server on this machine: its address, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as serving:
        threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}", folder
        serving.shutdown()


def serve_weights(folder: Path, seed: int) -> str:
    """Put a small SAM checkpoint on the server; return its SHA-256."""
    torch.manual_seed(seed)
    torch.save(SamModel.build(str(SAM)).state_dict(), folder / "online.pth")
    return hashlib.sha256((folder / "online.pth").read_bytes()).hexdigest()


def deploy(folder: Path, url: str, sha256: str) -> Path:
    """The workflow with a catalogue of one file."""
    for part in ("rules", "workflow", "envs"):
        shutil.copytree(REPOSITORY / part, folder / part, dirs_exist_ok=True)
    shutil.copy(REPOSITORY / "Snakefile", folder)
    (folder / "config").mkdir(exist_ok=True)
    write_catalogue(folder, url, sha256)
    return folder


def write_catalogue(workflow: Path, url: str, sha256: str) -> None:
    entry = {"url": url, "sha256": sha256, "licence": "Apache-2.0", "family": "sam", "architecture": str(SAM)}
    (workflow / "config" / "checkpoints.yaml").write_text(yaml.safe_dump({"online.pth": entry}))


def one_model(folder: Path, workflow: Path) -> Study:
    """A study of one volume, one model from the catalogue, one scheme."""
    folder.mkdir()
    study = new_study(folder, workflow)
    sheet = folder / "volumes.tsv"
    sheet.write_text("\n".join(sheet.read_text().splitlines()[:2]) + "\n")
    model = {"family": "sam", "architecture": str(SAM), "checkpoint": "online.pth"}
    experiments = {"sam1": {"models": ["online"], "schemes": ["box"]}}
    study.configure(models={"online": model}, experiments=experiments, shards=1)
    return study


def test_fetched_once_and_a_new_sum_reruns_its_model(tmp_path: Path, server: tuple[str, Path]) -> None:
    address, folder = server
    workflow = deploy(tmp_path / "deployed", f"{address}/online.pth", serve_weights(folder, seed=1))
    study = one_model(tmp_path / "study", workflow)
    assert study.plan()["fetch_checkpoint"] == 1
    first = study.run("--", "tables")
    assert first.code == 0, first.text
    assert first.jobs["fetch_checkpoint"] == 1
    file = study.folder / "checkpoints" / "online.pth"
    assert file.read_bytes() == (folder / "online.pth").read_bytes()
    not_made = {"report": 1, "all": 1}  # nobody looks at the report here
    assert study.plan() == not_made

    # Deleted and fetched again, the same content: masks stand.
    file.unlink()
    assert study.plan() in (not_made, {"fetch_checkpoint": 1, **not_made})

    # The catalogue now holds another file under that name.
    write_catalogue(workflow, f"{address}/online.pth", serve_weights(folder, seed=2))
    expected = {"fetch_checkpoint": 1, "segment": 1, "score": 1, "aggregate": 1, "report": 1, "all": 1}
    assert study.plan() == expected
    again = study.run("--", "tables")
    assert again.code == 0, again.text
    assert again.jobs == {rule: count for rule, count in expected.items() if rule not in not_made}
    assert study.plan() == not_made


def test_file_in_place_is_used_offline(tmp_path: Path, server: tuple[str, Path]) -> None:
    _, folder = server
    workflow = deploy(tmp_path / "deployed", "http://127.0.0.1:9/online.pth", serve_weights(folder, seed=1))
    study = one_model(tmp_path / "study", workflow)
    (study.folder / "checkpoints").mkdir()
    shutil.copy(folder / "online.pth", study.folder / "checkpoints")
    assert "fetch_checkpoint" not in study.plan()
    # Nor does it mask the jobs behind it where there is no profile that names the triggers.
    bare = ["--snakefile", str(workflow / "Snakefile"), "--configfile", "config.yaml", "--cores", "2", "--dry-run"]
    assert snakemake(study.folder, *bare).jobs == study.plan()
    assert study.plan()["segment"] == 1
    forced = study.run("--forcerun", "fetch_checkpoint", "--until", "fetch_checkpoint")
    assert forced.code == 0, forced.text
    assert (study.folder / "checkpoints" / "online.pth").exists()


def test_a_file_that_another_run_has_fetched_since_planning_is_taken(tmp_path: Path, server: tuple[str, Path]) -> None:
    _, folder = server
    workflow = deploy(tmp_path / "deployed", "http://127.0.0.1:9/online.pth", serve_weights(folder, seed=1))
    study = one_model(tmp_path / "study", workflow)
    fetched = study.folder / "checkpoints" / "online.pth"
    with (workflow / "Snakefile").open("a") as snakefile:  # after planning and before the first job
        snakefile.write(
            f"\n\nonstart:\n    import os, shutil\n    os.makedirs({str(fetched.parent)!r}, exist_ok=True)\n"
            f"    shutil.copy({str(folder / 'online.pth')!r}, {str(fetched)!r})\n"
        )
    run = study.run("--until", "fetch_checkpoint", "--retries", "0")
    assert run.code == 0, run.text
    assert run.jobs["fetch_checkpoint"] == 1
    assert sha256_of(fetched) == sha256_of(folder / "online.pth")


def test_offline_without_the_file_is_one_clear_error(tmp_path: Path) -> None:
    workflow = deploy(tmp_path / "deployed", "http://127.0.0.1:9/online.pth", "0" * 64)
    download = workflow / "workflow" / "scripts" / "volprompt" / "checkpoints" / "download.py"
    impatient = download.read_text().replace("PAUSE_SECONDS = 2.0", "PAUSE_SECONDS = 0.0")
    assert impatient != download.read_text()
    download.write_text(impatient)
    study = one_model(tmp_path / "study", workflow)
    run = study.run("--until", "fetch_checkpoint", "--retries", "0")
    assert run.code != 0
    assert "checkpoints/online.pth" in run.text
    assert "Traceback" not in run.text
    assert not (study.folder / "checkpoints" / "online.pth").exists()


def test_wrong_file_in_place_is_refused_and_kept(tmp_path: Path) -> None:
    workflow = deploy(tmp_path / "deployed", "http://127.0.0.1:9/online.pth", "0" * 64)
    study = one_model(tmp_path / "study", workflow)
    study.add_checkpoint("checkpoints/online.pth", seed=3)
    run = study.run()
    assert run.code != 0
    path = study.folder / "checkpoints" / "online.pth"
    assert f"its SHA-256 is {sha256_of(path)}, expected {'0' * 64}; move it away" in run.text
