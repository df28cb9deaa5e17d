"""One evaluation on Ray: what it writes, what it refuses before Ray starts, and what MLflow holds afterwards."""

import csv
import hashlib
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray

from das.checkpoint import load_model
from das.predictor import Predictor
from das.skeleton import COCO17, Skeleton
from pipeline.cli import main
from pipeline.data.record import decode_image
from pipeline.data.shards import write_records
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.command import run_evaluation
from pipeline.evaluation.config import EvaluateConfig
from pipeline.evaluation.evaluate import evaluate
from pipeline.evaluation.inference import worker_count
from pipeline.evaluation.part_predictor import PartPredictor
from pipeline.evaluation.parts import assemble, parts_of, write_part
from pipeline.evaluation.predictions_file import LISTS, PredictionSet
from pipeline.evaluation.score import score
from pipeline.evaluation.scores import Scores
from pipeline.infra.cluster import ClusterConfig
from pipeline.infra.columns import ListColumn, read_lists
from pipeline.infra.images import read_photo
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.infra.name_claim import claimed_name
from pipeline.models import fingerprint
from pipeline.registry.config import PromoteConfig
from pipeline.registry.gate import Gate
from pipeline.registry.promote import promote
from pipeline.tracking.tracker import Tracker
from tests.pipeline.evaluation.evaluation_cases import MODEL, read, scene, write_checkpoint, write_prepared

IMAGES = 6


def config_of(folder: Path, **changes) -> EvaluateConfig:
    """A quick evaluation of the checkpoint and the data in ``folder``, its runs beside them."""
    cluster = ClusterConfig(storage=str(folder / "runs"))
    base = EvaluateConfig(str(folder / "model"), (str(folder / "prepared"),), name="tiny", cluster=cluster)
    return replace(base, **{"overlays": 2, "worst": 1, "runtime_images": 2, **changes})


