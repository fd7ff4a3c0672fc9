"""Weights in several files: a model folder, and safetensors in shards behind an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from volprompt.checkpoints.catalogue import CheckpointError, read_catalogue
from volprompt.checkpoints.digests import content_digest, sha256_of_weights
from volprompt.checkpoints.load import load_state_dict
from volprompt.checkpoints.shards import file_of, weight_files
from volprompt.files import sha256_of
from volprompt.remembered import DigestMemory
from volprompt.settings.reading import ConfigurationError
from volprompt.study.study import read_study

INDEX = "model.safetensors.index.json"


def sharded(folder: Path) -> Path:
    """A model of two tensors in two files; the index."""
    folder.mkdir(exist_ok=True)
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    for value, (name, file) in enumerate(names.items()):
        save_file({name: torch.full((2,), float(value))}, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder / INDEX


def test_shards_are_read_together(tmp_path: Path) -> None:
    tensors = load_state_dict(sharded(tmp_path))
    assert {name: tensor.tolist() for name, tensor in tensors.items()} == {"a": [0, 0], "b": [1, 1]}


def test_the_digest_is_that_of_all_files(tmp_path: Path) -> None:
    """A shard that is exchanged is noticed, at planning and by the job, whose digests agree."""
    index = sharded(tmp_path)
    before = content_digest(index, DigestMemory(tmp_path / "memory.json"))
    assert before == sha256_of_weights(index)
    save_file({"b": torch.full((2,), 5.0)}, tmp_path / "model-00002-of-00002.safetensors")
    after = content_digest(index, DigestMemory(tmp_path / "memory.json"))
    assert after == sha256_of_weights(index) != before


def test_one_file_is_as_before(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "one.safetensors")
    assert weight_files(tmp_path / "one.safetensors") == [tmp_path / "one.safetensors"]
    assert sha256_of_weights(tmp_path / "one.safetensors") == sha256_of(tmp_path / "one.safetensors")


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {}}',
        '{"weight_map": 3}',
        '{"weight_map": {"a": "../other.safetensors"}}',
        '{"weight_map": {"a": "/etc/passwd"}}',
        '{"weight_map": {"a": "model.pt"}}',
        '{"weight_map": {"a": 3}}',
    ],
)
def test_an_index_that_is_none(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match="is no index of safetensors"):
        load_state_dict(tmp_path / INDEX)


def configuration(checkpoint: str, family: str = "sam3") -> dict[str, Any]:
    return {
        "volumes": "volumes.tsv",
        "structures": {"femur": {"labels": [1]}},
        "schemes": {"point": {"predictor": "image", "point": "centroid"}},
        "models": {"it": {"family": family, "architecture": family, "checkpoint": checkpoint}},
        "experiments": {"all": {"models": ["it"], "schemes": ["point"]}},
    }


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("a.nii").touch()
    Path("volumes.tsv").write_text("volume\timage\treference\na\ta.nii\ta.nii\n")
    return tmp_path


def faults(config: dict[str, Any], catalogue: dict[str, Any]) -> list[str]:
    with pytest.raises(ConfigurationError) as caught:
        read_study(config, catalogue)
    return caught.value.faults


def test_a_model_folder_is_a_checkpoint(here: Path) -> None:
    sharded(here / "folder")
    study = read_study(configuration("./folder"), {})
    assert study.checkpoints["it"].file == f"folder/{INDEX}"
    shards = [f"folder/model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    assert study.checkpoints["it"].files() == [f"folder/{INDEX}", *shards]
    save_file({"a": torch.ones(1)}, here / "folder" / "model.safetensors")
    assert file_of("folder") == "folder/model.safetensors"
    assert file_of("elsewhere.pt") == "elsewhere.pt"


def test_a_lost_shard_is_a_fault(here: Path) -> None:
    sharded(here / "folder")
    (here / "folder" / "model-00002-of-00002.safetensors").unlink()
    (fault,) = faults(configuration("./folder"), {})
    assert fault.startswith("models.it: the checkpoint folder/model-00002-of-00002.safetensors does not exist")


def test_an_empty_folder_is_a_fault(here: Path) -> None:
    (here / "folder").mkdir()
    (fault,) = faults(configuration("./folder"), {})
    assert "there is no checkpoint folder/model.safetensors" in fault


# Files that their authors hand out themselves


@pytest.mark.parametrize("family", ["sam3", "edgetam"])
def test_a_file_that_nobody_can_fetch(here: Path, family: str) -> None:
    """The message says where a person gets it; once it is there, it is recognised by its content."""
    catalogue = read_catalogue(Path(__file__).parents[3] / "config" / "checkpoints.yaml")
    config = configuration(f"{family}.safetensors", family)
    (fault,) = faults(config, catalogue)
    assert f"there is no checkpoint checkpoints/{family}.safetensors; its authors hand it out themselves" in fault
    assert "https://huggingface.co/" in fault
    (here / "checkpoints").mkdir()
    save_file({"a": torch.ones(1)}, here / "checkpoints" / f"{family}.safetensors")
    checkpoint = read_study(config, catalogue).checkpoints["it"]
    assert not checkpoint.catalogued
    assert checkpoint.digest.startswith("content:")


@pytest.mark.parametrize("key", ["url: 'https://a.b/c'", "bytes: 3"])
def test_only_a_file_with_a_page_can_be_without_a_sum(tmp_path: Path, key: str) -> None:
    path = tmp_path / "checkpoints.yaml"
    path.write_text(f"a.pt: {{{key}, licence: MIT, family: sam, architecture: vit_b}}")
    with pytest.raises(CheckpointError, match="sha256 is missing; only a file with a page"):
        read_catalogue(path)
