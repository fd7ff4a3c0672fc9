"""A scheme and a volume's prompt table become the prompts of a predictor, per object and slice."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from volprompt.errors import VolpromptError
from volprompt.prompts.available import Candidates, FrameGrid
from volprompt.prompts.candidates import spread_points
from volprompt.settings.schemes import Scheme, SliceAt, SliceChoice
from volprompt.volumes.references import structure_mask


class MissingPrompt(VolpromptError):
    """A volume lacks a prompt that a scheme needs."""


@dataclass(frozen=True)
class ObjectPrompt:
    """The prompt of one object on one slice.

    structure: name of the object.
    slice: index of the slice.
    points: float32 (n, 2), (x, y) in pixels of the frame.
    labels: int32 (n,), 1 for a positive point and 0 for a negative one.
    box: float32 (4,), x, y, x2, y2 in pixels of the frame, or None.
    mask: bool (y, x), or None. A mask is the only prompt on its slice.
    """

    structure: str
    slice: int
    points: np.ndarray
    labels: np.ndarray
    box: np.ndarray | None = None
    mask: np.ndarray | None = None

    @property
    def form(self) -> tuple[int, bool, bool]:
        """Number of points, and whether there is a box and a mask. Prompts of one form can share a batch."""
        return len(self.points), self.box is not None, self.mask is not None

    @property
    def count(self) -> int:
        """Number of points, boxes and masks."""
        return sum(self.form)


def middle_slice(depth: int) -> int:
    """Return the index of the middle slice as the paper counts: 80 of 160."""
    return depth // 2


@dataclass(frozen=True)
class SchemePrompts:
    """What a scheme asks of one volume.

    prompts: of its objects, on every slice or on one or some of them.
    absent: objects that the reference of the volume does not show; they are not prompted.
    unprompted: objects that are there and lack a prompt that the scheme needs, with the reason.
    lacking: objects whose negative points are not complete, with the structures that have none on a slice.
    """

    prompts: list[ObjectPrompt]
    absent: list[str]
    unprompted: dict[str, str]
    lacking: dict[str, list[str]]


def scheme_prompts(
    scheme: Scheme,
    table: pd.DataFrame,
    configured: Sequence[str],
    scored: Sequence[str],
    depth: int,
    frame: FrameGrid | None = None,
) -> SchemePrompts:
    """Choose a scheme's prompts for one volume, each object's by itself.

    scheme: the scheme.
    table: the volume's rows of the prompt table.
    configured: names of all structures, in the configuration's order.
    scored: names of the scored structures, which are the objects unless the scheme names others.
    depth: number of slices.
    frame: size and spacing of the frames, needed by a scheme with noise.

    A prompt of a scheme with `mask` has no mask yet; `with_masks` adds it.
    """
    objects = list(scheme.structures or scored)
    candidates = Candidates(table, scheme.origins, scheme.noise, frame)
    if (use := _use_of_reference(scheme)) and not candidates.shown:
        return SchemePrompts([], [], dict.fromkeys(objects, f"there is no reference {use}"), {})
    choice = _Choice(scheme, candidates, [name for name in objects if not candidates.absent(name)], configured, depth)
    prompts: list[ObjectPrompt] = []
    unprompted: dict[str, str] = {}
    for name in choice.objects:
        try:
            prompts += choice.prompts_of(name)
        except MissingPrompt as error:
            unprompted[name] = str(error)
    if scheme.prompts_every_slice:  # slice by slice, as they are decoded
        prompts.sort(key=lambda prompt: prompt.slice)
    absent = [name for name in objects if candidates.absent(name)]
    return SchemePrompts(prompts, absent, unprompted, choice.lacking(prompts))


def _use_of_reference(scheme: Scheme) -> str:
    """Say what a scheme needs a volume's reference for, beside its prompts; empty if for nothing."""
    if scheme.presence:
        return "to tell on which slices a structure is (presence: true)"
    return "to make correction clicks from (corrections)" if scheme.corrections else ""


