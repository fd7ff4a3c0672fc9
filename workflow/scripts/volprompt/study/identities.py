"""The identity that each output of a study should have, and why one that is there is not what was asked for.

Only settings that reach an output are part of its identity: not the places of files, the order of rows, schemes,
structures or models, the device, or batch sizes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from volprompt import METHOD_VERSION
from volprompt.files import sha256_of
from volprompt.identity import (
    Identity,
    changed_files,
    differences,
    digest_of,
    identity_path,
    read_identity,
    signature_of,
)
from volprompt.remembered import DigestMemory
from volprompt.study.study import Study
from volprompt.volumes.images.sources import readable_sha256, signature_of_source
from volprompt.words import at_most

# Settings of `inference` that reach an experiment's masks only if it has a video scheme.
VIDEO_SETTINGS = frozenset({"reset_between_directions", "fill_holes", "video_resize"})

# Parts of which an output may hold more than is asked for: later stages read only what they ask for.
SPARE = {
    "convert": frozenset({"labels"}),
    "extract_prompts": frozenset({"structures"}),
    "segment": frozenset({"schemes", "structures"}),
    "score": frozenset({"schemes"}),
}


@dataclass(frozen=True)
class Output:
    """An output of the study: where it lies, and what it should be made from.

    rule: what makes it.
    name: its path below the results, such as `masks/sam1/vit_b/003`.
    settings: those that reach it.
    inputs: the outputs that it is made from, by their names in its identity; sources: files of the user, likewise.
    """

    rule: str
    name: str
    path: Path
    settings: Mapping[str, Any]
    inputs: Mapping[str, Path] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


def convert_settings(study: Study, shard: str) -> dict[str, Any]:
    """What a converted shard depends on, beside the bytes of its sources."""
    frames = study.settings.frames
    return {
        "volumes": {
            row.volume: {"reference": bool(row.reference), "series": row.series} for row in study.shards[shard]
        },
        "frames": {
            "axis": frames.axis,
            "coding": frames.coding,
            **{key: list(value) for key, value in frames.grey.items()},
        },
        "labels": sorted({*study.ignored, *(label for labels in study.labels.values() for label in labels)}),
        "resample": study.settings.references.resample,
        "method_version": METHOD_VERSION["convert"],
    }


def prompts_settings(study: Study, shard: str) -> dict[str, Any]:
    """What a shard's prompt table depends on, beside the converted volumes."""
    clicks = [
        [click.volume, click.structure, click.slice, click.x, click.y, *([] if click.label is None else [click.label])]
        for click in study.clicks_of(shard)
    ]
    return {
        "structures": {name: sorted(labels) for name, labels in study.labels.items()},
        "clicks": clicks,  # in the order of the table: of two clicks at one place the later one counts
        "method_version": METHOD_VERSION["prompts"],
    }


def segment_settings(study: Study, experiment: str, model: str) -> dict[str, Any]:
    """What the masks of an experiment and a model depend on, beside volumes and prompts."""
    schemes = {name: study.settings.schemes[name] for name in study.experiments[experiment].schemes}
    has_video = any(scheme.predictor == "video" for scheme in schemes.values())
    inference = study.settings.inference.model_dump(mode="json")
    labels = study.labels_of(schemes.values())
    corrected = any(scheme.corrections for scheme in schemes.values())
    return {
        "model": study.checkpoints[model].architecture_settings(),
        "checkpoint": study.checkpoints[model].digests(),
        "schemes": {name: scheme.plain() for name, scheme in schemes.items()},
        "structures": {name: sorted(numbers) for name, numbers in labels.items()},
        "scored": sorted(study.scored_structures),
        "precision": inference["precision"],
        "video": {key: inference[key] for key in sorted(VIDEO_SETTINGS)} if has_video else {},
        **({"ignored": sorted(study.ignored)} if study.ignored and corrected else {}),
        "method_version": METHOD_VERSION["segment"],
    }


def score_settings(study: Study, experiment: str) -> dict[str, Any]:
    """What an experiment's scores depend on, beside volumes and masks."""
    schemes = study.experiments[experiment].schemes
    return {
        "schemes": {name: study.settings.schemes[name].prompts_every_slice for name in schemes},
        "structures": {name: sorted(study.labels[name]) for name in study.scored_structures},
        **({"ignored": sorted(study.ignored)} if study.ignored else {}),
        "scores": study.settings.scores.model_dump(mode="json", exclude={"acceptable_dice"}),
        "method_version": METHOD_VERSION["score"],
    }


def tables_settings(study: Study) -> dict[str, Any]:
    """What the tables depend on, beside the scores: here the order counts, since rows follow it."""
    return {
        "configurations": study.configurations,
        **study.table_design,
        "every_slice_schemes": sorted(study.every_slice_schemes),
        "method_version": METHOD_VERSION["aggregate"],
    }


