"""What of a configuration only the study's statistics ask for: repetitions, covariates, the baseline."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from volprompt.settings.config import Experiment, Settings
from volprompt.settings.schemes import Scheme
from volprompt.study.sheets import SheetRow

# The structures of published figures, by the study that they are of.
PUBLISHED_STRUCTURES = {"oai-zib": {"femur", "tibia"}}


def repetitions(schemes: Mapping[str, Scheme]) -> dict[str, str]:
    """Return the common name of each of the schemes that differ only in the seed of their noise.

    The common name of `box_1` and `box_2` is `box`; where there is none, it is the first one's name.
    """
    alike: dict[str, list[str]] = {}
    for name, scheme in schemes.items():
        if scheme.noise:
            without_seed = scheme.model_copy(update={"noise": scheme.noise.model_copy(update={"seed": 0})})
            alike.setdefault(without_seed.model_dump_json(), []).append(name)
    common: dict[str, str] = {}
    for names in alike.values():
        if len(names) > 1:
            stems = {name.rstrip("0123456789").rstrip("_") for name in names}
            stem = stems.pop() if len(stems) == 1 else ""
            taken = stem in schemes or stem in common.values()
            common |= dict.fromkeys(names, stem if stem and not taken else names[0])
    return common


def covariates(volumes: Iterable[SheetRow]) -> dict[str, dict[str, str]]:
    """Return by column of the sample sheet the text of each volume that has one."""
    found: dict[str, dict[str, str]] = {}
    for row in volumes:
        for name, text in row.covariates.items():
            texts = found.setdefault(name, {})
            if text:
                texts[row.volume] = text
    return found


def statistics_faults(settings: Settings, experiments: Mapping[str, Experiment]) -> list[str]:
    """Return what is wrong with the baseline and with the figures that a study is to be compared with."""
    faults: list[str] = []
    common = repetitions(settings.used_schemes)
    pairs = {
        (model, common.get(scheme, scheme))
        for parts in experiments.values()
        for model in parts.models
        for scheme in parts.schemes
    }
    baseline = settings.comparisons.baseline
    if baseline and baseline not in pairs:
        known = ", ".join(f"[{model}, {scheme}]" for model, scheme in sorted(pairs))
        faults.append(
            f"comparisons.baseline: no experiment runs [{baseline[0]}, {baseline[1]}]; expected a model and a scheme: "
            f"one of {known}"
        )
    wanted = settings.report.compare_with
    compared = PUBLISHED_STRUCTURES.get(wanted or "", set())
    if missing := compared - set(settings.scored_structures):
        faults.append(
            f"report.compare_with: the published figures of {wanted} are of {' and '.join(sorted(compared))}, and "
            f"{' and '.join(sorted(missing))} is not scored; score it, or leave compare_with out"
        )
    return faults
