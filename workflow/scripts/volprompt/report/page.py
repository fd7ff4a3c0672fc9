"""The report: one HTML page that opens offline, with everything a reader of the study asks for, and its figures."""

from __future__ import annotations

import base64
import datetime
import json
import os
import platform
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from volprompt import METHOD_VERSION, __version__, tables
from volprompt.files import write_text
from volprompt.logs import logger
from volprompt.report import figures, plots
from volprompt.report.deviations import deviations, prompts_in_words
from volprompt.report.overlays import median_volume, overlays
from volprompt.report.shards import ShardFiles, StudyDesign
from volprompt.report.views import volume_views
from volprompt.resampling import labels_of
from volprompt.volumes import read_volume_table

TEMPLATES = Path(__file__).parent / "templates"
SHOWN_ROWS = 200
REPORT_PACKAGES = ("numpy", "pandas", "scipy", "matplotlib")
# Columns of the table of single volumes: name in the score table, heading, digits after the point.
VOLUME_COLUMNS = (
    ("dice", "Dice", 4),
    ("dice_where_present", "Dice where present", 4),
    ("dice_prompted", "Dice, prompted slice", 4),
    ("nsd", "NSD", 4),
    ("hd95_mm", "HD95 (mm)", 2),
    ("assd_mm", "ASSD (mm)", 3),
    ("volume_error", "Volume error", 3),
    ("over_propagation", "Over-propagation", 4),
)


def write_report(
    *,
    aggregated: str | Path,
    shards: Sequence[ShardFiles],
    design: StudyDesign,
    title: str,
    example: str | None,
    page: str | Path,
    description: str = "",
    figures_folder: str | Path | None = None,
    show_volumes: bool = True,
    stamp: str = "",
    today: datetime.date | None = None,
) -> None:
    """Write the page, and its figures as SVG and PDF.

    aggregated: folder of the study's tables; example: the volume of the overlay figures, or None for the volume whose
    combined Dice, averaged over the configurations, is the median; description: a paragraph below the title;
    figures_folder: where the figures go (default: `figures` beside the page); show_volumes: whether there are frames
    and masks to show; stamp: a word on every page and figure, such as SIMULATED; today: the date on the page. A table
    that is missing or empty leaves one sentence in its section.
    """
    found = Tables(Path(aggregated))
    page = Path(page)
    folder = Path(figures_folder) if figures_folder else page.parent / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    runs = tables.read_runs([path for shard in shards for path in shard.masks.values()])
    volumes = pd.concat([read_volume_table(shard.volumes) for shard in shards], ignore_index=True)
    chosen = (example or median_volume(found.scores)) if show_volumes else None
    drawn = Gallery(folder, page.parent, stamp)
    draw_plots(drawn, found, design)
    draw_overlays(drawn, chosen, shards, design)
    failures, warnings = grouped_failures(found.failures), volume_warnings(volumes)
    views = volume_views(found.scores, shards, design) if show_volumes else None
    html = (
        _environment()
        .get_template("page.html.j2")
        .render(
            title=title,
            description=description,
            stamp=stamp,
            date=(today or datetime.datetime.now(datetime.UTC).date()).isoformat(),
            scored=list(design.scored),
            columns=[*design.scored, "combined"],
            facts=study_facts(found.scores, volumes, runs, design),
            models=model_rows(runs, design),
            schemes=scheme_rows(design),
            deviations=deviations(design, len(volumes), sorted(runs["precision"].dropna().unique())),
            preset=design.preset,
            software=software(runs),
            medians=records(found.medians),
            best={name: found.medians[name].max() for name in [*design.scored, "combined"]},
            published=tables.published(design.scored),
            published_note=tables.PUBLISHED_NOTE,
            comparisons=records(found.comparisons),
            decay=records(decay_milestones(found.decay)),
            failure_modes=records(found.failure_modes),
            ranks=records(found.ranks),
            costs=records(found.cost),
            gallery=drawn,
            example=chosen,
            example_note="as configured" if example else "in the middle of the ranking by mean combined Dice",
            volume_table=volume_table(found.scores, design.scored),
            failures=failures[:SHOWN_ROWS],
            failures_total=len(failures),
            unscored=sorted(found.scores.loc[found.scores["status"] == "no_reference", "volume"].unique()),
            warnings=warnings[:SHOWN_ROWS],
            warnings_total=len(warnings),
            files=[os.path.relpath(path, page.parent) for path in found.files],
            views=views,
        )
    )
    write_text(page, html)
    logger.info("The report is %s (%.1f MB)", page, len(html.encode()) / 1e6)