def report_settings(study: Study) -> dict[str, Any]:
    """What the report depends on, beside the tables, volumes, prompts and masks that it shows."""
    return {
        "configuration": study.described(),
        "shown_sources": digest_of(study.shown_sources(study.volumes)),
        "method_version": METHOD_VERSION["report"],
    }


def pages_settings(study: Study, shard: str) -> dict[str, Any]:
    """What the pages of a shard's volumes depend on, beside the volumes, prompts, masks and scores that they show."""
    paths = study.settings.report.paths
    return {
        "schemes": {name: scheme.plain() for name, scheme in study.settings.schemes.items()},
        "structures": {name: list(labels) for name, labels in study.labels.items()},
        "scored": study.scored_structures,
        "experiments": {name: parts.schemes for name, parts in study.experiments.items()},
        "paths": paths,
        "shown_sources": study.shown_sources(study.shards[shard]),
        **({"shown_results": str(Path(study.settings.results))} if paths == "show" else {}),
        "method_version": METHOD_VERSION["report"],
    }


def verdict_settings(study: Study) -> dict[str, Any]:
    """What the end of the study depends on, beside the tables."""
    settings = study.settings
    return {"max_failed_fraction": settings.max_failed_fraction, "on_invalid": settings.on_invalid}


def outputs(study: Study) -> Iterator[Output]:
    """Every output of the study, each after those that it is made from."""
    results = Path(study.settings.results)
    volumes = {shard: results / "volumes" / shard for shard in study.shards}
    prompts = {shard: results / "prompts" / f"{shard}.parquet" for shard in study.shards}
    for shard, rows in study.shards.items():
        sources = {f"{row.volume} image": row.image for row in rows}
        sources |= {f"{row.volume} reference": row.reference for row in rows if row.reference}
        yield Output("convert", f"volumes/{shard}", volumes[shard], convert_settings(study, shard), sources=sources)
        made_from = {"volumes": volumes[shard]}
        yield Output("extract_prompts", f"prompts/{shard}", prompts[shard], prompts_settings(study, shard), made_from)
    scores: dict[str, Path] = {}
    for experiment, parts in study.experiments.items():
        scoring = score_settings(study, experiment)
        for model in parts.models:
            settings = segment_settings(study, experiment, model)
            for shard in study.shards:
                job = f"{experiment}/{model}/{shard}"
                masks = results / "masks" / job
                scores[job] = results / "scores" / f"{job}.parquet"
                made_from = {"volumes": volumes[shard], "prompts": prompts[shard]}
                yield Output("segment", f"masks/{job}", masks, settings, made_from)
                made_from = {"volumes": volumes[shard], "masks": masks}
                yield Output("score", f"scores/{job}", scores[job], scoring, made_from)
    for shard in study.shards if study.settings.report.volumes == "all" else ():
        of_shard = {job: path for job, path in scores.items() if job.endswith(f"/{shard}")}
        made_from = {"volumes": volumes[shard], "prompts": prompts[shard], **_prefixed("scores", of_shard)}
        pages = results / "report" / "volumes" / shard
        yield Output("volume_pages", f"volume_pages/{shard}", pages, pages_settings(study, shard), made_from)
    tables = results / "tables"
    yield Output("aggregate", "tables", tables, tables_settings(study), scores)
    page = results / "report"
    yield Output("report", "report", page, report_settings(study), {"tables": tables, **_prefixed("prompts", prompts)})
    yield Output("all", "complete", results / "complete.txt", verdict_settings(study), {"tables": tables})


def _prefixed(kind: str, paths: Mapping[str, Path]) -> dict[str, Path]:
    return {f"{kind}/{name}": path for name, path in paths.items()}


class Ledger:
    """What is known of the outputs that are there: each identity is read once, sources are hashed at most once."""

    def __init__(self, memory: DigestMemory) -> None:
        self.memory = memory
        self._identities: dict[Path, Identity | None] = {}

    def identity(self, output: Path) -> Identity | None:
        """The identity of an output; None where it has none."""
        if output not in self._identities:
            self._identities[output] = read_identity(output)
        return self._identities[output]

    def faults(self, output: Output) -> list[str]:
        """Why an output is not the one that was asked for, one text for each difference; none where it is."""
        identity = self.identity(output.path)
        if identity is None:
            return ["nothing says what it was made from" if output.path.exists() else "it is not there"]
        faults = setting_differences(output.rule, identity.settings, output.settings)
        asked_again = sorted(identity.pruned & output.settings.get("schemes", {}).keys())
        faults += [f"the masks of scheme {scheme} were pruned" for scheme in asked_again]
        wanted = {*output.inputs, *output.sources}
        faults += [f"{name} is no longer part of it" for name in identity.made_from if name not in wanted]
        for name, path in output.inputs.items():
            made = self.identity(path)
            if name in identity.made_from and made is None:
                faults.append(f"{name} is no longer there")
            elif made is None or made.digest != identity.made_from.get(name):
                faults.append(f"{name} was made again" if name in identity.made_from else f"{name} is new")
        for name, source in output.sources.items():
            if not self._source_is_the_same(identity, name, source):
                faults.append(f"{name} has other bytes" if name in identity.made_from else f"{name} is new")
        return faults + changed_files(identity, identity_path(output.path).parent, self._file_digest)

    def _source_is_the_same(self, identity: Identity, name: str, source: str) -> bool:
        known = identity.made_from.get(name)
        if known is None:
            return False
        signature = signature_of_source(source)
        if signature == "" or known == "":  # it cannot be read, now or then
            return signature == known
        if signature == identity.signatures.get(name):
            return True
        path = str(Path(source).resolve())
        return self.memory.digest(path, signature, lambda: readable_sha256(source)) == known

    def _file_digest(self, file: Path) -> str:
        return self.memory.digest(str(file.resolve()), signature_of([file], file.parent), lambda: sha256_of(file))


