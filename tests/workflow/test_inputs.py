"""Sources that are more than one file: a change of any part converts its shard again."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from tests.unit.image_files import write_dicom, write_itk, write_nifti
from tests.workflow.small_study import new_study

from volprompt.phantom.image import make_phantom
from volprompt.volumes.converted import read_volume_table


@pytest.mark.parametrize(("header", "data"), [("labels.mhd", "labels.raw"), ("labels.hdr", "labels.img")])
def test_dicom_folders_and_detached_headers(tmp_path: Path, header: str, data: str) -> None:
    study = new_study(tmp_path)
    made = make_phantom(3, shape=(10, 24, 32), spacing=(9.0, 2.9, 2.5), contrast="dess", noise=5)
    image, labels = made.image.astype(np.int16), made.labels.astype(np.uint8)
    write_dicom(tmp_path / "series", image, made.affine)
    write_dicom(tmp_path / "series", image, made.affine, EchoNumbers=2)
    (write_itk if header == "labels.mhd" else write_nifti)(tmp_path / header, labels, made.affine)
    sheet = tmp_path / "volumes.tsv"
    sheet.write_text(f"volume\timage\treference\tseries\nknee_d\tseries\t{header}\t\n")
    assert "holds 2 stacks of slices" in study.run().text
    sheet.write_text(f"volume\timage\treference\tseries\nknee_d\tseries\t{header}\t4@2\n")
    converted = study.run("--", "results/volumes/000")
    assert converted.code == 0, converted.text
    (row,) = read_volume_table(tmp_path / "results" / "volumes" / "000").itertuples()
    assert (row.status, list(row.shape)) == ("ok", [10, 32, 24])
    assert "convert" not in study.plan()
    later = time.time()  # than the conversion
    os.utime(tmp_path / "series", (later, later))
    assert "convert" not in study.plan()
    for part in (tmp_path / data, min(path for path in (tmp_path / "series").rglob("*") if path.is_file())):
        before, content = part.stat(), part.read_bytes()
        part.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        os.utime(part, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert study.plan()["convert"] == 1
        part.write_bytes(content)
        assert "convert" not in study.plan()