class Tables:
    """The study's tables; those that are missing are empty."""

    def __init__(self, folder: Path) -> None:
        self.files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
        self.scores = pd.read_parquet(folder / "scores.parquet")
        self.medians = tables.read_csv(folder / "medians.csv").astype({"parameters": "Int64"})
        self.comparisons = self._read(folder / "comparisons.csv")
        self.ranks = self._read(folder / "ranks.csv")
        self.decay = self._read(folder / "decay.csv")
        self.failure_modes = self._read(folder / "failure_modes.csv")
        self.cost = self._read(folder / "cost.csv")
        self.failures = self._read(folder / "failures.csv")

    def _read(self, path: Path) -> pd.DataFrame:
        return tables.read_csv(path) if path in self.files else pd.DataFrame()


class Gallery:
    """The page's figures by name: written beside the page, and as elements of it."""

    def __init__(self, folder: Path, page_folder: Path, stamp: str) -> None:
        self.folder = folder
        self.beside = os.path.relpath(folder, page_folder)
        self.stamp = stamp
        self.elements: dict[str, Markup] = {}

    def add(self, name: str, figure: Any, label: str, raster: bool = False) -> None:
        """Write a figure and keep it for the page; label: what it shows, read out by screen readers."""
        drawn = plots.write_figure(figure, self.folder, name, self.stamp)
        if raster:
            picture = base64.b64encode(figures.png(figure)).decode()
            element = f'<img alt="{escape(label)}" src="data:image/png;base64,{picture}">'
        else:
            element = plots.inline_svg(drawn, str(escape(label)))
        self.elements[name] = Markup(element)

    def __contains__(self, name: str) -> bool:
        return name in self.elements

    def starting(self, prefix: str) -> list[str]:
        """The figures whose names start like this, in the order in which they were added."""
        return [name for name in self.elements if name.startswith(prefix)]


def draw_plots(gallery: Gallery, found: Tables, design: StudyDesign) -> None:
    """Every plot whose table has rows."""
    order = plots.configurations_of(found.medians)
    schemes = plots.Look(list(dict.fromkeys(scheme for _, scheme in order)))
    done = found.scores[found.scores["status"] == "ok"]
    for name in ["combined", *design.scored] if len(done) else []:
        figure = plots.distributions(done, name, order, schemes)
        gallery.add(f"distributions_{name}", figure, f"Dice of every volume by configuration, {name}")
    for kind in found.comparisons["kind"].unique() if len(found.comparisons) else []:
        label = f"Median paired differences of combined Dice between {kind}, with intervals"
        gallery.add(f"differences_{kind}", plots.differences(found.comparisons, kind), label)
    if len(found.decay):
        label = "Pooled Dice by distance from the prompted slice, by structure, scheme and model"
        gallery.add("decay", plots.decay(found.decay, design.scored), label)
    if len(found.failure_modes):
        label = "Combined Dice in full, on slices with the structure and on the prompted slice, and over-propagation"
        gallery.add("failure_modes", plots.failure_modes(found.failure_modes, order), label)
    if len(found.ranks) and found.ranks["rank"].notna().any():
        gallery.add("ranks", plots.ranks(found.ranks, schemes), "Ranks of the configurations with bootstrap intervals")
    if "dice" in found.cost and found.cost[["dice", "seconds_per_volume"]].notna().all(axis=1).any():
        gallery.add("cost", plots.cost(found.cost, schemes), "Median combined Dice against seconds per volume")
    for run, steps in design.training_runs.items():
        if found.medians.loc[found.medians["model"].isin(list(steps)), "combined"].notna().any():
            figure = plots.training(found.medians, steps, schemes)
            gallery.add(f"training_{run}", figure, f"Median combined Dice against training step, {run}")


def draw_overlays(gallery: Gallery, volume: str | None, shards: Sequence[ShardFiles], design: StudyDesign) -> None:
    """Prompts and masks of each experiment on a slice of `volume`."""
    for overlay in overlays(volume, shards, design) if volume else []:
        label = f"Masks of experiment {overlay.experiment} on slice {overlay.slice} of volume {volume}"
        gallery.add(f"overlay_{overlay.experiment}", overlay.figure, label, raster=True)


