"""Image files of every format, written for tests from an array on stored axes and its affine in RAS+ millimetres."""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import highdicom
import nibabel as nib
import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, RLELossless

TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
AXIS_OF = {"R": 0, "L": 0, "A": 1, "P": 1, "S": 2, "I": 2}
SERIES = "1.2.826.0.1.3680043.8.498.1001"
PATIENT = "Doe^Jane"


def stored_as(codes: str, array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same anatomy stored along other axes: `array` and `affine` are on R, A, S."""
    order = [AXIS_OF[code] for code in codes]
    stored, moved = array.transpose(order), np.eye(4)
    moved[:3, :3], moved[:3, 3] = affine[:3, order], affine[:3, 3]
    for axis, code in enumerate(codes):
        if code in "LPI":
            moved[:3, 3] += moved[:3, axis] * (stored.shape[axis] - 1)
            moved[:3, axis] *= -1
            stored = np.flip(stored, axis)
    return stored, moved


def oblique(spacing: Sequence[float]) -> np.ndarray:
    """Axes R, A, S turned by 20 degrees around S and 10 around R."""
    turn, tilt = np.radians(20), np.radians(10)
    around_s = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
    around_r = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = around_s @ around_r @ np.diag(spacing)
    affine[:3, 3] = -5.0, 7.0, 11.0
    return affine


def write_nifti(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    nib.save(nib.Nifti1Image(np.ascontiguousarray(array), affine), path)
    return str(path)


def write_analyze(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    """An Analyze pair (.hdr, .img) with SPM's .mat file, which holds the affine."""
    nib.save(nib.Spm2AnalyzeImage(np.ascontiguousarray(array), affine), path)
    return str(path)


def write_mgh(path: Path, array: np.ndarray, affine: np.ndarray) -> str:
    """An image of FreeSurfer, compressed if it ends in .mgz."""
    nib.save(nib.MGHImage(np.ascontiguousarray(array), affine), path)
    return str(path)


def write_itk(path: Path, array: np.ndarray, affine: np.ndarray, compress: bool = False) -> str:
    """NRRD or MetaImage, by the ending; the data file of .mhd and .nhdr lies beside it."""
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.T))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), useCompression=compress)
    return str(path)