def files(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def run_of(result):
    return MlflowStore(result.tracking_uri).client().get_run(result.run_id)


def measured(run) -> dict:
    """A run's metrics without those of the machine that it ran on."""
    return {name: value for name, value in run.data.metrics.items() if not name.startswith("system/")}


def same(found: dict, wanted: dict) -> bool:
    """Equal numbers under equal names; NaN equals null."""
    plain = {k: None if v is None or math.isnan(v) else v for k, v in found.items()}
    return plain == {k: None if v is None or math.isnan(v) else v for k, v in wanted.items()}


def refused(call, *parts):
    with pytest.raises(ValueError) as caught:
        call()
    message = str(caught.value)
    assert all(part in message for part in parts) and "\n" not in message, message


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluation")
    write_prepared(folder / "prepared", scene(frames=IMAGES))
    write_checkpoint(folder / "model")
    return folder


@pytest.fixture(scope="module")
def result(place, local_ray):
    return evaluate(config_of(place))


# ---- what an evaluation leaves behind ----


def test_an_evaluation_writes_all_its_files(place, result):
    assert result.out == str(place / "runs" / "evaluations" / "tiny")
    found = {name for name in files(Path(result.out)) if not name.startswith("tracking/")}
    tables = {table.name for table in result.tables}
    named = {"strict_activities", "strict_sequences", "strict_joints", "strict_roots", "strict_distance"}
    assert tables >= named | {"panoptic_release", "panoptic_smap"}
    assert found == {
        "predictions.parquet",
        "scores.json",
        "report.json",
        "report.html",
        *(f"tables/{name}.csv" for name in tables),
        *result.overlays,
    }
    assert Scores.from_json(read(result.scores_file)) == result.scores


def test_predictions_equal_those_of_the_predictor_without_ray(place, result):
    """One row an image, in the order of the data, equal to what the predictor finds without Ray."""
    predictions = PredictionSet.load(Path(result.out) / "predictions.parquet")
    records = scene(frames=IMAGES)
    assert predictions.keys == tuple(r.key for r in records)
    assert predictions.provenance.model_fingerprint == fingerprint(place / "model")
    assert predictions.provenance.least_score == predictions.provenance.score_threshold == 0.0
    found = Predictor.from_folder(place / "model").predict_batch(
        [decode_image(r) for r in records], [r.K for r in records], [r.distortion for r in records]
    )
    assert predictions.counts.tolist() == [len(p.people) for p in found] and predictions.counts.sum() > 0
    for name, of in (("scores", "scores"), ("joints_uv", "joints_uv"), ("joints_cam", "joints_cam")):
        expected = np.concatenate([getattr(p.people, of) for p in found])
        np.testing.assert_allclose(getattr(predictions, name), expected, rtol=1e-4, atol=1e-2)


def test_scoring_the_file_again_needs_no_model_and_gives_the_same(place, result):
    annotations = read_annotations([str(place / "prepared")], "test")
    results = score(annotations, PredictionSet.load(Path(result.out) / "predictions.parquet"))
    assert same(results.metrics, {k: v for k, v in result.metrics.items() if not k.startswith("runtime/")})
    assert [t.text() for t in results.tables] == [t.text() for t in result.tables]


def test_mlflow_holds_the_numbers_of_the_report_in_one_run(result):
    run, report = run_of(result), read(Path(result.out) / "report.json")
    assert run.info.status == "FINISHED"
    logged = measured(run)
    assert same(logged, report["metrics"]) and same(report["metrics"], result.metrics)
    for name in ("strict/mpjpe", "strict/recall", "strict/recall/mafia", "baseline/mpjpe", "panoptic_release/mpjpe",
                 "panoptic_release/mpjpe/haggling", "runtime/latency_ms_median"):  # fmt: skip
        assert name in run.data.metrics, name
    scores = result.scores
    assert report["scores"] == scores.to_json() and scores.split == "panoptic/test" and not scores.train_fit
    assert (scores.recall, scores.precision) == (result.metrics["strict/recall"], result.metrics["strict/precision"])
    client = MlflowStore(result.tracking_uri).client()
    artifacts = {a.path for folder in ("", "tables", "overlays") for a in client.list_artifacts(result.run_id, folder)}
    files_ = {"predictions.parquet", "scores.json", "report.json", "report.html", "tables/strict_joints.csv"}
    assert files_ | {*result.overlays} <= artifacts
    assert Scores.from_json(read(Path(client.download_artifacts(result.run_id, "scores.json")))) == scores
    (dataset,) = run.inputs.dataset_inputs
    assert run.data.tags["das.data.test.panoptic"] == scores.data_fingerprint and dataset.dataset.name == "panoptic"
    assert run.data.params["model"].endswith("model") and run.data.params["cluster.dashboard"] == "False"


def test_csv_tables_and_report_hold_the_same_numbers(result):
    report = {t["name"]: t for t in read(Path(result.out) / "report.json")["tables"]}
    for table in result.tables:
        rows = [*csv.DictReader((Path(result.out) / "tables" / f"{table.name}.csv").read_text().splitlines())]
        assert [row[table.name] for row in rows] == [*table.rows] == [*report[table.name]["rows"]]
        for row in rows:
            numbers = [float(row[name]) if row[name] else None for name, _ in table.columns]
            assert numbers == report[table.name]["rows"][row[table.name]]


def test_the_page_shows_this_evaluation_and_its_pictures(result):
    page = (Path(result.out) / "report.html").read_text()
    assert page.count("<img data-picture=") == len(result.overlays) == 3
    for text in (result.run_id, "panoptic/test: tiny", f"{result.runtime.latency_ms_median:.1f} <small>ms</small>"):
        assert text in page, text


def test_overlays_are_pictures_of_photo_and_floor(result):
    assert len(result.overlays) == 3 and [Path(p).name[:5] for p in result.overlays] == ["sprea", "sprea", "worst"]
    for name in result.overlays:
        image = read_photo(Path(result.out) / name)
        assert image.shape[0] == 480 and image.shape[1] > 1000


def test_the_summary_names_headline_tables_timings_and_places(result):
    text = result.summary()
    headline = ("panoptic/test", "mean pose", "recall", "precision")
    for part in (*headline, "haggling", "l_wrist", "optimistic", "images/s", "ms p90", result.run_id, result.out):
        assert part in text, part
    assert "seq0" not in text, "tables by sequence are left to the files"


def test_the_same_name_continues_the_run_and_replaces_the_files(place, result, local_ray):
    again = evaluate(config_of(place, runtime_images=0, overlays=0, worst=0))
    assert (again.run_id, again.out) == (result.run_id, result.out)
    assert again.runtime is None and again.overlays == ()
    assert not any(name.startswith("overlays/") for name in files(Path(again.out)))
    assert again.metrics["strict/recall"] == result.metrics["strict/recall"]


def test_promotion_takes_the_id_of_an_evaluations_run(place, result):
    tracking_uri = result.tracking_uri
    with Tracker.open(tracking_uri, "das", "training", place / "runs" / "training") as training:
        pass
    config = PromoteConfig(str(place / "model"), result.run_id, "das-panoptic", training.handle.run_id)
    lenient = Gate(min_f1=0, max_error=1)
    found = promote(replace(config, cluster=ClusterConfig(storage=str(place / "runs"))), lenient)
    # An untrained model finds no person, or has a larger error than the mean pose.
    assert not found.champion and found.version == 1
    assert any("MPJPE" in reason or "recall" in reason for reason in found.verdict.reasons)


# ---- train-fit ----


@pytest.mark.parametrize("index", ["keys", "images", "none"])
def test_training_images_are_refused_unless_allowed(place, tmp_path, index):
    records = scene(frames=IMAGES)
    if index == "keys":
        seen = [replace(r, image_sha256="other") for r in records[:2]]
    else:
        seen = [replace(r, key="other") for r in records[:2]]
    write_checkpoint(tmp_path / "model", trained_on=seen, index=index != "none")
    config = config_of(place, model=str(tmp_path / "model"), name="overlap")
    wanted = f"2 of {IMAGES} images, such as {records[0].key}"
    if index == "none":
        wanted = "no trained_on-*.parquet of all its data"
    refused(lambda: evaluate(config), wanted, "--allow-overlap", "panoptic/test")
    assert not (place / "runs" / "evaluations" / "overlap").exists(), "refused before anything is written"


def test_allowed_training_images_mark_all_numbers_and_pass_no_gate(place, tmp_path, local_ray):
    write_checkpoint(tmp_path / "model", trained_on=scene(frames=1))
    fit = evaluate(config_of(place, model=str(tmp_path / "model"), name="fit", allow_overlap=True, overlays=0, worst=0))
    assert fit.scores.train_fit and fit.metrics
    assert all(name.startswith(("train-fit/", "system/")) for name in run_of(fit).data.metrics | fit.metrics)
    assert "train-fit/runtime/latency_ms_median" in fit.metrics
    assert all(p.name.startswith("train-fit_") for p in (Path(fit.out) / "tables").iterdir())
    assert fit.summary().startswith("train-fit") and all("train-fit" in t.title for t in fit.tables)
    perfect = replace(fit.scores, mpjpe_mm=1.0, baseline_mpjpe_mm=100.0, recall=1.0, precision=1.0)
    assert "train-fit" in Gate().incomparable(perfect, None)[0].text


# ---- what is refused ----


def test_wrong_input_ends_in_one_line_before_ray_starts(place, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pipeline.evaluation.evaluate.connect", lambda _: pytest.fail("Ray was started"))
    write_prepared(tmp_path / "only_2d", [replace(r, joints_cam=None, K=None) for r in scene(COCO17, source="coco")])
    write_prepared(tmp_path / "empty", scene())
    (tmp_path / "empty" / "test" / "shard-00000.parquet").unlink()
    write_records(tmp_path / "empty" / "test" / "shard-00000.parquet", [])
    spine = Skeleton("spine", ("spine", "head_top"), (("spine", "head_top"),), ("spine",))
    write_checkpoint(tmp_path / "spine", replace(MODEL, skeleton=spine))
    (tmp_path / "unfinished").mkdir()
    data, nowhere = str(place / "prepared"), str(tmp_path / "nowhere")
    for change, parts in (
        ({"model": nowhere}, (nowhere, "checkpoint folder")),
        ({"model": "models:/das-demo@champion"}, ("no database",)),
        ({"model": str(tmp_path / "spine")}, ("panoptic/seq0", "coco19 has no spine", "model's spine")),
        ({"data": ()}, ("data is empty",)),
        ({"data": (nowhere,)}, (nowhere, "does not exist")),
        ({"data": (str(tmp_path / "unfinished"),)}, ("no manifest",)),
        ({"data": (data, data)}, ("panoptic/seq0", "every image once")),
        ({"data": (str(tmp_path / "empty"),)}, ("empty", "holds no images")),
        ({"data": (data, str(tmp_path / "only_2d"))}, ("coco/seq0", "2D only")),
        ({"split": "val"}, (data, "no split 'val'", "test")),
    ):
        cluster = ClusterConfig(storage=str(tmp_path / "runs"))
        refused(lambda c=change, k=cluster: evaluate(config_of(place, name="wrong", cluster=k, **c)), *parts)
    assert not (tmp_path / "runs").exists(), "nothing half-written"
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", "--model", nowhere, "--data", data, "--allow-overlap", "--cluster.storage", str(tmp_path)])
    assert exit_.value.code == 2 and capsys.readouterr().err.startswith(f"das: {nowhere}")


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"threshold": 1.0}, "threshold"),
        ({"workers": -1}, "workers"),
        ({"name": "a/b"}, "name"),
        ({"model": ""}, "wanted one of the two"),
        ({"predictions": "also.parquet"}, "wanted one of the two"),
    ],
)
def test_settings_out_of_range_are_refused(place, change, part):
    refused(lambda: config_of(place, **change), part)


