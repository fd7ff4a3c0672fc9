"""Where a study's images, references and checkpoints are while it is read."""

from __future__ import annotations

from enum import Enum, auto

from volprompt.checkpoints.shards import INDEX
from volprompt.volumes.images.formats import is_split


class Data(Enum):
    """Where images, references and checkpoints are, and so what can be asked of them.

    HERE: on this machine; what is missing is a fault.
    PLANNED: looked at by the process that planned the run; this one is a job, whose machine may lack those of others.
    STORED: in storage, where only Snakemake can look, and from where each job gets those that its rule names.
    """

    HERE = auto()
    PLANNED = auto()
    STORED = auto()


def stored_fault(path: str) -> str:
    """What keeps a file in storage from being named by a rule: it tells only when read which others belong to it.

    Empty if nothing does.
    """
    if is_split(path):
        return f"{path} has header and voxels in two files; in storage expected one file (.nii.gz, .nrrd, .mha)"
    if path.endswith(INDEX):
        return f"{path} names further files of weights; in storage expected all in one file"
    return ""
