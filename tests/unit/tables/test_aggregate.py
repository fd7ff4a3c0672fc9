"""The study's tables: layout, what is bold, what is quoted from the paper, what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from volprompt import __version__
from volprompt.files import table_metadata, write_table
from volprompt.identity import write_identity
from volprompt.tables.aggregate import aggregate
from volprompt.tables.failures import FailedVolumes, check_failures, failures
from volprompt.tables.stored import read_csv, read_tracked_slices, score_metadata
from volprompt.tables.typeset import comparisons_latex, comparisons_markdown, latex, markdown, published

NAN = float("nan")


def medians(*rows: dict[str, Any], structures: tuple[str, ...] = ("femur", "tibia")) -> pd.DataFrame:
    table = pd.DataFrame(rows).astype({"parameters": "Int64"})
    for name in (*structures, "combined"):
        for suffix in ("low", "high"):
            if f"{name}_{suffix}" not in table:
                table[f"{name}_{suffix}"] = NAN
    return table


def row(model: str, scheme: str, *dice: float, parameters: Any = 38_945_986, n: int = 488) -> dict[str, Any]:
    values = dict(zip(("femur", "tibia", "combined"), dice, strict=True))
    return {"model": model, "scheme": scheme, "parameters": parameters, "n": n, **values}


TWO = medians(
    {**row("sam_vit_b", "box", 0.9, 0.8, 0.85), "femur_low": 0.89, "femur_high": 0.9123},
    row("sam2_tiny", "point_video", 0.7, 0.95, 0.85149, parameters=pd.NA, n=487),
)


def test_markdown() -> None:
    lines = markdown(TWO, ["femur", "tibia"]).splitlines()
    assert lines[:4] == [
        "| Model | Prompts | Parameters | Femur | Tibia | Combined | n |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| sam_vit_b | box | 38.9 M | **0.900 [0.890, 0.912]** | 0.800 | 0.850 | 488 |",
        "| sam2_tiny | point_video | - | 0.700 | **0.950** | **0.851** | 487 |",
    ]
    assert "95 % interval" in lines[5]


def test_latex() -> None:
    lines = latex(TWO, ["femur", "tibia"]).splitlines()
    body = [line for line in lines if not line.startswith("%")]
    assert body == [
        r"\begin{tabular}{llrrrrr}",
        r"\toprule",
        r"Model & Prompts & Parameters & Femur & Tibia & Combined & n \\",
        r"\midrule",
        r"sam\_vit\_b & box & 38.9 M & \textbf{0.900 [0.890, 0.912]} & 0.800 & 0.850 & 488 \\",
        r"sam2\_tiny & point\_video & - & 0.700 & \textbf{0.950} & \textbf{0.851} & 487 \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_names_keep_their_case() -> None:
    table = TWO.rename(columns=lambda name: name.replace("femur", "L5S1").replace("tibia", "medial_mFC"))
    head = "| Model | Prompts | Parameters | L5S1 | medial mFC | Combined | n |"
    assert markdown(table, ["L5S1", "medial_mFC"]).startswith(head)
    assert "& L5S1 & medial mFC & Combined &" in latex(table, ["L5S1", "medial_mFC"])


def test_a_configuration_without_scores() -> None:
    table = medians(row("a", "point", NAN, NAN, NAN, n=0), row("b", "point", 0.5, NAN, 0.5))
    lines = markdown(table, ["femur", "tibia"]).splitlines()
    assert lines[2] == "| a | point | 38.9 M | - | - | - | 0 |"
    assert lines[3] == "| b | point | 38.9 M | **0.500** | - | **0.500** | 488 |"


def test_equal_medians_are_both_the_best() -> None:
    table = medians(row("a", "point", 0.5, 0.5, 0.5), row("b", "point", 0.5, 0.4, 0.4))
    assert markdown(table, ["femur", "tibia"]).count("**0.500**") == 4


@pytest.mark.parametrize(
    ("structures", "shown"),
    [
        (["femur", "tibia"], True),
        (["patella", "tibia", "femur"], True),
        (["femur"], False),
        (["hip", "tibia"], False),
    ],
)
def test_published_figures_stand_beside_the_papers_bones_alone(structures: list[str], shown: bool) -> None:
    values = dict.fromkeys((*structures, "combined"), 0.5)
    table = medians({"model": "m", "scheme": "s", "parameters": 1, "n": 1, **values}, structures=tuple(structures))
    assert [value for _, value, _ in published(structures)] == ([0.9196, 0.9643] if shown else [])
    for text in (markdown(table, structures), latex(table, structures)):
        assert ("0.9196" in text and "0.9643" in text and "arXiv 2408.04762" in text) is shown
        assert ("not measured here" in text) is shown


# Comparisons


def compared(**changes: Any) -> dict[str, Any]:
    row = {"model": "sam_b", "scheme": "box", "other_model": "sam_b", "other_scheme": "point", "n": 488}
    numbers = {"median_difference": -0.0123, "low": -0.02, "high": 0.001, "p": 0.0004, "p_holm": 0.0123}
    return {**row, **numbers, "effect_size": -0.456, **changes}


COMPARED = pd.DataFrame(
    [
        compared(),
        compared(other_model="sam-2", other_scheme="box", p=0.2, p_holm=1.0),
        compared(median_difference=0.1, low=NAN, high=NAN, p=NAN, p_holm=NAN, effect_size=NAN, n=2),
    ]
)


def test_comparisons_in_markdown() -> None:
    lines = comparisons_markdown(COMPARED).splitlines()
    assert lines[:5] == [
        "| Model | Prompts | Other model | Other prompts | Median difference | p | p (Holm) | Effect size | n |",
        "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: |",
        "| sam_b | box | sam_b | point | **-0.012 [-0.020, 0.001]** | < 0.001 | 0.012 | -0.46 | 488 |",
        "| sam_b | box | sam-2 | box | -0.012 [-0.020, 0.001] | 0.200 | 1.000 | -0.46 | 488 |",
        "| sam_b | box | sam_b | point | 0.100 | - | - | - | 2 |",
    ]
    assert "Holm" in lines[-1]


def test_comparisons_in_latex() -> None:
    lines = comparisons_latex(COMPARED).splitlines()
    assert lines[0] == r"\begin{tabular}{llllrrrrr}"
    assert lines[4] == (
        r"sam\_b & box & sam\_b & point & \textbf{$-$0.012 [$-$0.020, 0.001]} & $<$ 0.001 & 0.012 & $-$0.46 & 488 \\"
    )
    assert lines[5].startswith(r"sam\_b & box & sam-2 & box & $-$0.012 [")
    assert lines[6] == r"sam\_b & box & sam\_b & point & 0.100 & - & - & - & 2 \\"


def test_no_comparison_is_a_table_without_rows() -> None:
    assert len(comparisons_markdown(COMPARED.iloc[:0]).splitlines()) == 4
    assert comparisons_latex(COMPARED.iloc[:0]).endswith("\\midrule\n\\bottomrule\n\\end{tabular}\n")


# Failures


def run(volume: str, status: str = "ok", reason: str = "", scheme: str = "point", **more: Any) -> dict[str, Any]:
    named = {"volume": volume, "model": "m", "scheme": scheme, "status": status, "reason": reason, "stage": "segment"}
    return {**named, "no_prompt": "{}", "parameters": 1000, "seconds": 2.0, **more}


CONVERTED = pd.DataFrame(
    [
        {"volume": "a", "status": "ok", "reason": ""},
        {"volume": "b", "status": "failed", "reason": "b.nii: no such file"},
        {"volume": "c", "status": "ok", "reason": ""},
    ]
)
RUNS = pd.DataFrame(
    [
        run("a", no_prompt='{"tibia": "slice 5 has no box for \'tibia\'"}'),
        run("c", "failed", "c: slice 5 has no point (centroid) for 'patella'"),
    ]
)


def test_table_of_failures() -> None:
    found = failures(CONVERTED, RUNS)
    assert found.to_dict("records") == [
        row_of("b", "convert", "", "", "", "b.nii: no such file"),
        row_of("c", "segment", "m", "point", "", "c: slice 5 has no point (centroid) for 'patella'"),
        row_of("a", "segment", "m", "point", "tibia", "slice 5 has no box for 'tibia'"),
    ]


FAILURE_COLUMNS = ["volume", "stage", "model", "scheme", "structure", "reason"]


def row_of(*values: str) -> dict[str, str]:
    return dict(zip(FAILURE_COLUMNS, values, strict=True))


def test_no_failures() -> None:
    found = failures(CONVERTED.iloc[:1], pd.DataFrame([run("a")]))
    assert list(found.columns) == FAILURE_COLUMNS
    assert len(found) == 0


def written(folder: Path, failed: int, of: int = 10, prefix: str = "v") -> tuple[Path, Path]:
    """A score table of ten pairs of volume and configuration with two structures each, and its failures."""
    status = ["failed"] * failed + ["no_reference"] + ["ok"] * (of - failed - 1)
    rows = [
        {"model": "m", "scheme": "s", "volume": f"{prefix}{i}", "structure": name, "status": kind}
        for i, kind in enumerate(status)
        for name in ("femur", "combined")
    ]
    pd.DataFrame(rows).to_parquet(folder / "scores.parquet")
    reasons = [
        {"volume": f"{prefix}{i}", "stage": "convert", "model": "", "scheme": "", "reason": f"v{i}.nii: no such file"}
        for i in range(failed)
    ]
    pd.DataFrame(reasons, columns=["volume", "stage", "model", "scheme", "reason"]).to_csv(
        folder / "failures.csv", index=False
    )
    return folder / "scores.parquet", folder / "failures.csv"


@pytest.mark.parametrize(("failed", "allowed"), [(0, 0.0), (2, 0.2), (2, 0.5)])
def test_failures_within_the_limit(tmp_path: Path, failed: int, allowed: float) -> None:
    summary = check_failures(*written(tmp_path, failed), allowed)
    assert summary == f"10 volumes, 1 configuration, {failed * 10}.0% of the volume-configuration pairs failed"


@pytest.mark.parametrize("prefix", ["v", "900110"])
def test_invalid_volumes_are_not_counted_where_they_are_skipped(tmp_path: Path, prefix: str) -> None:
    summary = check_failures(*written(tmp_path, 2, prefix=prefix), 0.0, skip_invalid=True)
    assert summary == (
        "8 volumes, 1 configuration, 0.0% of the volume-configuration pairs failed; 2 more skipped as invalid"
    )
    scores, table = written(tmp_path, 2)
    pd.read_parquet(scores).query("status == 'failed'").to_parquet(scores)
    with pytest.raises(FailedVolumes, match="All 2 volumes were skipped"):
        check_failures(scores, table, 0.0, skip_invalid=True)


def test_nothing_but_failures_is_never_allowed(tmp_path: Path) -> None:
    scores, table = written(tmp_path, 2)
    assert check_failures(scores, table, 1.0).startswith("10 volumes, 1 configuration, 20.0%")
    pd.read_parquet(scores).query("status == 'failed'").to_parquet(scores)
    with pytest.raises(FailedVolumes, match=r"100\.0% of .*; max_failed_fraction allows 100\.0%, but nothing is left"):
        check_failures(scores, table, 1.0)


@pytest.mark.parametrize(("failed", "allowed"), [(1, 0.0), (2, 0.19)])
def test_failures_beyond_the_limit(tmp_path: Path, failed: int, allowed: float) -> None:
    scores, table = written(tmp_path, failed)
    with pytest.raises(FailedVolumes) as caught:
        check_failures(scores, table, allowed)
    message = str(caught.value)
    assert f"{failed * 10}.0% of the volume-configuration pairs failed" in message
    assert f"max_failed_fraction allows {allowed:.1%}" in message
    assert "convert: v0.nii: no such file" in message
    assert str(table) in message


def test_names_are_text(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("volume,model,scheme,reason,dice\n001,NA,null,,0.5\n7,nan,,late,\n")
    table = read_csv(tmp_path / "table.csv")
    assert table["volume"].tolist() == ["001", "7"]
    assert table["model"].tolist() == ["NA", "nan"]
    assert table["scheme"].fillna("-").tolist() == ["null", "-"]
    assert table["dice"].fillna(-1).tolist() == [0.5, -1]


# Metadata and slices


def test_metadata_of_the_score_tables_is_kept(tmp_path: Path) -> None:
    for name, version in (("a", "1.0"), ("b", "2.0"), ("c", "1.0")):
        write_table(RUNS, tmp_path / name, {"scored_with": version, "tolerance": "1.0", "version": "of the scores"})
    metadata = score_metadata([tmp_path / name for name in "abc"])
    assert (metadata["scored_with"], metadata["tolerance"]) == ("1.0; 2.0", "1.0")
    assert (metadata["tool"], metadata["version"]) == ("volprompt", __version__)
    assert metadata["aggregate_method_version"].isdigit()


def sliced(scheme: str, distances: list[int | None]) -> pd.DataFrame:
    named = {"experiment": "e", "model": "m", "scheme": scheme, "volume": "a", "structure": "femur"}
    counts = {"intersection": 1, "predicted": 1, "reference": 1}
    table = pd.DataFrame({"slice": range(len(distances)), "distance": distances}).assign(**named, **counts)
    return table.astype({"distance": "Int32"})


def test_slices_of_image_schemes_are_not_read(tmp_path: Path) -> None:
    write_table(sliced("box", [None, None]), tmp_path / "a")
    write_table(pd.concat([sliced("video", [-1, 0]), sliced("box", [None, None])]), tmp_path / "b")
    assert read_tracked_slices([tmp_path / "a", tmp_path / "b"])["distance"].tolist() == [-1, 0]
    assert len(read_tracked_slices([tmp_path / "a"])) == 0


# Everything together


def scored(scheme: str, volume: str, status: str, dice: float) -> list[dict[str, Any]]:
    named = {"experiment": "e", "model": "m", "scheme": scheme, "volume": volume, "status": status, "dice": dice}
    named |= dict.fromkeys(("nsd", "hd95_mm", "assd_mm", "over_propagation", "volume_error"), 0.5)
    named |= {"dice_where_present": dice + 0.1, "dice_prompted": NAN, "predicted_iou": 0.7, "object_score": NAN}
    return [{**named, "structure": name} for name in ("femur", "tibia", "combined", "union", "mean")]


def aggregate_shards(
    folder: Path,
    jobs: dict[str, list[dict[str, Any]]],
    runs: dict[str, list[dict[str, Any]]],
    converted: dict[str, pd.DataFrame],
    groups: dict[str, str],
) -> None:
    """Aggregate the shards' rows of scores, runs and volumes; two slices of shard 000 are those of a video scheme."""
    for shard in jobs:
        write_table(pd.DataFrame(jobs[shard]), folder / f"scores_{shard}.parquet", {"tolerance": "1.0"})
        distances = [0, 1] if shard == "000" else []
        write_table(sliced("point", distances), folder / f"scores_{shard}_slices.parquet")
        write_table(pd.DataFrame(runs[shard]), folder / "masks" / shard / "run.parquet")
        write_table(converted[shard], folder / "volumes" / shard / "volumes.parquet")
        write_identity(folder / f"scores_{shard}.parquet", {}, {})
    aggregate(
        scores=[folder / f"scores_{shard}.parquet" for shard in jobs],
        slices=[folder / f"scores_{shard}_slices.parquet" for shard in jobs],
        masks=[folder / "masks" / shard for shard in jobs],
        volumes=[folder / "volumes" / shard for shard in jobs],
        scored=["femur", "tibia"],
        every_slice_schemes=["box"],
        groups=groups,
        tables=folder / "tables",
    )


