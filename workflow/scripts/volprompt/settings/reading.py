"""Reading a configuration: every fault of a key or a value is listed with its place."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from volprompt.errors import VolpromptError, suggestion
from volprompt.settings.config import (
    Comparisons,
    Experiment,
    Frames,
    Inference,
    Model,
    References,
    Report,
    Scores,
    Settings,
    Structure,
)
from volprompt.settings.documents import Document, DocumentError, Place, dotted, in_words, read_document
from volprompt.settings.presets import with_preset
from volprompt.settings.schemes import Corrections, Noise, Scheme, SliceAt
from volprompt.settings.section import Section
from volprompt.settings.sources import Configuration, Sources, with_files
from volprompt.settings.tolerance import tolerance_faults, with_plain_tolerance
from volprompt.settings.values import EACH, ONE, name_fault, same_but_for_case

NAMED_SECTIONS = ("structures", "schemes", "models", "experiments")


class ConfigurationError(VolpromptError):
    """All faults of a configuration and its tables, one line each, with file and line as far as `config` knows them."""

    def __init__(self, faults: Iterable[str], config: Mapping[str, Any] | None = None) -> None:
        self.faults = list(faults) if config is None else with_files(config).sources.located(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"The configuration has {count}:", *(f"  - {fault}" for fault in self.faults)]))


def load_config(*paths: str | Path) -> Configuration:
    """Load the files of a configuration, a later one over the earlier ones; keys and values are checked elsewhere.

    Raises ConfigurationError for a file that is no configuration.
    """
    return Configuration(Sources(_read_documents(paths)))


def with_sources(config: Mapping[Any, Any], paths: Iterable[str | Path], elsewhere: str = "") -> Configuration:
    """A configuration that Snakemake has read, with the files that it read, so that faults can name their lines.

    elsewhere: where values that are not in the files come from. What is no file that can be read twice (a pipe) is left
    out. Raises ConfigurationError.
    """
    return Configuration(Sources(_read_documents(path for path in paths if Path(path).is_file()), config, elsewhere))


def _read_documents(paths: Iterable[str | Path]) -> list[Document]:
    try:
        return [read_document(path) for path in paths]
    except DocumentError as error:
        raise ConfigurationError([str(error)]) from None


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Read the configuration without its tables. Raises ConfigurationError with every fault of a value or a key."""
    settings, faults = read_valid_part(config)
    if settings is None or faults:
        raise ConfigurationError(faults, config)
    return settings


def read_valid_part(config: Mapping[str, Any]) -> tuple[Settings | None, list[str]]:
    """Read the configuration for further checks: what is valid of it, and every fault of a value or a key.

    An unknown key is left out, a faulty value gets its default, and a faulty scheme or model is left out together with
    what refers to it, so that no fault causes another. None where too little is left.
    """
    config = with_files(config)
    miswritten = config.sources.miswritten()
    first = [*(item.fault for item in miswritten), *_case_faults(config)]
    settled = {dotted(item.place) for item in miswritten if item.settles}
    rest = with_preset(config)
    found: list[str] = []
    while True:
        try:
            settings = Settings.model_validate(rest)
            faults = [*first, *found, *_repetition_faults(settings), *tolerance_faults(settings, found)]
            return with_plain_tolerance(_with_repetitions(settings)), faults
        except ValidationError as error:
            found = found or _value_faults(error, config.sources, settled)
            before = copy.deepcopy(rest)
            for item in error.errors():
                _leave_out(rest, item["loc"], item["type"] == "extra_forbidden")
            if rest == before:
                return None, [*first, *found]


def _case_faults(config: Mapping[str, Any]) -> list[str]:
    """Names become names of files and folders, which some systems do not tell apart by case."""
    return [
        f"{section}.{name}: differs from '{earlier}' only in case, and both become names of files; rename one"
        for section in NAMED_SECTIONS
        if isinstance(config.get(section), dict)
        for name, earlier in same_but_for_case(config[section])
    ]


def _repeated(name: str, scheme: Scheme) -> dict[str, Scheme]:
    """A scheme under its name, or its repetitions under theirs."""
    if scheme.noise is None or scheme.noise.repetitions is None:
        return {name: scheme}
    return {
        f"{name}_{number + 1}": scheme.model_copy(
            update={"noise": scheme.noise.model_copy(update={"seed": scheme.noise.seed + number, "repetitions": None})}
        )
        for number in range(scheme.noise.repetitions)
    }


def _repetition_faults(settings: Settings) -> list[str]:
    names = [(single, name) for name, scheme in settings.schemes.items() for single in _repeated(name, scheme)]
    return [
        f"schemes.{name}.noise.repetitions: a repetition would be named '{single}', as another scheme is; rename one"
        for single, name in names
        if single != name and [other for other, _ in names].count(single) > 1
    ] + [
        f"schemes.{name}.noise.repetitions: a repetition would be named '{single}', which {fault}"
        for single, name in names
        if single != name and (fault := name_fault(single))
    ]


def _with_repetitions(settings: Settings) -> Settings:
    """Each repetition as a scheme of its own; an experiment that names the scheme runs all of them."""
    singles = {name: _repeated(name, scheme) for name, scheme in settings.schemes.items()}
    experiments = {
        name: experiment.model_copy(
            update={"schemes": [single for scheme in experiment.schemes for single in singles.get(scheme, [scheme])]}
        )
        for name, experiment in settings.experiments.items()
    }
    schemes = {name: scheme for group in singles.values() for name, scheme in group.items()}
    return settings.model_copy(update={"schemes": schemes, "experiments": experiments})