def write_dicom(folder: Path, array: np.ndarray, affine: np.ndarray, **tags: Any) -> list[Path]:
    """One int16 file per slice of the last axis, named IM0000 and so on; `tags` are set in every header."""
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    cosines = lps[:3, :3] / spacing
    folder.mkdir(parents=True, exist_ok=True)
    already = len(list(folder.iterdir()))
    paths = []
    for index in range(array.shape[2]):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        header = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
        header.SOPClassUID = MRImageStorage
        header.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
        header.PatientName, header.PatientID, header.PatientBirthDate = PATIENT, "4711", "19500101"
        header.SeriesInstanceUID, header.SeriesNumber, header.SeriesDescription = SERIES, 4, "Sag DESS of Jane"
        header.EchoNumbers, header.EchoTime = 1, 4.7
        header.Columns, header.Rows = array.shape[:2]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
        header.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
        header.ImageOrientationPatient = [f"{value:.10f}" for value in (*cosines[:, 0], *cosines[:, 1])]
        header.ImagePositionPatient = [f"{value:.8f}" for value in (lps @ [0, 0, index, 1])[:3]]
        header.PixelData = np.ascontiguousarray(array[:, :, index].T.astype("<i2")).tobytes()
        for name, value in tags.items():
            setattr(header, name, value)
        path = folder / f"IM{already + index:04d}"
        header.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def write_enhanced(
    path: Path, array: np.ndarray, affine: np.ndarray, order: Sequence[int] | None = None, **tags: Any
) -> Path:
    """One enhanced MR file of values that are even numbers, each frame with a slope and intercept of its own.

    order: of the slices among the frames. tags: set in every header; those that are lists have a value per frame, for
    FrameContentSequence.
    """
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    (first,) = write_dicom(path.parent / f"{path.name}_first", array[:, :, :1], affine)
    header = pydicom.dcmread(first)
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    for tag in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "EchoTime", "EchoNumbers"):
        delattr(header, tag)
    order = list(range(array.shape[2])) if order is None else list(order)
    header.NumberOfFrames = len(order)
    measures, plane = Dataset(), Dataset()
    measures.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
    measures.SliceThickness = f"{spacing[2]:.10g}"
    plane.ImageOrientationPatient = [f"{value:.10f}" for axis in (0, 1) for value in lps[:3, axis] / spacing[axis]]
    shared = Dataset()
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence, pixels = [], b""
    for number, index in enumerate(order):
        group, position, values, content = Dataset(), Dataset(), Dataset(), Dataset()
        position.ImagePositionPatient = [f"{value:.8f}" for value in (lps @ [0, 0, index, 1])[:3]]
        slope, intercept = (0.5, 1.0, 2.0)[number % 3], -10.0 * number
        values.RescaleSlope, values.RescaleIntercept, values.RescaleType = slope, intercept, "US"
        for name, value in tags.items():
            setattr(content, name, value[number] if isinstance(value, list) else value)
        group.PlanePositionSequence, group.PixelValueTransformationSequence = [position], [values]
        group.FrameContentSequence = [content]
        header.PerFrameFunctionalGroupsSequence.append(group)
        pixels += np.rint((array[:, :, index].T - intercept) / slope).astype("<i2").tobytes()
    header.PixelData = pixels
    path.parent.mkdir(parents=True, exist_ok=True)
    header.save_as(path)
    return path


def write_segmentation(path: Path, series: Sequence[Path], masks: Sequence[np.ndarray], **settings: Any) -> Path:
    """A DICOM segmentation of the slices in these files; masks: bool (slice, row, column) per segment."""
    sources = [pydicom.dcmread(file) for file in series]
    for source in sources:
        source.StudyInstanceUID, source.FrameOfReferenceUID = "1.2.3", "1.2.4"
        source.StudyID = source.StudyDate = source.StudyTime = source.AccessionNumber = source.PatientSex = ""
        source.ReferringPhysicianName = ""
        source.Modality, source.InstanceNumber, source.SliceThickness = "MR", 1, 3.0
    organ = codes.SCT.Organ
    described = [
        highdicom.seg.SegmentDescription(number, f"organ {number}", organ, organ, "MANUAL")
        for number in range(1, len(masks) + 1)
    ]
    made = highdicom.seg.Segmentation(
        source_images=sources,
        pixel_array=np.stack(masks, axis=-1).astype(np.uint8),
        segment_descriptions=described,
        series_instance_uid="1.2.5",
        series_number=100,
        sop_instance_uid=pydicom.uid.generate_uid(),
        instance_number=1,
        manufacturer="none",
        manufacturer_model_name="none",
        software_versions="1",
        device_serial_number="1",
        **{"segmentation_type": "BINARY", **settings},
    )
    made.save_as(path)
    return path


def change(path: Path, **tags: Any) -> None:
    """Set tags of a DICOM file; None takes one out."""
    header = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(header, name)
        else:
            setattr(header, name, value)
    header.save_as(path)


def compress_rle(path: Path) -> None:
    header = pydicom.dcmread(path)
    header.compress(RLELossless)
    header.save_as(path)


def pack(folder: Path, archive: Path) -> str:
    """The folder's files as .zip, .tar or .tar.gz, in a subfolder as archives have it."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for path in sorted(folder.iterdir()):
                packed.write(path, f"study/{path.name}")
    else:
        how = {"mode": "w"} if archive.suffix == ".tar" else {"mode": "w:gz", "compresslevel": 1}
        with tarfile.open(archive, **how) as packed:
            packed.add(folder, arcname="study")
    return str(archive)