def test_aggregate(tmp_path: Path) -> None:
    jobs = {
        "000": [*scored("point", "a", "ok", 0.8), *scored("box", "a", "ok", 0.9)],
        "001": [
            *(part for scheme in ("point", "box") for part in scored(scheme, "b", "failed", NAN)),
            *scored("point", "c", "ok", 0.6),
            *scored("box", "c", "failed", NAN),
        ],
    }
    runs = {
        "000": [run("a", seconds=2.0), run("a", scheme="box", seconds=4.0)],
        "001": [run("c", seconds=6.0), run("c", "failed", "c: no box", scheme="box")],
    }
    converted = {"000": CONVERTED.iloc[:1], "001": CONVERTED.iloc[1:]}
    aggregate_shards(tmp_path, jobs, runs, converted, {"a": "s1", "c": "s1"})
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {
        "scores.parquet",
        *(f"{table}.{end}" for table in ("medians", "comparisons") for end in ("csv", "parquet", "md", "tex")),
        "ranks.csv",
        "decay.csv",
        "corrections.csv",
        "confidence.csv",
        "expected_dice.csv",
        "propagation.csv",
        "cost.csv",
        "failures.csv",
        "identity.json",
    }
    assert table_metadata(tmp_path / "tables" / "scores.parquet")["tolerance"] == "1.0"
    assert len(pd.read_parquet(tmp_path / "tables" / "scores.parquet")) == 6 * 5
    table = pd.read_csv(tmp_path / "tables" / "medians.csv").set_index("scheme")
    assert table["combined"].to_dict() == {"point": pytest.approx(0.7), "box": pytest.approx(0.9)}
    assert table["n"].to_dict() == {"point": 2, "box": 1}
    assert table["seconds_per_volume"].to_dict() == {"point": 4.0, "box": 4.0}
    failed = pd.read_csv(tmp_path / "tables" / "failures.csv")
    assert failed["reason"].tolist() == ["b.nii: no such file", "c: no box"]
    comparison = pd.read_csv(tmp_path / "tables" / "comparisons.csv")
    assert comparison["n"].tolist() == [1]
    for name in ("medians", "comparisons"):
        stored = pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        read = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        pd.testing.assert_frame_equal(stored, read, check_dtype=False)
    ranked = pd.read_csv(tmp_path / "tables" / "ranks.csv").set_index("scheme")
    assert ranked["rank"].to_dict() == {"point": 2, "box": 1}
    decayed = pd.read_csv(tmp_path / "tables" / "decay.csv")
    assert decayed[["direction", "distance", "volumes"]].to_numpy().tolist() == [["prompted", 0, 1], ["forward", 1, 1]]
    modes = pd.read_csv(tmp_path / "tables" / "propagation.csv").set_index(["scheme", "structure"])
    assert len(modes) == 2 * 3
    assert modes["knows_extent"].to_dict() == {key: key[0] == "box" for key in modes.index}
    assert modes.loc["point", "femur"]["dice_where_present"].item() == pytest.approx(0.8)
    assert pd.read_csv(tmp_path / "tables" / "cost.csv")["dice"].tolist() == pytest.approx([0.7, 0.9])
    assert comparison["median_difference"].tolist() == [pytest.approx(0.1)]
    with pytest.raises(FailedVolumes, match=r"50\.0%"):  # 3 of 6 pairs
        check_failures(tmp_path / "tables" / "scores.parquet", tmp_path / "tables" / "failures.csv", 0.4)


def test_aggregate_knows_the_subjects(tmp_path: Path) -> None:
    volumes = [f"knee{index}" for index in range(14)]
    converted = pd.DataFrame({"volume": volumes, "status": "ok", "reason": ""})
    groups = {name: f"s{index % 7}" for index, name in enumerate(volumes)}
    jobs = [part for scheme in ("point", "box") for name in volumes for part in scored(scheme, name, "ok", 0.5)]
    runs = [run(name, scheme=scheme) for scheme in ("point", "box") for name in volumes]
    aggregate_shards(tmp_path, {"000": jobs}, {"000": runs}, {"000": converted}, groups)
    (comparison,) = pd.read_csv(tmp_path / "tables" / "comparisons.csv").to_dict("records")
    assert (comparison["n"], comparison["groups"], comparison["interval"]) == (14, 7, "bootstrap by group")
