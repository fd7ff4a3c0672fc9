"""What a result was made from: written beside it, read back, compared."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from volprompt.identity import (
    DamagedResult,
    differences,
    digest_of,
    digest_of_intact,
    identity_path,
    read_identity,
    signature_of,
    write_identity,
)
from volprompt.remembered import DigestMemory


@pytest.fixture
def masks(tmp_path: Path) -> Path:
    """A folder of two masks with its identity."""
    folder = tmp_path / "masks" / "000"
    (folder / "point").mkdir(parents=True)
    (folder / "point" / "a.nii.gz").write_bytes(b"mask a")
    (folder / "run.parquet").write_bytes(b"rows")
    (folder / ".snakemake_timestamp").touch()
    write_identity(folder, {"precision": "float32", "schemes": {"point": {}}}, {"volumes": "12ab"})
    return folder


def test_an_identity_is_read_as_it_was_written(masks: Path) -> None:
    identity = read_identity(masks)
    assert identity is not None
    assert identity.settings == {"precision": "float32", "schemes": {"point": {}}}
    assert identity.made_from == {"volumes": "12ab"}
    assert sorted(identity.files) == ["point/a.nii.gz", "run.parquet"]
    assert identity.files["point/a.nii.gz"].bytes == 6
    assert identity.digest == digest_of_intact(masks)


def test_that_of_a_file_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "000.parquet").write_bytes(b"rows")
    (tmp_path / "000_slices.parquet").write_bytes(b"more rows")
    both = [tmp_path / "000.parquet", tmp_path / "000_slices.parquet"]
    write_identity(tmp_path / "000.parquet", {}, {}, both)
    assert identity_path(tmp_path / "000.parquet") == tmp_path / "000.json"
    identity = read_identity(tmp_path / "000.parquet")
    assert identity is not None
    assert sorted(identity.files) == ["000.parquet", "000_slices.parquet"]


def test_the_digest_covers_settings_sources_and_content_but_no_place_and_no_time(masks: Path, tmp_path: Path) -> None:
    digest = digest_of_intact(masks)
    shutil.move(masks, tmp_path / "elsewhere")
    moved = tmp_path / "elsewhere"
    assert digest_of_intact(moved) == digest
    os.utime(moved / "run.parquet", (1, 1))
    write_identity(moved, {"schemes": {"point": {}}, "precision": "float32"}, {"volumes": "12ab"})
    assert digest_of_intact(moved) == digest  # keys in another order, another time
    write_identity(moved, {"precision": "bfloat16", "schemes": {"point": {}}}, {"volumes": "12ab"})
    assert digest_of_intact(moved) != digest
    write_identity(moved, {"precision": "float32", "schemes": {"point": {}}}, {"volumes": "12ac"})
    assert digest_of_intact(moved) != digest
    (moved / "run.parquet").write_bytes(b"row")
    write_identity(moved, {"precision": "float32", "schemes": {"point": {}}}, {"volumes": "12ab"})
    assert digest_of_intact(moved) != digest


@pytest.mark.parametrize("text", ["", "{", "[]", '{"schema_version": 1}', '{"schema_version": 0}', '{"files": 3}'])
def test_a_damaged_identity_is_none(masks: Path, text: str) -> None:
    identity_path(masks).write_text(text)
    assert read_identity(masks) is None
    with pytest.raises(DamagedResult, match=r"identity\.json is missing or damaged"):
        digest_of_intact(masks)


def test_an_identity_that_was_edited_is_none(masks: Path) -> None:
    path = identity_path(masks)
    content = json.loads(path.read_text())
    for key, value in (("files", {}), ("settings", {"precision": "bfloat16"}), ("settings", None), ("made_from", [1])):
        path.write_text(json.dumps({**content, key: value}))
        assert read_identity(masks) is None


def test_files_that_are_missing_or_were_edited_are_named_before_they_are_used(masks: Path) -> None:
    os.utime(masks / "run.parquet", (1, 1))  # touched
    digest_of_intact(masks)
    (masks / "point" / "a.nii.gz").write_bytes(b"mask b")
    (masks / "run.parquet").unlink()
    with pytest.raises(DamagedResult) as raised:
        digest_of_intact(masks)
    assert "a.nii.gz was edited" in str(raised.value)
    assert "run.parquet is missing" in str(raised.value)
    assert "Run the same command again" in str(raised.value)


def test_a_signature_changes_with_every_write_and_not_with_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    file = folder / "a.nii"
    file.write_bytes(b"first")
    before = file.stat()
    signature = signature_of([file], folder)
    folder.rename(tmp_path / "renamed")
    folder, file = tmp_path / "renamed", tmp_path / "renamed" / "a.nii"
    assert signature_of([file], folder) == signature
    file.write_bytes(b"other")  # as large, and dated back as `cp -p` does
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_mtime_ns == before.st_mtime_ns
    assert signature_of([file], folder) != signature


def test_differences_name_the_place_and_both_values() -> None:
    stored = {"a": {"b": 1, "c": [1, 2]}, "d": "x", "gone": True}
    wanted = {"a": {"b": 2, "c": [1, 2]}, "d": "x", "new": None}
    assert differences(stored, wanted) == ["a.b: 1, now 2", "gone: true, now none"]
    assert differences(stored, stored) == []
    (long,) = differences({"a": list(range(100))}, {"a": 1})
    assert len(long) < 100


def test_the_digest_of_plain_values_does_not_depend_on_the_order_of_keys() -> None:
    assert digest_of({"a": 1, "b": [1, 2]}) == digest_of({"b": [1, 2], "a": 1})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})


def test_remembered_digests_are_computed_once_for_each_signature(tmp_path: Path) -> None:
    computed: list[str] = []

    def compute(digest: str) -> str:
        computed.append(digest)
        return digest

    memory = DigestMemory(tmp_path / "digests.json")
    assert [memory.digest("a", "s1", lambda: compute("d1")) for _ in range(2)] == ["d1", "d1"]
    memory.save()
    again = DigestMemory(tmp_path / "digests.json")
    assert again.digest("a", "s1", lambda: compute("never")) == "d1"
    assert again.digest("a", "s2", lambda: compute("d2")) == "d2"
    assert computed == ["d1", "d2"]


@pytest.mark.parametrize("text", ["", "[1]", '{"a": 1}', '{"a": ["s", "d", "x"]}', "\x00"])
def test_a_damaged_memory_is_forgotten(tmp_path: Path, text: str) -> None:
    (tmp_path / "digests.json").write_text(text)
    memory = DigestMemory(tmp_path / "digests.json")
    assert memory.digest("a", "s", lambda: "d") == "d"
    memory.save()
    assert json.loads((tmp_path / "digests.json").read_text()) == {"a": ["s", "d"]}


def test_a_memory_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").touch()
    memory = DigestMemory(tmp_path / "file" / "digests.json")
    memory.digest("a", "s", lambda: "d")
    memory.save()
    assert "cannot be remembered" in caplog.text
