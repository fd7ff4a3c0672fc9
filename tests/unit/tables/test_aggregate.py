"""The study's tables together: what is written, what each column is, what failed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.unit.tables.score_tables import NAN

from volprompt import __version__
from volprompt.files import join_tables, table_metadata, write_table
from volprompt.identity import write_identity
from volprompt.scores.rounds import ROUND_COLUMNS
from volprompt.tables.aggregate import aggregate
from volprompt.tables.design import TableDesign
from volprompt.tables.failures import FailedVolumes, check_failures, failures
from volprompt.tables.stored import read_csv, read_tracked_slices, score_metadata

# Failures


def run(volume: str, status: str = "ok", reason: str = "", scheme: str = "point", **more: Any) -> dict[str, Any]:
    named = {"volume": volume, "model": "m", "scheme": scheme, "status": status, "reason": reason, "stage": "segment"}
    prompts = {"prompts": 2, "prompts_of": '{"femur": 1, "tibia": 1}', "human_prompts": 2}
    return {**named, "no_prompt": "{}", "parameters": 1000, "seconds": 2.0, **prompts, **more}


CONVERTED = pd.DataFrame(
    [
        {"volume": "a", "status": "ok", "reason": "", "spacing": [0.7, 0.4, 0.4]},
        {"volume": "b", "status": "failed", "reason": "b.nii: no such file", "spacing": None},
        {"volume": "c", "status": "ok", "reason": "", "spacing": [0.7, 0.4, 0.4]},
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
    named |= {"volume_mm3": 1100.0, "reference_mm3": 900.0}
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
        of_volume = sliced("point", distances).assign(volume=converted[shard]["volume"].iloc[0])
        write_table(of_volume, folder / f"scores_{shard}_slices.parquet")
        write_table(join_tables([], ROUND_COLUMNS), folder / f"scores_{shard}_rounds.parquet")
        write_table(pd.DataFrame(runs[shard]), folder / "masks" / shard / "run.parquet")
        table = converted[shard].assign(spacing=[[0.7, 0.4, 0.4]] * len(converted[shard]))
        write_table(table, folder / "volumes" / shard / "volumes.parquet")
        write_identity(folder / f"scores_{shard}.parquet", {}, {})
    aggregate(
        scores=[folder / f"scores_{shard}.parquet" for shard in jobs],
        slices=[folder / f"scores_{shard}_slices.parquet" for shard in jobs],
        masks=[folder / "masks" / shard for shard in jobs],
        volumes=[folder / "volumes" / shard for shard in jobs],
        rounds=[folder / f"scores_{shard}_rounds.parquet" for shard in jobs],
        design=TableDesign(
            scored=["femur", "tibia"],
            every_slice_schemes=["box"],
            groups=groups,
            covariates={"grade": {"a": "1", "c": "2"}},
        ),
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
        *("scores.parquet", "scores.csv", "slices.parquet", "dictionary.csv"),
        *(f"{table}.{end}" for table in ("medians", "comparisons") for end in ("csv", "parquet", "md", "tex")),
        *("medians_long.csv", "subgroups.csv", "experiment_cost.csv"),
        "ranks.csv",
        "decay.csv",
        "agreement.csv",
        "acceptable.csv",
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
    comparison = comparison[(comparison["structure"] == "combined") & (comparison["score"] == "dice")]
    assert comparison["n"].tolist() == [1]
    for name in ("medians", "comparisons"):
        stored = pd.read_parquet(tmp_path / "tables" / f"{name}.parquet")
        read = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        pd.testing.assert_frame_equal(stored, read, check_dtype=False)
    ranked = pd.read_csv(tmp_path / "tables" / "ranks.csv").set_index("scheme")
    assert ranked["rank"].to_dict() == {"point": 2, "box": 1}
    decayed = pd.read_csv(tmp_path / "tables" / "decay.csv")
    assert decayed[["direction", "distance", "volumes"]].to_numpy().tolist() == [["prompted", 0, 1], ["forward", 1, 1]]
    assert pd.read_csv(tmp_path / "tables" / "acceptable.csv")[["slices", "acceptable_share"]].values.tolist() == [
        [2, 1]
    ]
    agreed = pd.read_csv(tmp_path / "tables" / "agreement.csv").set_index(["scheme", "structure"])
    assert agreed.loc["point", "femur"][["n", "groups", "bias_ml", "bias_percent"]].tolist() == pytest.approx(
        [2, 1, 0.2, 20]
    )
    assert decayed["distance_mm"].tolist() == [0, 0.7]
    modes = pd.read_csv(tmp_path / "tables" / "propagation.csv").set_index(["scheme", "structure"])
    assert len(modes) == 2 * 3
    assert modes["knows_extent"].to_dict() == {key: key[0] == "box" for key in modes.index}
    assert modes.loc["point", "femur"]["dice_where_present"].item() == pytest.approx(0.8)
    assert pd.read_csv(tmp_path / "tables" / "cost.csv")["dice"].tolist() == pytest.approx([0.7, 0.9])
    assert comparison["median_difference"].tolist() == [pytest.approx(0.1)]
    _check_dictionary(tmp_path / "tables")
    with pytest.raises(FailedVolumes, match=r"50\.0%"):  # 3 of 6 pairs
        check_failures(tmp_path / "tables" / "scores.parquet", tmp_path / "tables" / "failures.csv", 0.4)


def _check_dictionary(tables: Path) -> None:
    """Every column of every table is in the data dictionary, in order and with its type, and in the Parquet files."""
    dictionary = pd.read_csv(tables / "dictionary.csv", keep_default_na=False)
    assert (dictionary["meaning"].str.len() > 0).all()
    names = {path.stem for path in tables.iterdir() if path.suffix in (".csv", ".parquet")} - {"dictionary"}
    assert set(dictionary["table"]) == names
    for name, rows in dictionary.groupby("table"):
        described = rows.set_index("column")
        if (csv := tables / f"{name}.csv").exists():
            read = pd.read_csv(csv)
            assert list(read.columns) == list(described.index)
            for column, kind in described["type"].items():
                if kind in ("number", "whole number"):
                    assert read[column].dtype.kind in "if", (name, column)
        if (parquet := tables / f"{name}.parquet").exists():
            schema = pq.read_schema(parquet)
            assert schema.names == list(described.index)
            for field in schema:
                stored = {key.decode(): value.decode() for key, value in field.metadata.items()}
                assert (stored["unit"], stored["meaning"]) == tuple(described.loc[field.name, ["unit", "meaning"]])
    scores = dictionary[dictionary["table"] == "scores"].set_index("column")
    assert scores.loc[["hd95_mm", "seconds", "dice"], "unit"].tolist() == ["mm", "s", ""]
    assert scores.loc["grade", "type"] == "text"
    assert len(pd.read_parquet(tables / "slices.parquet")) == 2


def test_aggregate_knows_the_subjects(tmp_path: Path) -> None:
    volumes = [f"knee{index}" for index in range(14)]
    converted = pd.DataFrame({"volume": volumes, "status": "ok", "reason": "", "spacing": [[0.7, 0.4, 0.4]] * 14})
    groups = {name: f"s{index % 7}" for index, name in enumerate(volumes)}
    jobs = [part for scheme in ("point", "box") for name in volumes for part in scored(scheme, name, "ok", 0.5)]
    runs = [run(name, scheme=scheme) for scheme in ("point", "box") for name in volumes]
    aggregate_shards(tmp_path, {"000": jobs}, {"000": runs}, {"000": converted}, groups)
    comparison = pd.read_csv(tmp_path / "tables" / "comparisons.csv").iloc[-2]  # `combined`, Dice
    assert (comparison["n"], comparison["groups"], comparison["interval"]) == (14, 7, "bootstrap by group")
