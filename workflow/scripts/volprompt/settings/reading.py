"""Reading a configuration: every fault of a key or a value is listed with its place."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from volprompt.errors import VolpromptError, suggestion
from volprompt.settings.config import (
    Corrections,
    Experiment,
    Frames,
    Inference,
    Model,
    Noise,
    References,
    Report,
    Scheme,
    Scores,
    Section,
    Settings,
    SliceAt,
    Structure,
)
from volprompt.settings.presets import with_preset


class ConfigurationError(VolpromptError):
    """All faults of a configuration and its tables, one line each."""

    def __init__(self, faults: Iterable[str]) -> None:
        self.faults = list(faults)
        count = "1 fault" if len(self.faults) == 1 else f"{len(self.faults)} faults"
        super().__init__("\n".join([f"The configuration has {count}:", *(f"  - {fault}" for fault in self.faults)]))


def load_config(path: str | Path) -> dict[str, Any]:
    """Load a configuration file; its keys and values are checked elsewhere. Raises ConfigurationError."""
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except OSError as error:
        fault = f"cannot be read ({error.strerror}); expected a configuration: correct the path"
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        fault = f"is not valid YAML ({' '.join(str(error).split())}): correct the file"
    else:
        if isinstance(config, dict):
            return config
        fault = f"holds a {type(config).__name__}; expected keys such as `volumes` and `structures`"
    raise ConfigurationError([f"{path}: {fault}"])


def read_settings(config: Mapping[str, Any]) -> Settings:
    """Read the configuration without its tables. Raises ConfigurationError with every fault of a value or a key."""
    settings, faults = read_valid_part(config)
    if settings is None or faults:
        raise ConfigurationError(faults)
    return settings


def read_valid_part(config: Mapping[str, Any]) -> tuple[Settings | None, list[str]]:
    """Read the configuration for further checks: what is valid of it, and every fault of a value or a key.

    An unknown key is left out, a faulty value gets its default, and a faulty scheme or model is left out together with
    what refers to it, so that no fault causes another. None where too little is left.
    """
    faults: list[str] = []
    rest = with_preset(config)
    while True:
        try:
            settings = Settings.model_validate(rest)
            faults += _repetition_faults(settings)
            return _with_repetitions(settings), faults
        except ValidationError as error:
            faults = faults or _value_faults(error)
            before = copy.deepcopy(rest)
            for item in error.errors():
                _leave_out(rest, item["loc"], item["type"] == "extra_forbidden")
            if rest == before:
                return None, faults


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


def _value_faults(error: ValidationError) -> list[str]:
    faults = []
    for item in error.errors():
        place = ".".join(str(part) for part in item["loc"] if not _is_union_branch(part)) or "configuration"
        if item["type"] == "extra_forbidden":
            faults.append(f"{place}: unknown key{hint(str(item['loc'][-1]), _known_keys(item['loc']))}")
        elif item["type"] == "missing":
            faults.append(f"{place}: is required")
        else:
            shown = "" if isinstance(item["input"], dict) else f" (found {item['input']!r})"
            faults.append(f"{place}: {item['msg'].removeprefix('Value error, ')}{shown}")
    return list(dict.fromkeys(faults))


def _is_union_branch(part: object) -> bool:
    """Pydantic names the tried alternative of a union in a fault's place; a reader has no use for it."""
    return isinstance(part, str) and (part.startswith(("literal[", "list[", "function-")) or part == "SliceAt")


def _known_keys(place: tuple[int | str, ...]) -> list[str]:
    """The keys allowed where an unknown one was found."""
    sections: dict[str, type[Section]] = {
        "frames": Frames,
        "references": References,
        "structures": Structure,
        "schemes": Scheme,
        "models": Model,
        "experiments": Experiment,
        "inference": Inference,
        "scores": Scores,
        "report": Report,
    }
    section = sections.get(str(place[0]), Settings) if len(place) > 1 else Settings
    if place[0] == "schemes" and len(place) > 3:
        inner: dict[str, type[Section]] = {"slice": SliceAt, "noise": Noise, "corrections": Corrections}
        section = inner.get(str(place[2]), section)
    return list(section.model_fields)


def hint(word: str, known: Iterable[str]) -> str:
    """End a message on an unknown word: what was probably meant, or else what is known."""
    known = list(known)
    return suggestion(word, known) or f"; known: {', '.join(known)}"
