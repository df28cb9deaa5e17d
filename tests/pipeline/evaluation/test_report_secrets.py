"""What an evaluation writes and sends holds no keys of addresses."""

from dataclasses import replace

from pipeline.evaluation.score import score
from pipeline.evaluation.steps import Job, images_of, write_report
from tests.pipeline.evaluation.evaluation_cases import annotations_of, predictions_of, scene
from tests.pipeline.evaluation.rescore_cases import config_of, noisy


def test_keys_in_addresses_are_in_no_file_of_an_evaluation(place, tmp_path):
    records = scene(frames=6)
    annotations = annotations_of(records)
    numbers = score(annotations, predictions_of(records, noisy(records)))
    annotations = replace(annotations, folders=("s3://AKIA:SECRET@bucket/x?secret_key=SECRET",))
    numbers = replace(numbers, annotations=annotations)
    about = {"model": "https://me:SECRET@host/m", "data": images_of(annotations)}
    job = Job("n", "https://me:SECRET@host/m", "d", str(tmp_path / "out"), about, promotable=True)
    config = config_of(place, overlays=0, worst=0)
    write_report(config, job, numbers, run_id="r", tracking_uri="postgresql://me:SECRET@host/db")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {"report.json", "report.html", "scores.json"} <= {path.name for path in files}
    for path in files:
        assert b"SECRET" not in path.read_bytes(), path.name
    assert "postgresql://***@host/db" in (tmp_path / "out" / "report.json").read_text()