def clicks_needed(
    scheme: Scheme, configured: Sequence[str], scored: Sequence[str], depth: int
) -> tuple[list[str], int | None]:
    """Return the structures that a scheme takes clicks on, in order, and the slice; None if it can be any slice.

    The other arguments are those of `scheme_prompts`. A scheme that takes no clicks gives no structure.
    """
    if "click" not in scheme.origins:
        return [], None
    pointed = set(configured) if scheme.negatives == "others" else set(scheme.structures or scored)
    first, *more = scheme.slices
    free = scheme.prompts_every_slice or bool(more) or first in ("nearest", "largest")
    index = None if free else _fixed_slice(first, depth)
    return [name for name in configured if name in pointed], index


def with_masks(
    prompts: Sequence[ObjectPrompt], reference: np.ndarray, labels: Mapping[str, Sequence[int]]
) -> list[ObjectPrompt]:
    """Add the reference mask of its slice to every prompt of a scheme with `mask`.

    reference: label map (slice, y, x); labels: label numbers by structure.
    """
    return [
        replace(prompt, mask=structure_mask(reference[prompt.slice], labels[prompt.structure])) for prompt in prompts
    ]


def with_spread_points(
    prompts: Sequence[ObjectPrompt],
    count: int,
    reference: np.ndarray,
    labels: Mapping[str, Sequence[int]],
    spacing: tuple[float, float],
) -> list[ObjectPrompt]:
    """Add positive points inside the reference mask to every prompt that has fewer than `count` of them.

    reference: label map (slice, y, x); labels: label numbers by structure; spacing: millimetres along (y, x). The new
    points stand behind the positive ones that are there, see `candidates.spread_points`. A prompt on a slice where the
    reference lacks the structure stays as it is.
    """
    found = []
    for prompt in prompts:
        mask = structure_mask(reference[prompt.slice], labels[prompt.structure])
        positive = prompt.points[prompt.labels == 1]
        more = spread_points(mask, positive, count - len(positive), spacing) if mask.any() else []
        points = np.concatenate([positive, np.reshape(more, (-1, 2)), prompt.points[prompt.labels == 0]])
        point_labels = np.array([1] * (len(positive) + len(more)) + [0] * int((prompt.labels == 0).sum()), np.int32)
        found.append(replace(prompt, points=points.astype(np.float32), labels=point_labels))
    return found


def present_slices(table: pd.DataFrame, structure: str, depth: int) -> np.ndarray:
    """Return on which slices the reference shows a structure: bool (slice,). table: as in `scheme_prompts`."""
    present = np.zeros(depth, bool)
    present[table.loc[(table["kind"] == "box") & (table["structure"] == structure), "slice"]] = True
    return present