def _leave_out(config: dict[str, Any], place: tuple[int | str, ...], unknown_key: bool) -> None:
    """Take out the faulty part at `place`, unless nothing could stand in for it."""
    path: list[int | str] = []
    parents: list[dict[Any, Any]] = []
    here: Any = config
    for part in place:
        if _is_union_branch(part):
            continue
        if not isinstance(here, dict) or part not in here:
            break
        path.append(part)
        parents.append(here)
        here = here[part]
    if not path or (unknown_key and path[-1] != place[-1]):
        return
    kind = str(path[0])
    if unknown_key:
        del parents[-1][path[-1]]
    elif kind in ("schemes", "models") and len(path) > 1:
        del config[kind][path[1]]
        _leave_out_references(config, kind, str(path[1]))
    elif kind not in ("schemes", "models", "structures", "experiments", "volumes"):
        del parents[-1][path[-1]]


def _leave_out_references(config: dict[str, Any], kind: str, name: str) -> None:
    experiments = config.get("experiments")
    if not isinstance(experiments, dict):
        return
    for key, parts in list(experiments.items()):
        names = parts.get(kind) if isinstance(parts, dict) else None
        if isinstance(names, list) and name in names:
            parts[kind] = [other for other in names if other != name]
            if not parts[kind]:
                del experiments[key]


def _value_faults(error: ValidationError, sources: Sources, settled: set[str]) -> list[str]:
    """A line for each fault. settled: places of which no more is to be said."""
    faults = []
    for item in error.errors():
        parts = tuple(part for part in item["loc"] if not _is_union_branch(part))
        place = dotted(parts) or "configuration"
        if place in settled:
            continue
        if item["type"] == "extra_forbidden":
            faults.append(f"{place}: unknown key{hint(str(item['loc'][-1]), _known_keys(item['loc']))}")
        elif item["type"] == "missing":
            faults.append(f"{place}: is required")
        elif item["input"] is None:
            faults.append(f"{place}: {_fault_of_nothing(parts)}")
        else:
            message = _expected(item["type"], item["input"], parts) or item["msg"].removeprefix("Value error, ")
            found = (
                "" if message.startswith(repr(item["input"])) else _found(item["input"], parts, item["type"], sources)
            )
            faults.append(f"{place}: {message}{found}")
    return list(dict.fromkeys(faults))


def _expected(kind: str, value: Any, place: Place) -> str:
    """What to write where a list or a section is expected and something simpler was written; empty for other faults."""
    if kind == "list_type" and not isinstance(value, dict):
        return f"Input should be a list, such as [{value}]"
    section = _section_at((*place, "")) if place else Settings
    if kind == "model_type" and section is not Settings:
        fields = section.model_fields
        required = [name for name, known in fields.items() if known.is_required()] or list(fields)[:1]
        return f"Input should be a section, such as {{{', '.join(f'{name}: ...' for name in required)}}}"
    return ""


def _fault_of_nothing(place: Place) -> str:
    """What to say of a key without a value: whether it can be left out."""
    known = _section_at(place).model_fields.get(str(place[-1])) if place else None
    if known is None:
        return "has no value (null); give one"
    if known.is_required():
        return "is required, and has no value (null); give one"
    return "has no value (null); give one, or leave the key out"


def _found(value: Any, place: Place, kind: str, sources: Sources) -> str:
    """The end of a fault: the value, as it is written where YAML reads it as something else."""
    if isinstance(value, dict):
        return ""
    written = sources.written(place)
    text = written.text if written else ""
    quoted = f"; put it into quotes: '{text or value}'" if kind == "string_type" and not isinstance(value, list) else ""
    if text and text.lower() != str(value).lower():
        return f" (found `{text}`, which YAML reads as {in_words(value)}){quoted}"
    return f" (found {value!r}){quoted}"


def _is_union_branch(part: object) -> bool:
    """Pydantic names the tried alternative of a union in a fault's place; a reader has no use for it."""
    return isinstance(part, str) and (
        part.startswith(("literal[", "list[", "function-")) or part in ("SliceAt", "[key]", ONE, EACH)
    )


def _known_keys(place: Place) -> list[str]:
    """The keys allowed where an unknown one was found."""
    return list(_section_at(place).model_fields)


def _section_at(place: Sequence[Any]) -> type[Section]:
    """The section that the key at a place belongs to."""
    sections: dict[str, type[Section]] = {
        "frames": Frames,
        "references": References,
        "structures": Structure,
        "schemes": Scheme,
        "models": Model,
        "experiments": Experiment,
        "inference": Inference,
        "scores": Scores,
        "comparisons": Comparisons,
        "report": Report,
    }
    section = sections.get(str(place[0]), Settings) if len(place) > 1 else Settings
    if place[0] == "schemes" and len(place) > 3:
        inner: dict[str, type[Section]] = {"slice": SliceAt, "noise": Noise, "corrections": Corrections}
        section = inner.get(str(place[2]), section)
    return section


def hint(word: str, known: Iterable[str]) -> str:
    """End a message on an unknown word: what was probably meant, or else what is known."""
    known = list(known)
    return suggestion(word, known) or f"; known: {', '.join(known)}"
