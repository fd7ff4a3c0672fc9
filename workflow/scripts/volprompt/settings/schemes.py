"""The types of prompting schemes, with defaults and the checks between keys."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from volprompt.settings.section import Section


class SliceAt(Section):
    """The prompted slice by its index, or by its place between the first (0) and the last slice (1)."""

    index: int | None = Field(None, ge=0)
    fraction: float | None = Field(None, ge=0, le=1)

    @model_validator(mode="after")
    def _one_of_both(self) -> SliceAt:
        if (self.index is None) == (self.fraction is None):
            raise ValueError("give either index or fraction")
        return self


class Noise(Section):
    """How far a scheme's prompts are displaced; each repetition is a scheme of its own."""

    points_mm: float = Field(
        0.0, ge=0, description="Standard deviation of a point's displacement along x and along y, in millimetres."
    )
    boxes_mm: float = Field(
        0.0, ge=0, description="Standard deviation of the displacement of each side of a box, in millimetres."
    )
    seed: int = Field(1, ge=0, description="Seed of the displacements; repetition k has seed + k - 1.")
    repetitions: int | None = Field(
        None, ge=1, description="Schemes that differ in the seed, named {scheme}_1 and so on (default: just this one)."
    )


class Corrections(Section):
    """Clicks that correct a scheme's masks, simulated from the reference, one round after another."""

    clicks: int = Field(
        ge=1, le=31, description="Rounds at most: one click per object, or per prompted slice of image schemes."
    )


# Millimetres by which a propagated box is widened to each side, unless a scheme says otherwise.
WIDEN_MM = 1.0

Origin = Literal["centroid", "interior", "skeleton", "click"]
SliceChoice = Literal["middle", "nearest", "largest"] | SliceAt


def _best_for_true(value: bool | str) -> bool | str:
    return "best" if value is True else value


MaskChoice = Annotated[Literal[False, True, "first", "best"], AfterValidator(_best_for_true)]


class Scheme(Section):
    """Which prompts a model is given, and what carries them through the volume."""

    predictor: Literal["image", "video", "volume"]
    point: Origin | list[Origin] | None = Field(
        None, description="Origin of each structure's positive point; of several, the first available one is used."
    )
    points: int = Field(
        1, ge=1, description="Positive points of each structure on a slice: further ones are spread inside its mask."
    )
    box: bool = Field(False, description="Whether the structure's tight bounding box is a prompt.")
    mask: bool = Field(
        False,
        description="Video and volume schemes: whether the reference mask of the prompted slice is the prompt.",
    )
    negatives: Literal["none", "others"] = Field(
        "none", description="'others' adds the points of all other configured structures as negative points."
    )
    slice: SliceChoice | Annotated[list[SliceChoice], Field(min_length=1)] | None = Field(
        None,
        description="The prompted slice of a scheme that does not prompt every slice, or a list of them (default: "
        "middle).",
    )
    share_slice: bool = Field(False, description="Whether `nearest` and `largest` choose one slice for all objects.")
    propagate: Literal["box"] | None = Field(
        None,
        description="Image schemes: each object is prompted on `slice` alone, and from there on by the box of its last "
        "mask.",
    )
    widen_mm: float | None = Field(
        None,
        ge=0,
        description=f"Millimetres by which a propagated box is widened to each side (default: {WIDEN_MM:g}).",
    )
    structures: list[str] | None = Field(None, description="The objects (default: every scored structure).")
    multimask: MaskChoice = Field(
        False,
        description="Image schemes: take the first one of three masks, or the best by predicted IoU (true: best).",
    )
    noise: Noise | None = Field(None, description="Random displacement of points and boxes.")
    corrections: Corrections | None = Field(
        None, description="Clicks that correct the masks where they differ most from the reference."
    )
    presence: bool = Field(
        False,
        description="Whether masks are emptied on slices where the reference lacks the structure, which a scheme that "
        "prompts every slice knows by having no prompt there.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> Scheme:
        if not self.origins and not self.shapes:
            raise ValueError("gives no prompt: set point, box or mask")
        if self.mask and (self.origins or self.box):
            raise ValueError("a mask is a prompt by itself, as in SAM 2; leave out point and box")
        if self.negatives == "others" and not self.origins:
            raise ValueError("negatives need point: it says where the other structures' points come from")
        if self.points > 1 and not self.origins:
            raise ValueError("points spreads points behind the first one: set point, which says where that is")
        if self.points > 1 and self.noise and self.noise.points_mm:
            raise ValueError("points_mm displaces a single point per structure; leave points or points_mm out")
        if self.prompts_every_slice and self.slice is not None:
            raise ValueError(
                "slice belongs to video and volume schemes and to image schemes with propagate; another image scheme "
                "prompts every slice"
            )
        if self.share_slice and not set(self.slices) & {"nearest", "largest"}:
            raise ValueError("share_slice says how nearest and largest choose; set slice to one of them")
        if self.predictor == "image" and self.mask:
            raise ValueError("mask belongs to video and volume schemes; on every slice it would be the answer itself")
        if self.prompts_every_slice and self.presence:
            raise ValueError(
                "presence belongs to video and volume schemes and to image schemes with propagate; another image "
                "scheme is prompted where a structure is"
            )
        if self.predictor != "image" and self.propagate:
            raise ValueError(
                "propagate belongs to image schemes; memory carries a video scheme's prompts, and a volume scheme's "
                "model sees the whole volume"
            )
        if self.widen_mm is not None and not self.propagate:
            raise ValueError("widen_mm says how propagated boxes grow; set propagate: box")
        if self.propagate and self.corrections:
            raise ValueError(
                "propagate has no corrections: a click would have to change every later box; leave one of them out"
            )
        if self.predictor != "image" and self.multimask:
            raise ValueError(f"multimask belongs to image schemes; a {self.predictor} predictor decides by itself")
        if self.noise and not (self.origins and self.noise.points_mm) and not (self.box and self.noise.boxes_mm):
            raise ValueError("noise moves nothing: give points_mm with point, or boxes_mm with box, above 0")
        return self

    def plain(self) -> dict[str, Any]:
        """As plain values, without what is at its default."""
        return self.model_dump(mode="json", exclude_defaults=True)

    @property
    def prompts_every_slice(self) -> bool:
        """Whether each slice with a prompt is prompted by itself, so that the scheme knows where a structure ends.

        Other schemes prompt one slice, or some, and carry the masks on from there.
        """
        return self.predictor == "image" and not self.propagate

    @property
    def origins(self) -> tuple[Origin, ...]:
        """The wanted origins of points, in order of preference."""
        if self.point is None:
            return ()
        return (self.point,) if isinstance(self.point, str) else tuple(self.point)

    @property
    def shapes(self) -> tuple[str, ...]:
        """The kinds of prompts beside points: `box`, `mask`. They come from the reference."""
        return tuple(kind for kind in ("box", "mask") if getattr(self, kind))

    @property
    def widening(self) -> float:
        """Millimetres by which a propagated box is widened to each side."""
        return WIDEN_MM if self.widen_mm is None else self.widen_mm

    @property
    def slices(self) -> tuple[SliceChoice, ...]:
        """The choices of prompted slices of a scheme that does not prompt every slice, at least one."""
        if isinstance(self.slice, list):
            return tuple(self.slice)
        return (self.slice or "middle",)
