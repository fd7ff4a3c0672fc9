"""Sample sheets from folder layouts: what is matched, and what is said of the rest."""

from __future__ import annotations

import contextlib
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from tests.unit.command_line import volprompt
from tests.unit.image_files import pack, write_dicom

from volprompt.columns import reserved_names
from volprompt.settings.reading import read_settings
from volprompt.study.sheets import read_volumes

CONFIGURATION = {
    "schemes": {"point": {"predictor": "image", "point": "centroid"}},
    "models": {"m": {"family": "sam", "architecture": "vit_b", "checkpoint": "m.pth"}},
    "experiments": {"all": {"models": ["m"], "schemes": ["point"]}},
}


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def sheet(tmp_path: Path, *arguments: str | Path) -> dict[str, tuple[str, str, str]]:
    """Rows of the sheet that the command writes: volume -> image, reference, group, relative to tmp_path."""
    assert volprompt("sheet", *arguments, "--out", tmp_path / "volumes.tsv") == 0
    with (tmp_path / "volumes.tsv").open(newline="") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [*rows[0]] == ["volume", "image", "reference", "group"]
    root = f"{tmp_path}/"
    return {
        row["volume"]: (row["image"].removeprefix(root), row["reference"].removeprefix(root), row["group"])
        for row in rows
    }


def refused(*arguments: str | Path) -> str:
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        assert volprompt("sheet", *arguments) == 1
    return printed.getvalue()


def structures(printed: str) -> dict:
    """The snippet for the configuration."""
    return yaml.safe_load(printed[printed.index("structures:") :])["structures"]


def test_nnunet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "Dataset001_Knee"
    touch(folder, "imagesTr/knee_001_0000.nii.gz", "imagesTr/knee_002_0000.mha", "labelsTr/knee_001.nii.gz")
    touch(folder, "imagesTr/knee_001_0001.nii.gz", "imagesTr/odd.nii.gz", "labelsTr/knee_009.nii.gz")
    touch(folder, "imagesTs/knee_003_0000.nii.gz")
    labels = {"background": 0, "femur": 1, "tibia bone": 3, "cartilage": [2, 4]}
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert sheet(tmp_path, "nnunet", folder) == {
        "knee_001": (
            "Dataset001_Knee/imagesTr/knee_001_0000.nii.gz",
            "Dataset001_Knee/labelsTr/knee_001.nii.gz",
            "",
        ),
        "knee_002": ("Dataset001_Knee/imagesTr/knee_002_0000.mha", "", ""),
        "knee_003": ("Dataset001_Knee/imagesTs/knee_003_0000.nii.gz", "", ""),
    }
    printed = capsys.readouterr().out
    assert "3 volumes, 1 of them with a reference" in printed
    assert "without reference: knee_002, knee_003" in printed
    assert "knee_001_0001.nii.gz: another channel than the first" in printed
    assert "odd.nii.gz: its name has no channel" in printed
    assert "knee_009.nii.gz: no image in imagesTr" in printed
    assert structures(printed) == {
        "femur": {"labels": [1]},
        "tibia_bone": {"labels": [3]},
        "cartilage": {"labels": [2, 4]},
    }


