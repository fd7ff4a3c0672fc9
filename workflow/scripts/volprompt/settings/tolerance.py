"""The tolerance of the surface Dice where each structure has its own."""

from __future__ import annotations

from collections.abc import Sequence

from volprompt.settings.config import Settings

PLACE = "scores.surface_tolerance_mm"


def tolerance_faults(settings: Settings, found: Sequence[str]) -> list[str]:
    """Return what is wrong with the names of a tolerance for each structure, as one fault; none if nothing is.

    found: the faults so far. Where one is of a tolerance, that structure is left out of the settings, and nothing is
        said of names.
    """
    tolerance = settings.scores.surface_tolerance_mm
    if not isinstance(tolerance, dict) or any(fault.startswith(PLACE) for fault in found):
        return []
    missing = [name for name in settings.scored_structures if name not in tolerance]
    unknown = [name for name in tolerance if name not in settings.structures]
    faults = [f"lacks {', '.join(missing)}"] if missing else []
    faults += [f"names {', '.join(unknown)}, and there is no such structure"] if unknown else []
    expected = ", ".join(settings.scored_structures)
    return [f"{PLACE}: {'; '.join(faults)}. Expected one number, or one for each of {expected}"] if faults else []


def with_plain_tolerance(settings: Settings) -> Settings:
    """Return the settings with the tolerance in its plainest spelling, so that another one makes nothing again.

    That is one number where all scored structures have the same, else a number for each of them in their order.
    """
    tolerance = settings.scores.surface_tolerance_mm
    if not isinstance(tolerance, dict):
        return settings
    scored = {name: tolerance[name] for name in settings.scored_structures if name in tolerance}
    plain = scored if len(set(scored.values())) != 1 else next(iter(scored.values()))
    scores = settings.scores.model_copy(update={"surface_tolerance_mm": plain})
    return settings.model_copy(update={"scores": scores})