def study_facts(
    scores: pd.DataFrame, volumes: pd.DataFrame, runs: pd.DataFrame, design: StudyDesign
) -> list[tuple[str, str]]:
    """What was run, as pairs of a word and its meaning here."""
    converted = volumes[volumes["status"] == "ok"]
    scored = scores.loc[scores["status"] == "ok", "volume"].nunique()
    groups = len(set(labels_of(list(converted["volume"]), design.groups)))
    subjects = f" of {groups} subjects" if groups < len(converted) else ""
    structures = [
        f"{name} ({label_text(labels)}{'' if name in design.scored else ', not scored'})"
        for name, labels in design.structures.items()
    ]
    devices = runs[["device", "precision"]].dropna().drop_duplicates()
    return [
        (
            "Volumes",
            f"{len(volumes)}{subjects}; {len(converted)} converted, {scored} scored",
        ),
        ("Data", common_folder(converted["source"])),
        ("Grid", "; ".join(grids(converted))),
        ("Slices", f"{design.frames.axis}" if isinstance(design.frames.axis, str) else f"axis {design.frames.axis}"),
        ("Structures", ", ".join(structures)),
        ("Configurations", str(len(scores[["model", "scheme"]].drop_duplicates()))),
        ("Ran on", "; ".join(f"{device}, {precision}" for device, precision in devices.itertuples(index=False))),
        ("volprompt", f"{__version__}; methods " + ", ".join(f"{key} {n}" for key, n in METHOD_VERSION.items())),
    ]


def label_text(labels: Sequence[int]) -> str:
    """`label 1`, `labels 1, 2`, or `no label` for a structure that is only clicked on."""
    kind = "no label" if not labels else "label" if len(labels) == 1 else "labels"
    return f"{kind} {', '.join(map(str, labels))}".strip()


def common_folder(sources: pd.Series) -> str:
    """The folder that all images have in common."""
    folders = [os.path.dirname(str(path)) for path in sources]
    try:
        return os.path.commonpath(folders) or "."
    except ValueError:  # none, or relative beside absolute ones
        return ", ".join(sorted(set(folders))[:3])


def grids(converted: pd.DataFrame) -> list[str]:
    """The grids of the volumes, the commonest first: voxels, spacing in mm, and how many volumes have it."""
    if not len(converted):
        return []
    texts = [
        f"{' × '.join(str(int(n)) for n in row.shape)} voxels of {' × '.join(f'{mm:.4g}' for mm in row.spacing)} mm"
        for row in converted.itertuples()
    ]
    counts = pd.Series(texts).value_counts(sort=True)
    shown = [
        f"{text} ({count} volume{'s' if count > 1 else ''})" if len(counts) > 1 else text
        for text, count in counts.head(3).items()
    ]
    return shown + ([f"and {len(counts) - 3} others"] if len(counts) > 3 else [])


def model_rows(runs: pd.DataFrame, design: StudyDesign) -> list[dict[str, Any]]:
    """One row per model: what it is, and the SHA-256 of the checkpoint that made the masks."""
    rows = []
    for name in dict.fromkeys(model for models, _ in design.experiments.values() for model in models):
        own = runs[runs["model"] == name]
        identity = design.models.get(name, {})
        parameters = own["parameters"].dropna()
        rows.append(
            {
                "model": name,
                "family": identity.get("family", ""),
                "architecture": identity.get("architecture", ""),
                "parameters": int(parameters.iloc[0]) if len(parameters) else None,
                "checkpoints": list(own["checkpoint_sha256"].dropna().unique()),
            }
        )
    return rows


def scheme_rows(design: StudyDesign) -> list[dict[str, Any]]:
    """One row per scheme that an experiment uses: in words, as configured, and with which models."""
    rows = []
    for name, scheme in design.schemes.items():
        models = [model for models, names in design.experiments.values() if name in names for model in models]
        if models:
            words, definition = prompts_in_words(scheme), scheme.model_dump(mode="json", exclude_defaults=True)
            rows.append({"scheme": name, "words": words, "definition": flow(definition), "models": ", ".join(models)})
    return rows


def flow(value: object) -> str:
    """A setting as it would stand in the configuration, on one line."""
    text = str(yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=1000))
    return text.strip().removesuffix("\n...")  # YAML's end of a document that is a single word


def software(runs: pd.DataFrame) -> list[tuple[str, str]]:
    """The distinct sets of package versions that made the masks, and those that made this page."""
    made = [", ".join(f"{k} {n}" for k, n in json.loads(text).items()) for text in runs["versions"].dropna().unique()]
    here = ", ".join(f"{name} {version(name)}" for name in REPORT_PACKAGES)
    return [("Masks", text) for text in made] + [("Statistics and page", f"Python {platform.python_version()}, {here}")]


def decay_milestones(table: pd.DataFrame) -> pd.DataFrame:
    """Of the decay table the rows that fit a page: the prompted slice, and distances 1, 5, 10, 20, 40, ... of each."""
    if not len(table):
        return table
    return table[table["distance"].isin([0, 1, 5, 10, 20, 40, 80, 160])]