def nnunet_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str], labels: dict) -> tuple[dict, str]:
    """What the layout writes for the configuration of a data set with these labels, and its text."""
    touch(tmp_path / "D", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "D" / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert volprompt("sheet", "nnunet", tmp_path / "D", "--out", tmp_path / "volumes.tsv", "--force") == 0
    printed = capsys.readouterr().out
    return yaml.safe_load(printed[printed.index("volumes: ") :]), printed


def test_the_ignore_label_is_no_structure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    written, _ = nnunet_labels(tmp_path, capsys, {"background": 0, "femur": 1, "tibia": 2, "ignore": 3})
    assert written["structures"] == {"femur": {"labels": [1]}, "tibia": {"labels": [2]}}
    assert written["ignore"] == {"labels": [3]}
    assert "ignore" not in nnunet_labels(tmp_path, capsys, {"background": 0, "femur": 1})[0]


def test_regions_and_names_that_no_structure_can_have(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {"background": 0, "whole tumor": [1, 2, 3], "tumor core": [2, 3], "L kidney": 4, "L_kidney": 5}
    labels |= {
        "股骨": 6,
        "胫骨": 7,
        "combined": 8,
        "L_kidney_low": 9,
        "no": 10,
        "010": 11,
        "l_KIDNEY": 12,
        "Fémur.": 13,
    }
    labels |= {"n": 14, "x" * 120: 15, "x" * 121: 16, "Combined": 17, "L_kidney_4": 18}
    written, printed = nnunet_labels(tmp_path, capsys, labels)
    assert {name: parts["labels"] for name, parts in written["structures"].items()} == {
        "whole_tumor": [1, 2, 3],
        "tumor_core": [2, 3],
        "L_kidney_4_4": [4],
        "L_kidney": [5],
        "label_6": [6],
        "label_7": [7],
        "combined_8": [8],
        "L_kidney_low_9": [9],
        "no": [10],
        "010": [11],
        "l_KIDNEY_12": [12],
        "Femur": [13],
        "n_14": [14],
        "x" * 100: [15],
        "x" * 97 + "_16": [16],
        "Combined_17": [17],
        "L_kidney_4": [18],
    }
    for line in (
        'combined_8: {labels: [8]}  # "combined" in dataset.json: the name is taken by a score or a column',
        'L_kidney_4_4: {labels: [4]}  # "L kidney" in dataset.json: another label is called L_kidney already',
        'label_6: {labels: [6]}  # "股骨" in dataset.json: no letter of it can be part of a file\'s name',
        "  L_kidney: {labels: [5]}\n",
    ):
        assert line in printed
    # The study takes all of them.
    read_settings({**CONFIGURATION, "structures": written["structures"]})
    assert not set(written["structures"]) & reserved_names(written["structures"])


@pytest.mark.parametrize(
    "labels", [{"femur": "one", "tibia": 2}, {"femur": [1.5]}, {"femur": True}, {"femur": -1}, [1]]
)
def test_labels_that_are_no_numbers(tmp_path: Path, labels: object) -> None:
    touch(tmp_path / "D", "imagesTr/a_0000.nii.gz")
    (tmp_path / "D" / "dataset.json").write_text(json.dumps({"labels": labels}))
    assert "has no readable `labels`" in refused("nnunet", tmp_path / "D", "--out", tmp_path / "volumes.tsv")


def test_a_pair_of_header_and_data_is_found_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "images/a.hdr", "images/a.img", "images/b.HDR", "images/b.IMG", "images/c.mhd", "images/c.raw")
    touch(tmp_path, "references/a_label.hdr.gz", "references/a_label.img.gz")
    assert sheet(tmp_path, "folders", tmp_path / "images", tmp_path / "references") == {
        "a": ("images/a.hdr", "references/a_label.hdr.gz", ""),
        "b": ("images/b.HDR", "", ""),
        "c": ("images/c.mhd", "", ""),
    }
    assert "not used" not in capsys.readouterr().out


def test_labels_of_the_first_nnunet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "Task1", "imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz")
    (tmp_path / "Task1" / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "2": "femur"}}))
    sheet(tmp_path, "nnunet", tmp_path / "Task1")
    assert structures(capsys.readouterr().out) == {"femur": {"labels": [2]}}


