"""DICOM: planes from headers, planes into stacks, one stack into an image; and segmentations."""
