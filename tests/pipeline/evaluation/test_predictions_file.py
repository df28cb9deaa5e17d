"""The predictions file: what it keeps, and which files are refused."""

from dataclasses import replace

import numpy as np

from das.skeleton import PANOPTIC15
from pipeline.evaluation.predictions_file import PredictionSet, collect
from pipeline.infra.columns import read_lists, write_lists
from tests.pipeline.evaluation.evaluation_cases import (
    joints_as,
    metrics,
    predictions_of,
    provenance_of,
    refused,
    scene,
)


def test_a_file_gives_the_same_scores_whatever_the_order_of_its_rows(tmp_path):
    records = scene(frames=6)
    rng = np.random.default_rng(0)
    people = [p[: i % 3] + rng.normal(0, 40, p[: i % 3].shape) for i, p in enumerate(joints_as(records, PANOPTIC15))]
    predictions = predictions_of(records, people)
    predictions.save(tmp_path / "predictions.parquet")
    loaded = PredictionSet.load(tmp_path / "predictions.parquet")
    assert loaded.provenance == predictions.provenance and loaded.keys == predictions.keys
    assert (loaded.counts == predictions.counts).all()
    np.testing.assert_array_equal(loaded.joints_cam, predictions.joints_cam.astype(np.float32))
    rows = [
        {
            "key": np.repeat([key], n),
            "rank": np.arange(n)[::-1],
            **{
                column: getattr(loaded, name)[loaded.counts[:i].sum() :][:n][::-1]
                for column, name in (("score", "scores"), ("joints_uv", "joints_uv"), ("joints_cam", "joints_cam"))
            },
        }
        for i, (key, n) in enumerate(zip(loaded.keys, loaded.counts, strict=True))
    ]
    again = collect(loaded.provenance, loaded.keys[::-1], rows[::-1])
    assert metrics(records, again) == metrics(records, loaded)


def test_an_image_without_row_or_a_row_for_another_image_is_named():
    records = scene()
    fewer = predictions_of(records[:3], data_fingerprint=provenance_of(records).data_fingerprint)
    refused(lambda: metrics(records, fewer), "no row for", records[3].key, "1 of 4")
    more = predictions_of(records, data_fingerprint=provenance_of(records[:3]).data_fingerprint)
    refused(lambda: metrics(records[:3], more), "other images", records[3].key)


def test_a_damaged_file_is_refused_by_name(tmp_path):
    file = tmp_path / "predictions.parquet"
    records = scene()
    columns = ("scores", "joints_uv", "joints_cam")
    predictions_of(records).save(file)
    keys, lists, about = read_lists(file, "key", columns)

    def written(keys=keys, about=about, **changes):
        write_lists(file, "key", keys, {**lists, **changes}, about)
        return lambda: PredictionSet.load(file)

    refused(written([keys[0], *keys[:3]]), str(file), keys[0], "twice")
    values = lists["joints_cam"].values.copy()
    values[15 * 3 * 5 + 7] = np.nan
    refused(written(joints_cam=replace(lists["joints_cam"], values=values)), str(file), keys[2], "joints_cam", "NaN")
    short = replace(lists["joints_uv"], lengths=np.array([60, 60, 30, 90]))
    refused(written(joints_uv=short), str(file), keys[2], "30 numbers", "wanted 30 for each of 2")
    refused(written(about={**about, "format": 9}), str(file), "format 9", "1")
    refused(written(about={**about, "score_threshold": 0.3, "extra": 1}), str(file), "extra")
    write_lists(file, "key", keys, {name: lists[name] for name in columns[:2]}, about)
    refused(lambda: PredictionSet.load(file), str(file), "joints_cam", "missing")
    file.write_bytes(b"PAR1 no")
    refused(lambda: PredictionSet.load(file), str(file), "Parquet")
    refused(lambda: PredictionSet.load(tmp_path / "nothing.parquet"), "nothing.parquet", "no such file")