def test_a_name_that_another_model_has_taken_is_refused(place, result, tmp_path):
    write_checkpoint(tmp_path / "model", seed=1)
    refused(lambda: evaluate(config_of(place, model=str(tmp_path / "model"))), "model_fingerprint", "another --name")


def test_workers_leave_one_cpu_for_reading(local_ray):
    assert ray.cluster_resources()["CPU"] == 2
    assert worker_count(0, gpu=False) == worker_count(1, gpu=False) == 1
    refused(lambda: worker_count(2, gpu=False), "2 workers", "2 CPU")
    refused(lambda: worker_count(0, gpu=True), "GPU")


def test_the_default_name_holds_hashes_of_model_and_data(place, local_ray):
    found = evaluate(config_of(place, name=None, runtime_images=0, overlays=0, worst=0, threshold=0.5))
    scores = found.scores
    name = f"panoptic-test-{scores.model_fingerprint[:8]}-{scores.data_fingerprint[:8]}"
    assert Path(found.out).name == name and run_of(found).data.tags["das.identity"] == f"evaluation/{name}"
    assert found.metrics["strict/threshold"] == 0.5


def test_images_annotated_in_2d_get_cocos_numbers_and_no_scores_file(place, tmp_path, local_ray):
    records = [replace(r, joints_cam=None, K=None) for r in scene(COCO17, source="coco")]
    write_prepared(tmp_path / "only_2d", records)
    found = run_evaluation(config_of(place, data=(str(tmp_path / "only_2d"),), name="only_2d"))
    assert found.metrics["oks/people"] == 8 and 0 <= found.metrics["oks/ap"] <= 1
    assert same(measured(run_of(found)), found.metrics)
    assert {"predictions.parquet", "report.json", "tables/oks.csv"} <= files(Path(found.out))
    assert not (Path(found.out) / "scores.json").exists() and "13 of 17 joints" in found.summary()
    again = run_evaluation(
        EvaluateConfig(data=(str(tmp_path / "only_2d"),), predictions=str(Path(found.out) / "predictions.parquet"))
    )
    assert same(again.metrics, found.metrics)