def setting_differences(rule: str, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """In what an output's settings differ from the wanted ones.

    What SPARE names may be stored and no longer wanted, but for structures whose points are negative for others. Of a
    checkpoint one digest of a kind that both have decides.
    """
    stored, wanted = dict(stored), dict(wanted)
    spare = SPARE.get(rule, frozenset())
    if any(scheme.get("negatives") == "others" for scheme in wanted.get("schemes", {}).values() if rule == "segment"):
        spare -= {"structures"}  # every structure gives points to the others
    for key in spare & stored.keys():
        stored[key] = _still_wanted(stored[key], wanted[key])
    new = []
    for key in ("schemes", "structures"):
        if isinstance(stored.get(key), Mapping) and isinstance(wanted.get(key), Mapping):
            new += [f"{key}.{name} is new" for name in wanted[key] if name not in stored[key]]
            wanted[key] = _still_wanted(wanted[key], stored[key])
    if "checkpoint" in wanted:
        first, second = stored.pop("checkpoint", {}), wanted.pop("checkpoint")
        if not any(first.get(kind) == digest for kind, digest in second.items()):
            new.append("the checkpoint has other tensors")
    return [*new, *_taken_out_or_new(rule, stored, wanted), *differences(stored, wanted)]


def _taken_out_or_new(rule: str, stored: dict[str, Any], wanted: dict[str, Any]) -> list[str]:
    """What tables or a report have of experiments, models and schemes that the configuration no longer has, and what
    it has beside those. Settings that follow from this alone are taken out of `stored` and `wanted`.
    """
    if rule not in ("aggregate", "report"):
        return []
    before, now = _parts(stored), _parts(wanted)
    texts = []
    if gone := _outermost(before - now):
        texts.append(f"made with {gone}, which the configuration no longer has (`volprompt prune` lists what can go)")
    if new := _outermost(now - before):
        texts.append(f"made without {new}, which the configuration now has")
    if texts:
        for settings, others in ((stored, wanted), (wanted, stored)):
            for key in ("configurations", "experiments", "every_slice_schemes"):
                settings.pop(key, None)
            if described := settings.get("configuration"):
                other = others.get("configuration", {})
                kept = {kind: _still_wanted(described.get(kind), other.get(kind)) for kind in ("schemes", "models")}
                settings["configuration"] = {**described, **kept, "experiments": None}
    return texts


def _parts(settings: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """Experiment, kind and name of each experiment, and of each of its models and schemes."""
    parts: set[tuple[str, str, str]] = set()
    for experiment, model, scheme in settings.get("configurations", ()):
        parts |= {(experiment, "", ""), (experiment, "model", model), (experiment, "scheme", scheme)}
    for experiment, names in settings.get("configuration", {}).get("experiments", {}).items():
        parts.add((experiment, "", ""))
        parts |= {(experiment, "model", name) for name in names["models"]}
        parts |= {(experiment, "scheme", name) for name in names["schemes"]}
    return parts


def _outermost(parts: set[tuple[str, str, str]], longest: int = 5) -> str:
    """Parts in words, as `volprompt prune` names them; those of an experiment that is among them are not told."""
    words = [
        f"{kind} {experiment}/{name}" if kind else f"experiment {experiment}"
        for experiment, kind, name in sorted(parts)
        if not kind or (experiment, "", "") not in parts
    ]
    return ", ".join(at_most(words, longest))


def _still_wanted(stored: Any, wanted: Any) -> Any:
    """Of the keys of a mapping, or of sorted label numbers, those that are wanted too; other values as they are."""
    if isinstance(stored, Mapping) and isinstance(wanted, Mapping):
        return {key: value for key, value in stored.items() if key in wanted}
    if isinstance(stored, list) and isinstance(wanted, list):
        return [value for value in stored if value in wanted]
    return stored
