"""Published tables with our rows: which rows, and what is said about the data."""

from das.skeleton import MUCO21, MUPOTS17
from tests.pipeline.evaluation.evaluation_cases import (
    scene,
)
from tests.pipeline.evaluation.report.page_cases import Case, Text, noisy


def test_published_rows_and_ours_are_in_one_table_with_its_source(panoptic):
    page = Text(panoptic.html)
    assert ["DAS, the paper", "single-stage", "53.3", "51.2", "49.1", "61.5", "53.8", ""] in page.rows
    assert "Table 2" in panoptic.html and "Table 4" in panoptic.html and "Table 3" not in panoptic.html
    metrics = panoptic.results.metrics
    found = [f"{metrics[f'panoptic_release/mpjpe/{name}']:.1f}" for name in ("haggling", "mafia")]
    assert ["this model", "", *found, "–", "–", "–", ""] in page.rows, "two activities are no mean of four"
    assert ["this model, CPU, 1 thread, 128 x 96", "", "21", "–", "–", ""] in page.rows


def test_other_data_than_the_papers_are_marked_not_comparable(tmp_path, panoptic):
    records = scene(frames=2, source="synthetic")
    case = Case(tmp_path, records, noisy(records))
    assert "not comparable" in case.html and "2 images of synthetic/test" in case.html
    assert "not comparable" not in panoptic.html


def test_mupots_is_compared_with_table_3(tmp_path):
    records = scene(MUPOTS17, frames=4, source="mupots")
    case = Case(tmp_path, records, noisy(records, MUCO21), runtime=None)
    page, metrics = Text(case.html), case.results.metrics
    assert ["DAS, the paper", "single-stage", "82.7", "39.2", ""] in page.rows and "Table 2" not in case.html
    ours = [f"{metrics[f'mupots_release/pck_{kind}_all']:.1f}" for kind in ("rel", "abs")]
    assert ["this model, mupots-release, all", "", *ours, ""] in page.rows
    assert "Runtime" not in page.headings, "what was not measured is not shown"