def test_an_evaluation_is_compared_with_earlier_predictions(place, result, local_ray):
    earlier = str(Path(result.out) / "predictions.parquet")
    found = run_evaluation(config_of(place, name="compared", compare=earlier, runtime_images=0, overlays=0, worst=0))
    assert found.metrics["compare/strict/recall"] == 0, "of the same model"
    assert "comparison" in {t.name for t in found.tables} and "paired comparison" in found.summary()
    assert run_of(found).data.metrics["compare/strict/recall_low"] == 0


def test_an_image_that_cannot_be_decoded_is_left_out_of_all_numbers_and_named(place, tmp_path, local_ray, capfd):
    records = scene(frames=3)
    damaged = records[1].image[:600] + b"\xff" * 20 + records[1].image[-2:]
    records[1] = replace(records[1], image=damaged, image_sha256=hashlib.sha256(damaged).hexdigest())
    data = str(write_prepared(tmp_path / "prepared", records))
    quick = {"data": (data,), "name": "damaged", "runtime_images": 3, "overlays": 3, "worst": 0}
    out = place / "runs" / "evaluations" / "damaged"
    refused(lambda: evaluate(config_of(place, **quick, max_quarantine=0)), records[1].key, "max_quarantine = 0")
    (part,) = out.glob("parts-*/*")
    written = part.stat().st_mtime_ns
    refused(lambda: evaluate(config_of(place, **quick, max_quarantine=0)), records[1].key, "max_quarantine = 0")
    assert part.stat().st_mtime_ns == written, "what is finished is not predicted again"

    found = evaluate(config_of(place, **quick))
    assert found.quarantine.keys() == {records[1].key} and "no image" in found.quarantine[records[1].key]
    assert (
        f"incomplete: 1 images could not be predicted and are in none of these numbers, such as {records[1].key}"
        in (found.summary())
    )
    kept = write_prepared(tmp_path / "kept", [records[0], records[2]])
    others = evaluate(config_of(place, data=(str(kept),), name="others", runtime_images=0, overlays=0, worst=0))
    of_the_rest = {name: value for name, value in found.metrics.items() if not name.startswith("runtime/")}
    assert same(of_the_rest, others.metrics), "the numbers are those of the other images"
    assert len(found.overlays) == 2 and not (out / "scores.json").exists()
    predictions = str(out / "predictions.parquet")
    again = run_evaluation(EvaluateConfig(data=(data,), predictions=predictions, compare=predictions))
    assert again.quarantine == found.quarantine
    assert same({name: x for name, x in again.metrics.items() if not name.startswith("compare/")}, of_the_rest)
    assert again.metrics["compare/strict/recall"] == 0
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", "--predictions", predictions, "--data", data])
    assert exit_.value.code == 1, "done, but not all"
    assert "Traceback" not in capfd.readouterr().err
    config = PromoteConfig(str(place / "model"), str(out), "das-panoptic", "0" * 32)
    refused(lambda: promote(replace(config, cluster=ClusterConfig(storage=str(place / "runs")))), "scores.json")


