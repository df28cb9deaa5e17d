"""Rows of prepared folders as a Ray Dataset."""

from pipeline.data.manifest import load_manifest
from pipeline.data.ray_rows import read_split
from pipeline.data.schema import from_row
from tests.pipeline.data.test_manifest import OLD


def test_rows_of_both_schema_versions_are_read_together(local_ray, prepared):
    rows = read_split([str(OLD), str(prepared)], "train").take_all()
    records = [from_row(row) for row in rows]
    assert len(records) == 4 + 32
    found = {record.source: record.split_manifest for record in records}
    assert found["panoptic"] == "" and found["synthetic"] == load_manifest(str(prepared)).split_manifest
