"""Rows and statistics of the small prepared data set, shared by the tests of this room."""

import pytest

from pipeline.data.browse.assignment import preset_for
from pipeline.data.browse.config import StatsConfig
from pipeline.data.browse.stats import stats
from pipeline.data.shards import list_shards, read_records


@pytest.fixture(scope="session")
def records(prepared):
    """All rows of the train split, with images; tests copy what they change."""
    return [record for shard in list_shards(prepared, "train") for record in read_records(shard)]


@pytest.fixture(scope="session")
def preset():
    """The small model with its recipe."""
    return preset_for("small", None, ("coco19",))


@pytest.fixture(scope="session")
def measured(prepared, tmp_path_factory):
    """The statistics of the data set, and the text of their page."""
    out = tmp_path_factory.mktemp("stats") / "page.html"
    return stats(StatsConfig(str(prepared), variant="small", out=str(out))), out.read_text()
