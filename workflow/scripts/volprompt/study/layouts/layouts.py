"""The layouts that are known, by the names that `volprompt sheet` takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from volprompt.study.layouts.bids import bids
from volprompt.study.layouts.folders import folders
from volprompt.study.layouts.found import Found
from volprompt.study.layouts.nnunet import nnunet, oaizib_cm
from volprompt.study.layouts.oai_zib import oai_zib


@dataclass(frozen=True)
class Layout:
    """How a layout is read, and folders as an example of what it takes."""

    match: Callable[[Sequence[Path]], Found]
    example: str


LAYOUTS = {
    "nnunet": Layout(nnunet, "Dataset001_Knee"),
    "bids": Layout(bids, "my_bids"),
    "oai-zib": Layout(oai_zib, "oai_dess zib_masks"),
    "oaizib-cm": Layout(oaizib_cm, "OAIZIB-CM"),
    "folders": Layout(folders, "images references"),
}
