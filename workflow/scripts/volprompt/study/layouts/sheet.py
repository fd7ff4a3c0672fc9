"""The sample sheet of what a layout gives, and what is said of it: `volprompt sheet LAYOUT FOLDER ...`.

Only names are looked at; what is inside the files is checked by `volprompt check`.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from volprompt.cells import as_cell
from volprompt.files import separator, write_text
from volprompt.settings.values import name_fault, path_fault
from volprompt.study.layouts.found import Found, LayoutError
from volprompt.words import at_most, plural

SHOWN = 20
USUAL = Path("config/volumes.tsv")  # what a configuration names as long as it names no other


def write_sheet(found: Found, out: Path, force: bool) -> None:
    """Write the sample sheet, atomically.

    Raises LayoutError if nothing was matched or names clash, and unless `force` if there is a sheet already that lists
    volumes.
    """
    if not found.rows:
        raise LayoutError("\n".join(["No image was found in this layout; nothing is written.", *_not_used(found)]))
    seen: dict[str, Path] = {}
    for row in found.rows:
        if fault := name_fault(row.volume):
            raise LayoutError(f"{row.image}: gives no name of a volume, since '{row.volume}' {fault}; rename it")
        if earlier := seen.get(row.volume.lower()):
            raise LayoutError(f"{row.image}: would be named '{row.volume}' like {earlier}; rename one")
        seen[row.volume.lower()] = row.image
        for path in (row.image, *filter(None, [row.reference])):
            if fault := path_fault(str(path)):
                raise LayoutError(f"{path}: {fault}")
    if out.exists() and not force and not _is_empty_sheet(out):
        raise LayoutError(f"{out} exists already; choose another name, or give --force to replace it")
    text = io.StringIO()
    sheet = csv.writer(text, delimiter=separator(out, "\t"), lineterminator="\n")
    sheet.writerow(["volume", "image", "reference", "group"])
    for row in sorted(found.rows, key=lambda row: row.volume):
        sheet.writerow(as_cell(str(cell)) for cell in (row.volume, row.image, row.reference or "", row.group))
    write_text(out, text.getvalue())


def _is_empty_sheet(path: Path) -> bool:
    """Whether a file is a sample sheet without a row, as `volprompt init` writes it."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return len(lines) == 1 and {"volume", "image"} <= set(lines[0].split(separator(path, "\t")))


def summary(found: Found, out: Path) -> str:
    """What was matched and what was not, what goes into the configuration, and what is to be done next."""
    pairs = sum(row.reference is not None for row in found.rows)
    lines = [f"{out}: {plural(len(found.rows), 'volume')}, {pairs} of them with a reference"]
    alone = [row for row in found.rows if row.reference is None]
    if alone:
        lines.append(f"without reference: {', '.join(row.volume for row in alone[:SHOWN])}{_more(alone)}")
    lines += _not_used(found)
    sections = [f"volumes: {out}"] if out != USUAL else []
    sections += ["structures:", *found.structures] if found.structures else []
    sections += [f"ignore: {{labels: {found.ignore}}}"] if found.ignore else []
    lines += ["for the configuration:", *sections] if sections else []
    if pairs and not found.structures:
        lines.append("Next: write your structures and their label numbers into config/config.yaml, under structures")
    return "\n".join(lines)


def _not_used(found: Found) -> list[str]:
    if not found.unmatched:
        return []
    unused = at_most([f"{path}: {reason}" for path, reason in found.unmatched], SHOWN)
    return [f"not used ({len(found.unmatched)}):", *(f"  {each}" for each in unused)]


def _more(items: Sequence[object]) -> str:
    return f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
