"""Where a study's sources are now: since their conversion they can have moved, with the same bytes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pandas as pd


class Sources:
    """Images and references of volumes as they were converted, and as the report shows them."""

    def __init__(self, volumes: pd.DataFrame, shown: Mapping[str, Sequence[str]], results: str = "") -> None:
        """volumes: the volume tables of all shards; shown: image and reference of each volume, where they changed;
        results: the study's folder of results, of which a job that reads storage has copies elsewhere."""
        self._copies = (
            re.compile(rf"[^\s'\"(]*\.snakemake/storage/[^\s'\"]*?(?<=/)(?={re.escape(results)}/)") if results else None
        )
        self._shown = {
            str(row.volume): {str(row.source): shown[row.volume][0], str(row.reference): shown[row.volume][1]}
            for row in volumes.itertuples()
            if row.volume in shown
        }

    def text(self, volume: str, text: str) -> str:
        """Return a text about a volume with its sources as they are shown, and results where the study has them."""
        for recorded, shown in self._shown.get(volume, {}).items():
            if recorded and recorded != shown:
                whole = rf"(?<![^\s'\"(]){re.escape(recorded)}(?=[\s:;,)'\"/]|$)"
                text = re.sub(whole, lambda _, shown=shown: shown, text)  # type: ignore[misc]
        return self._copies.sub("", text) if self._copies else text

    def image(self, volume: str, recorded: str) -> str:
        """Return a volume's image as it is shown. recorded: as it was converted."""
        return self._shown.get(volume, {}).get(recorded, recorded)