def grouped_failures(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Failures of one volume, stage and reason as one row, with the configurations that they concern."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for row in table.fillna("").itertuples():
        pair = f"{row.model} {row.scheme}".strip()
        rows.setdefault((str(row.volume), str(row.stage), str(row.reason)), []).append(pair)
    return [
        {"volume": volume, "stage": stage, "reason": reason, "where": ", ".join(filter(None, pairs)) or "all"}
        for (volume, stage, reason), pairs in rows.items()
    ]


def volume_warnings(volumes: pd.DataFrame) -> list[tuple[str, str]]:
    """What was remarked on volumes that were converted all the same."""
    return [
        (str(row.volume), str(text))
        for row in volumes.itertuples()
        if row.warnings is not None
        for text in np.atleast_1d(row.warnings)
    ]


def volume_table(scores: pd.DataFrame, scored: Sequence[str]) -> dict[str, Any]:
    """The scores of single volumes as compact columns, for the page's script.

    The value of configuration c, volume v and structure s stands at (c * volumes + v) * structures + s; None where it
    is undefined. `status` holds indices into `statuses`, and -1 where the score table has no row. Columns without any
    value are left out.
    """
    structures = ["combined", *scored]
    chosen = scores[scores["structure"].isin(structures)]
    pairs = plots.configurations_of(chosen)
    names = sorted(chosen["volume"].unique())
    statuses = sorted(chosen["status"].unique())
    lookup = {pair: index for index, pair in enumerate(pairs)}
    configuration = np.array(
        [lookup[str(m), str(s)] for m, s in zip(chosen["model"], chosen["scheme"], strict=True)], int
    )
    volume = pd.Categorical(chosen["volume"], categories=names).codes.astype(int)
    structure = pd.Categorical(chosen["structure"], categories=structures).codes.astype(int)
    place = (configuration * len(names) + volume) * len(structures) + structure
    size = len(pairs) * len(names) * len(structures)
    status = np.full(size, -1)
    status[place] = pd.Categorical(chosen["status"], categories=statuses).codes
    columns = []
    for column, heading, digits in VOLUME_COLUMNS:
        if column not in chosen or not chosen[column].notna().any():
            continue
        values = np.full(size, np.nan)
        values[place] = chosen[column].to_numpy(dtype=float, na_value=np.nan)
        columns.append({"heading": heading, "digits": digits, "values": compact(values)})
    return {
        "configurations": pairs,
        "volumes": names,
        "structures": structures,
        "statuses": statuses,
        "status": status.tolist(),
        "columns": columns,
    }


def compact(values: np.ndarray) -> list[float | int | str | None]:
    """Four significant digits, whole numbers without a point; 'inf', which JSON lacks; None for missing values."""
    return [_compact(float(value)) for value in values]


def _compact(value: float) -> float | int | str | None:
    if not np.isfinite(value):
        return None if np.isnan(value) else "inf"
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as dictionaries, with None for what is missing."""
    return table.astype(object).where(table.notna(), None).to_dict("records")


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":")}
    environment.globals["asset"] = lambda name: Markup((TEMPLATES / name).read_text(encoding="utf-8"))
    environment.filters |= {
        "fixed": fixed,
        "flow": flow,
        "signed": signed,
        "share": share,
        "p": p_value,
        "rank": rank,
        "millions": millions,
    }
    environment.filters["heading"] = lambda name: str(name).replace("_", " ").capitalize()
    return environment


def fixed(value: float | None, digits: int = 3) -> str:
    """`0.912`, `∞`, or a dash."""
    return "–" if value is None else f"{value:.{digits}f}".replace("inf", "∞")


def signed(value: float | None, digits: int = 3) -> str:
    """`+0.012` or `−0.012`, or a dash."""
    return "–" if value is None else f"{value:+.{digits}f}".replace("-", "−")


def share(value: float | None, digits: int = 1) -> str:
    """`12.3 %`, or a dash."""
    return "–" if value is None else f"{100 * value:.{digits}f} %".replace("-", "−")


def p_value(value: float | None) -> str:
    """`0.012`, `< 0.001`, or a dash."""
    return "–" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"


def rank(value: float | None) -> str:
    """`3`, or `2.5` for a shared rank, or a dash."""
    return "–" if value is None else f"{value:g}"


def millions(value: float | None) -> str:
    """`93.7 M`, or a dash."""
    return "–" if value is None else f"{value / 1e6:.1f} M"