def test_an_evaluation_of_which_no_image_can_be_decoded_is_refused(place, tmp_path, local_ray):
    records = [replace(record, height=record.height + 1) for record in scene(frames=2)]
    folder = tmp_path / "prepared"
    write_prepared(folder, scene(frames=2))
    write_records(folder / "test" / "shard-00000.parquet", records, validated=True)
    refused(lambda: evaluate(config_of(place, data=(str(folder),), name="none")), "no image", records[0].key)


def test_a_row_group_that_cannot_be_read_is_named_with_its_shard(place, tmp_path, local_ray, capfd):
    shard = write_prepared(tmp_path / "prepared", scene(frames=2)) / "test" / "shard-00000.parquet"
    with pq.ParquetFile(shard) as file:
        group = file.metadata.row_group(0)
        (at,) = {c.data_page_offset for c in map(group.column, range(group.num_columns)) if c.path_in_schema == "image"}
    content = bytearray(shard.read_bytes())
    content[at : at + 16] = b"\xff" * 16
    shard.write_bytes(content)
    config = config_of(place, data=(str(tmp_path / "prepared"),), name="unreadable")
    refused(lambda: evaluate(config), str(shard), "row group 0 cannot be read")
    assert "Traceback" not in capfd.readouterr().err


def test_a_missing_row_is_an_error_that_names_the_image(place, tmp_path, local_ray):
    """Parts of an earlier attempt of which one has lost a row: such an image never counts as one without people."""
    records = scene(frames=3)
    data = str(write_prepared(tmp_path / "prepared", records))
    annotations = read_annotations([data], "test")
    (part,) = parts_of(annotations)
    predictor = PartPredictor(ray.put(load_model(place / "model")), ray.put([part]), str(tmp_path), 0.99, 2, False, 1)
    done = predictor({"part": np.array([0])})
    assert {name: column.tolist() for name, column in done.items()} == {
        "part": [0],
        "images": [3],
        "quarantined": [0],
        "example": [""],
    }
    keys, lists, _ = read_lists(tmp_path / part.name, "key", LISTS)
    assert keys == [r.key for r in records], "an image on which nobody is found has a row"
    assert [column.lengths.tolist() for column in lists.values()] == [[0, 0, 0]] * 3

    def assembled():
        provenance = PredictionSet.load(Path(result_file(place))).provenance
        return assemble(str(tmp_path), [part], annotations.keys, provenance, str(tmp_path / "predictions.parquet"), 100)

    assert assembled() == {} and (tmp_path / "predictions.parquet").exists()
    (tmp_path / "predictions.parquet").unlink()
    for rows, bad, said in (
        ([0, 2], {}, f"{keys[1]} has neither a row nor a place in quarantine (1 of 3 images)"),
        ([0, 2, 2], {}, f"{keys[1]} has neither"),
        ([0, 1, 2], {keys[1]: "cut"}, f"{keys[1]} appears twice"),
        ([0, 1, 2], {"another": "cut"}, "another is not an image of this part"),
    ):
        short = {name: ListColumn(np.zeros(len(rows), int), np.zeros(0, np.float32)) for name in LISTS}
        write_part(str(tmp_path / part.name), [keys[i] for i in rows], short, bad)
        refused(assembled, part.name, said)
        assert not (tmp_path / "predictions.parquet").exists()


def result_file(place: Path) -> Path:
    return place / "runs" / "evaluations" / "tiny" / "predictions.parquet"


def test_a_name_that_is_being_evaluated_is_refused(place, result, local_ray):
    with claimed_name(str(place / "runs" / "evaluations" / "tiny"), "evaluation"):
        refused(lambda: evaluate(config_of(place)), "this evaluation is running already", "--name")
