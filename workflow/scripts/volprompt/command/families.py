"""What `volprompt families` says of each family of models."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from volprompt.families import FAMILIES, adapter_file, families_of_packages, is_built_in

PROMPTS = {
    "image": "points, boxes, corrections on each slice",
    "video": "points, boxes, masks, corrections carried by memory",
    "volume": "points, boxes, masks, corrections in the whole volume",
}


def family_lines() -> list[str]:
    """A line for each family, and under it what it takes and what it needs."""
    lines = []
    for family in [*FAMILIES.values(), *families_of_packages().values()]:
        memory = "memory" if "video" in family.predictors else "no memory"
        lines.append(f"{family.name}: {family.title}, {memory}")
        lines += [f"  {predictor} schemes: {PROMPTS[predictor]}" for predictor in family.predictors]
        lines.append(f"  architecture: {family.architectures_in_words}, or a {family.settings_file}")
        lines.append(f"  packages: {', '.join(map(_found, family.packages)) or 'none of its own'}")
        if not is_built_in(family):
            lines.append(f"  adapter: {family.adapter} ({adapter_file(family) or 'not found'})")
    return [*lines, "package.module:Class: an adapter of your own, see docs/families.md"]


def _found(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return f"{package} (not found: install it)"