@dataclass(frozen=True)
class _Choice:
    """A scheme's choice among the candidates of one volume. objects: those that can be there."""

    scheme: Scheme
    candidates: Candidates
    objects: Sequence[str]
    configured: Sequence[str]
    depth: int

    def prompts_of(self, name: str) -> list[ObjectPrompt]:
        """Return an object's prompts, by slice. Raises MissingPrompt."""
        if self.scheme.prompts_every_slice:
            slices = [index for index in range(self.depth) if self.has_prompt(name, index)]
            if not slices:
                raise MissingPrompt(f"no slice has a {self.kinds} for '{name}'{self._advice()}")
        else:
            slices = sorted({self.slice_of(name, choice) for choice in self.scheme.slices})
        return [self.prompt(name, index) for index in slices]

    def slice_of(self, name: str, choice: SliceChoice) -> int:
        """Return the slice that a choice of the scheme means for an object. Raises MissingPrompt."""
        if choice not in ("nearest", "largest"):
            return self._checked(name, _fixed_slice(choice, self.depth))
        sharing = self.objects if self.scheme.share_slice else [name]
        slices = [index for index in range(self.depth) if all(self.has_prompt(each, index) for each in sharing)]
        if not slices:
            if len(sharing) > 1:
                raise MissingPrompt(
                    f"there is no slice on which {_quoted(sharing)} all have a {self.kinds}; leave share_slice out, "
                    "and each is prompted on a slice of its own"
                )
            raise MissingPrompt(f"no slice has a {self.kinds} for '{name}'{self._advice()}")
        whole = [index for index in slices if not any(self._negatives_to_find(each, index) for each in sharing)]
        if choice == "nearest":
            return min(whole or slices, key=lambda index: (abs(index - middle_slice(self.depth)), index))
        areas = self.candidates.areas
        return max(whole or slices, key=lambda index: (sum(areas.get((each, index), 0) for each in sharing), -index))

    def _checked(self, name: str, index: int) -> int:
        """Return a fixed slice. Raises MissingPrompt if something that the scheme needs is not on it."""
        if not 0 <= index < self.depth:
            raise MissingPrompt(f"the scheme prompts slice {index}; the volume has {self.depth} slices, from 0 on")
        lacking = [] if self.has_prompt(name, index) else [name]
        lacking += self._negatives_to_find(name, index)
        if lacking:
            remedy = "prompt another slice (slice: nearest or largest)"
            remedy += ", or click on that one" if "click" in self.scheme.origins else ""
            raise MissingPrompt(f"slice {index} has no {self.kinds} for {_quoted(lacking)}; {remedy}")
        return index

    def has_prompt(self, name: str, index: int) -> bool:
        """Return whether an object has on a slice what the scheme prompts it with, negative points aside."""
        if self.scheme.shapes and (name, index) not in self.candidates.boxes:
            return False
        return not self.scheme.origins or (name, index) in self.candidates.points

    def negatives_lacking(self, name: str, index: int) -> list[str]:
        """Return the structures that have no point on a slice, where the scheme asks for it as a negative one."""
        if self.scheme.negatives == "none":
            return []
        return [each for each in self.configured if each != name and (each, index) not in self.candidates.points]

    def _negatives_to_find(self, name: str, index: int) -> list[str]:
        """Return those of `negatives_lacking` that can have a point on another slice."""
        return [each for each in self.negatives_lacking(name, index) if not self.candidates.absent(each)]

    def lacking(self, prompts: Iterable[ObjectPrompt]) -> dict[str, list[str]]:
        """Return the objects of a scheme with chosen slices whose negative points are not complete, with what lacks."""
        found: dict[str, list[str]] = {}
        for prompt in [] if self.scheme.prompts_every_slice else prompts:
            for other in self.negatives_lacking(prompt.structure, prompt.slice):
                if other not in (others := found.setdefault(prompt.structure, [])):
                    others.append(other)
        return {name: others for name, others in found.items() if others}

    def prompt(self, name: str, index: int) -> ObjectPrompt:
        """Return the prompt of an object on a slice that has one."""
        positive = self.candidates.points[name, index] if self.scheme.origins else []
        negative = self.candidates.negatives.get((name, index), [])
        if self.scheme.negatives == "others":
            others = [each for each in self.configured if each != name]
            negative = negative + [point for each in others for point in self.candidates.points.get((each, index), [])]
        points = np.array([*positive, *negative], np.float32).reshape(-1, 2)
        labels = np.array([1] * len(positive) + [0] * len(negative), np.int32)
        box = np.array(self.candidates.boxes[name, index], np.float32) if self.scheme.box else None
        return ObjectPrompt(name, index, points, labels, box)

    @property
    def kinds(self) -> str:
        """What the scheme prompts an object with, in words."""
        points = [f"point ({' or '.join(self.scheme.origins)})"] if self.scheme.origins else []
        return " or ".join([*points, *self.scheme.shapes])

    def _advice(self) -> str:
        """Say what can help where no slice has a prompt of an object."""
        if "click" in self.scheme.origins:
            return "; click on it"
        return "; give the volume a reference" if not self.candidates.shown else "; check its labels"


def _fixed_slice(choice: SliceChoice, depth: int) -> int:
    """Return the slice of a choice that does not depend on the prompts: an index, a fraction or the middle."""
    if isinstance(choice, SliceAt):
        return choice.index if choice.index is not None else int((choice.fraction or 0.0) * (depth - 1) + 0.5)
    return middle_slice(depth)


def _quoted(names: Sequence[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
