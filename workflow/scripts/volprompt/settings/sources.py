"""The files of a configuration as one: a later file over the earlier ones, and the line of what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from volprompt.settings.documents import Document, Miswritten, Place, Written, dotted


class Sources:
    """The files that a configuration comes from, a later one over the earlier ones."""

    def __init__(
        self, documents: Sequence[Document] = (), config: Mapping[Any, Any] | None = None, elsewhere: str = ""
    ) -> None:
        """Take the files as one.

        config: what has become of them, if that is not just their values.
        elsewhere: where values come from that are in no file.
        """
        self.documents = documents
        self.elsewhere = elsewhere
        self.values: dict[Any, Any] = {}
        for document in documents:
            self.values = overlaid(self.values, document.values)
        config = self.values if config is None else config
        self.inside = _place_of(config, self.values) or ()
        self.named: dict[str, Any] = self._with_keys_as_text(config, self.inside)
        self._of_documents = [self._with_keys_as_text(document.values, ()) for document in documents]

    @property
    def files(self) -> list[str]:
        """The files, later ones over the earlier ones."""
        return [document.file for document in self.documents]

    def _with_keys_as_text(self, values: Any, place: Place) -> Any:
        """The values, each key as it is written."""
        if isinstance(values, list):
            return [self._with_keys_as_text(value, (*place, index)) for index, value in enumerate(values)]
        if not isinstance(values, Mapping):
            return values
        texts = [
            next((d.keys[place, key] for d in self.documents if (place, key) in d.keys), str(key)) for key in values
        ]
        return {
            text: self._with_keys_as_text(value, (*place, text))
            for text, value in zip(texts, values.values(), strict=True)
        }

    def miswritten(self) -> list[Miswritten]:
        """What YAML reads as something else than people would; of a larger configuration only in the used part."""
        every = [item for document in self.documents for item in document.miswritten]
        depth = len(self.inside)
        return [
            item._replace(place=item.place[depth:])
            for item in every
            if item.place[:depth] == self.inside[: len(item.place)]
        ]

    def written(self, place: Place) -> Written | None:
        """How the value at a place is written; None where it comes from elsewhere, as from `--config`."""
        full = (*self.inside, *place)
        for document, values in reversed(list(zip(self.documents, self._of_documents, strict=True))):
            if full in document.written:
                value, used = _at(values, full), _at(self.named, place)
                merged = isinstance(value, Mapping) and isinstance(used, Mapping)
                same = merged or value == used or value != value  # NaN equals nothing
                return document.written[full] if same else None
        return None

    def located(self, faults: Iterable[str]) -> list[str]:
        """The faults, with file and line before those that begin with a place in one of the files."""
        places: dict[str, Place] = {}
        depth = len(self.inside)
        for document in self.documents:
            inner = [place for place in document.written if place[:depth] == self.inside]
            places.update((dotted(place[depth:]), place[depth:]) for place in inner if len(place) > depth)
        places.update((dotted(place), place) for place in _places_in(self.named))
        return [self._located(fault, places) for fault in faults]

    def _located(self, fault: str, places: Mapping[str, Place]) -> str:
        name, _, message = fault.partition(": ")
        if name not in places and message.startswith("is required"):
            name = name.rpartition(".")[0]
        if name not in places:
            return fault
        if written := self.written(places[name]):
            return f"{written.file} line {written.line}: {fault}"
        return f"{self.elsewhere}: {fault}" if self.elsewhere else fault


class Configuration(dict[str, Any]):
    """The values of a configuration, each key as it is written, with the files that they come from."""

    def __init__(self, sources: Sources) -> None:
        super().__init__(sources.named)
        self.sources = sources


def with_files(config: Mapping[Any, Any]) -> Configuration:
    """A configuration that knows the files that it comes from; one that has none stays without."""
    return config if isinstance(config, Configuration) else Configuration(Sources((), config))


def overlaid(values: Mapping[Any, Any], over: Mapping[Any, Any]) -> dict[Any, Any]:
    """Two configurations in one, as Snakemake puts them: sections key by key, everything else by the second one."""
    merged = dict(values)
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = overlaid(below if isinstance(below, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _places_in(values: Any, place: Place = ()) -> Iterator[Place]:
    """The places of all values inside sections."""
    for key, value in values.items() if isinstance(values, Mapping) else ():
        yield (*place, key)
        yield from _places_in(value, (*place, key))


def _at(values: Any, place: Place) -> Any:
    """The value at a place, None where there is none."""
    for part in place:
        try:
            values = values[part]
        except (KeyError, IndexError, TypeError):
            return None
    return values


def _place_of(part: Mapping[Any, Any], whole: Mapping[Any, Any], depth: int = 3) -> Place | None:
    """The section that a part is, of a larger configuration; None where it is no section of it as it stands."""
    if part == whole:
        return ()
    for key, value in whole.items():
        if depth and isinstance(value, Mapping):
            found = _place_of(part, value, depth - 1)
            if found is not None:
                return (key, *found)
    return None