def test_bids(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(
        tmp_path / "bids",
        "sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/ses-1/anat/sub-02_ses-1_T2w.nii.gz",
        "sub-02/ses-2/anat/sub-02_ses-2_T2w.nii.gz",
        "sub-03/anat/sub-03_T1w.nii.gz",
        "sub-03/anat/sub-03_T2w.nii.gz",
        "derivatives/manual/sub-01/anat/sub-01_desc-manual_dseg.nii.gz",
        "derivatives/manual/sub-02/ses-2/anat/sub-02_ses-2_T2w_seg.nii.gz",
        "derivatives/manual/sub-03/anat/sub-03_T2w_dseg.nii.gz",
        "derivatives/manual/sub-03/anat/sub-03_dseg.nii.gz",
        "derivatives/manual/sub-09/anat/sub-09_dseg.nii.gz",
    )
    found = sheet(tmp_path, "bids", tmp_path / "bids")
    assert {name: (Path(reference).name, group) for name, (_, reference, group) in found.items()} == {
        "sub-01_T1w": ("sub-01_desc-manual_dseg.nii.gz", "sub-01"),
        "sub-02_ses-1_T2w": ("", "sub-02"),
        "sub-02_ses-2_T2w": ("sub-02_ses-2_T2w_seg.nii.gz", "sub-02"),
        "sub-03_T1w": ("", "sub-03"),
        "sub-03_T2w": ("sub-03_T2w_dseg.nii.gz", "sub-03"),
    }
    printed = capsys.readouterr().out
    assert "sub-03_dseg.nii.gz: fits 2 images" in printed
    assert "sub-09_dseg.nii.gz: fits 0 images" in printed


def test_oai_zib(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An archive named by its barcode, a folder of DICOM, a NIfTI file; a subject with two series cannot be matched."""
    oai = tmp_path / "oai"
    write_dicom(oai / "0.C.2" / "9000099" / "20050412" / "10592708", np.zeros((2, 2, 2), np.int16), np.eye(4))
    (oai / "0.C.2" / "9001104" / "20050112").mkdir(parents=True)
    pack(
        oai / "0.C.2" / "9000099" / "20050412" / "10592708",
        oai / "0.C.2" / "9001104" / "20050112" / "10240006.tar.gz",
    )
    touch(
        oai,
        "9002116_10000001_dess.nii.gz",
        "0.E.1/9003380/20041203/10057003.zip",
        "0.E.1/9003380/20041203/10057006.zip",
    )
    touch(oai, "0.E.1/9004175/20041203/10057111.tar.gz", "0.E.1/contents.csv")
    zib = tmp_path / "zib"
    touch(zib, "9000099.segmentation_masks.mhd", "9000099.segmentation_masks.raw", "9001104.segmentation_masks.nii.gz")
    touch(zib, "9002116_10000001.mhd", "9003380.segmentation_masks.mhd", "9999999.segmentation_masks.mhd", "readme.nii")
    assert sheet(tmp_path, "oai-zib", oai, zib) == {
        "9000099_10592708": (
            "oai/0.C.2/9000099/20050412/10592708",
            "zib/9000099.segmentation_masks.mhd",
            "9000099",
        ),
        "9001104_10240006": (
            "oai/0.C.2/9001104/20050112/10240006.tar.gz",
            "zib/9001104.segmentation_masks.nii.gz",
            "9001104",
        ),
        "9002116_10000001": ("oai/9002116_10000001_dess.nii.gz", "zib/9002116_10000001.mhd", "9002116"),
    }
    printed = capsys.readouterr().out
    for line in (
        "9003380.segmentation_masks.mhd: 2 images of 9003380",
        "9999999.segmentation_masks.mhd: 0 images of 9999999",
        "readme.nii: 0 images of no subject or barcode in its name",
        "10057111.tar.gz: no mask",
        "not used (6)",
    ):
        assert line in printed


@pytest.mark.parametrize("masks", [".", "masks"])
def test_oai_zib_with_the_masks_among_the_images(tmp_path: Path, masks: str) -> None:
    touch(tmp_path / "oai", "9002116_10000001_dess.nii.gz", f"{masks}/9002116.segmentation_masks.mhd")
    assert sheet(tmp_path, "oai-zib", tmp_path / "oai", tmp_path / "oai" / masks) == {
        "9002116_10000001": (
            "oai/9002116_10000001_dess.nii.gz",
            str(Path("oai", masks, "9002116.segmentation_masks.mhd")),
            "9002116",
        )
    }


def test_oaizib_cm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "cm", "imagesTr/oaizib_001_0000.nii.gz", "labelsTr/oaizib_001.nii.gz")
    touch(tmp_path / "cm", "imagesTs/oaizib_405_0000.nii.gz", "labelsTs/oaizib_405.nii.gz")
    assert sheet(tmp_path, "oaizib-cm", tmp_path / "cm") == {
        "oaizib_001": ("cm/imagesTr/oaizib_001_0000.nii.gz", "cm/labelsTr/oaizib_001.nii.gz", ""),
        "oaizib_405": ("cm/imagesTs/oaizib_405_0000.nii.gz", "cm/labelsTs/oaizib_405.nii.gz", ""),
    }
    assert structures(capsys.readouterr().out)["tibia"] == {"labels": [3]}


def test_a_pair_of_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path / "images", "a.nii.gz", "b_image.nrrd", "c.mhd", "c.raw", "d one.nii", ".hidden.nii")
    write_dicom(tmp_path / "images" / "e", np.zeros((2, 2, 2), np.int16), np.eye(4))
    touch(tmp_path / "masks", "a.nii.gz", "b_label.nrrd", "c.segmentation_masks.mhd", "E-mask.nii.gz", "z_mask.nii")
    assert sheet(tmp_path, "folders", tmp_path / "images", tmp_path / "masks") == {
        "a": ("images/a.nii.gz", "masks/a.nii.gz", ""),
        "b": ("images/b_image.nrrd", "masks/b_label.nrrd", ""),
        "c": ("images/c.mhd", "masks/c.segmentation_masks.mhd", ""),
        "d_one": ("images/d one.nii", "", ""),
        "e": ("images/e", "masks/E-mask.nii.gz", ""),
    }
    assert "z_mask.nii: no image of its name" in capsys.readouterr().out


def test_images_and_label_maps_in_one_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "data"
    touch(data, "breast1_image.nrrd", "breast1_label.nrrd", "b.nii.gz", "b.seg.nrrd", "c.nii", "z-mask.nii")
    expected = {
        "breast1": ("data/breast1_image.nrrd", "data/breast1_label.nrrd", ""),
        "b": ("data/b.nii.gz", "data/b.seg.nrrd", ""),
        "c": ("data/c.nii", "", ""),
    }
    assert sheet(tmp_path, "folders", data) == expected
    printed = capsys.readouterr().out
    assert "z-mask.nii: no image of its name; it is left over" in printed
    assert "not used (1):" in printed
    # The same folder named twice, however it is spelt.
    (tmp_path / "volumes.tsv").unlink()
    assert sheet(tmp_path, "folders", data, tmp_path / "data" / ".." / "data") == expected


@pytest.mark.parametrize("twice", [False, True])
def test_subfolders_of_images_and_label_maps(tmp_path: Path, twice: bool) -> None:
    touch(tmp_path / "data", "imagesTr/a.nii.gz", "imagesTr/b_0000.nii.gz", "labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    touch(tmp_path / "data", "case1/image.nii.gz", "case1/label.nii.gz", "case2/image.nii.gz", "case2/masks/seg.nii.gz")
    assert sheet(tmp_path, "folders", *[tmp_path / "data"] * (1 + twice)) == {
        "a": ("data/imagesTr/a.nii.gz", "data/labelsTr/a.nii.gz", ""),
        "b": ("data/imagesTr/b_0000.nii.gz", "data/labelsTr/b.nii.gz", ""),
        "case1": ("data/case1/image.nii.gz", "data/case1/label.nii.gz", ""),
        "case2": ("data/case2/image.nii.gz", "data/case2/masks/seg.nii.gz", ""),
    }


def test_subfolders_of_two_folders(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One name in several subfolders takes theirs; a name that is there once is found wherever its label map lies."""
    touch(tmp_path, "images/site1/scan.nii", "images/site2/scan.nii", "images/site2/knee.nii", "images/lone_label.nii")
    touch(tmp_path, "masks/site1/scan.nii", "masks/site2/scan_label.nii", "masks/knee_mask.nii", "masks/site3/scan.nii")
    assert sheet(tmp_path, "folders", tmp_path / "images", tmp_path / "masks") == {
        "site1_scan": ("images/site1/scan.nii", "masks/site1/scan.nii", ""),
        "site2_scan": ("images/site2/scan.nii", "masks/site2/scan_label.nii", ""),
        "knee": ("images/site2/knee.nii", "masks/knee_mask.nii", ""),
        "lone_label": ("images/lone_label.nii", "", ""),
    }
    assert "site3/scan.nii: no image of its name; it is left over" in capsys.readouterr().out


@pytest.mark.parametrize(("images", "masks"), [("data", "data/labels"), ("data/images", "data")])
def test_one_folder_inside_the_other(tmp_path: Path, images: str, masks: str) -> None:
    names = [f"{images}/a.nii", f"{masks}/a_label.nii"]
    touch(tmp_path, *names)
    assert sheet(tmp_path, "folders", tmp_path / images, tmp_path / masks) == {"a": (*names, "")}


def test_label_maps_in_the_folder_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    touch(tmp_path, "images/a_image.nrrd", "images/a_label.nrrd", "masks/a.nrrd")
    assert sheet(tmp_path, "folders", tmp_path / "images", tmp_path / "masks") == {
        "a": ("images/a_image.nrrd", "masks/a.nrrd", "")
    }
    assert "a_label.nrrd: a label map in the folder of images" in capsys.readouterr().out


def test_dicom_with_label_maps_in_one_folder(tmp_path: Path) -> None:
    write_dicom(tmp_path / "data" / "knee", np.zeros((2, 2, 2), np.int16), np.eye(4))
    touch(tmp_path, "data/knee_mask.nii.gz")
    assert sheet(tmp_path, "folders", tmp_path / "data") == {"knee": ("data/knee", "data/knee_mask.nii.gz", "")}


def test_label_maps_alone_give_no_sheet(tmp_path: Path) -> None:
    touch(tmp_path, "data/a_label.nii", "data/b_label.nii")
    printed = refused("folders", tmp_path / "data", "--out", tmp_path / "volumes.tsv")
    assert "No image was found" in printed
    assert "a_label.nii: no image of its name" in printed


def test_a_folder_of_images_alone(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.nii.gz")
    assert sheet(tmp_path, "folders", tmp_path / "images") == {"a": ("images/a.nii.gz", "", "")}


def test_a_sheet_is_never_overwritten_unasked(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.nii.gz")
    out = tmp_path / "volumes.tsv"
    out.write_text("mine\n")
    assert "exists already" in refused("folders", tmp_path / "images", "--out", out)
    assert out.read_text() == "mine\n"
    assert volprompt("sheet", "folders", tmp_path / "images", "--out", out, "--force") == 0
    assert out.read_text().startswith("volume\timage\treference\tgroup\na\t")


def test_a_sheet_without_volumes_is_filled(tmp_path: Path) -> None:
    touch(tmp_path / "images", "a.nii.gz")
    (tmp_path / "volumes.tsv").write_text("volume\timage\treference\n")
    assert list(sheet(tmp_path, "folders", tmp_path / "images")) == ["a"]
    assert "exists already" in refused("folders", tmp_path / "images", "--out", tmp_path / "volumes.tsv")


def test_what_cannot_be_a_sheet(tmp_path: Path) -> None:
    out = tmp_path / "volumes.tsv"
    assert "no such folder" in refused("nnunet", tmp_path / "none", "--out", out)
    assert "expected the folder of OAI's images" in refused("oai-zib", tmp_path, "--out", out)
    (tmp_path / "images").mkdir()
    assert "No image was found" in refused("folders", tmp_path / "images", "--out", out)
    touch(tmp_path / "images", "a b.nii", "a_b.nii")
    assert "would be named 'a_b' like" in refused("folders", tmp_path / "images", "--out", out)
    (tmp_path / "images" / "a b.nii").rename(tmp_path / "images" / "A_b.nii")
    assert "would be named 'a_b' like" in refused("folders", tmp_path / "images", "--out", out)
    touch(tmp_path / "{x}", "a.nii")
    assert "holds { or }" in refused("folders", tmp_path / "{x}", "--out", out)
    touch(tmp_path / "Task", "imagesTr/a_0000.nii.gz")
    (tmp_path / "Task" / "dataset.json").write_text("{}")
    assert "has no readable `labels`" in refused("nnunet", tmp_path / "Task", "--out", out)
    assert not out.exists()


def test_the_written_sheet_is_one_that_the_study_reads(tmp_path: Path) -> None:
    from volprompt.study.sheets import read_volumes

    touch(tmp_path / "images", "a.nii.gz")
    touch(tmp_path / "masks", "a.nii.gz")
    sheet(tmp_path, "folders", tmp_path / "images", tmp_path / "masks")
    faults: list[str] = []
    (volume,) = read_volumes(str(tmp_path / "volumes.tsv"), False, faults)
    assert faults == []
    assert volume.reference == str(tmp_path / "masks" / "a.nii.gz")


def test_paths_become_no_formulas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path, "=a/knee.nii.gz")
    assert volprompt("sheet", "folders", "=a", "--out", "volumes.tsv") == 0
    assert "\t'=a/knee.nii.gz\t" in Path("volumes.tsv").read_text()
    faults: list[str] = []
    assert [row.image for row in read_volumes("volumes.tsv", False, faults)] == ["=a/knee.nii.gz"]
    assert not faults
