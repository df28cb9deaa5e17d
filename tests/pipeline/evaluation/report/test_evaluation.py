"""The page of an evaluation: what it shows and marks, that it needs no other file, and that it stays small."""

import re

import numpy as np
import pytest

from das.metrics.tables import pck
from das.skeleton import PANOPTIC15
from pipeline.evaluation.protocols.strict import CURVE
from pipeline.evaluation.report.evaluation import MOST_PICTURES, pck_lines, threshold_lines
from pipeline.evaluation.score import score
from pipeline.infra.html.page import shown
from tests.pipeline.evaluation.evaluation_cases import (
    joints_as,
    predictions_of,
    scene,
)
from tests.pipeline.evaluation.report.page_cases import Case, Text, noisy


def test_headline_tables_and_provenance_are_those_of_the_results(panoptic):
    page, numbers = Text(panoptic.html), panoptic.scored.strict.numbers()
    for text in (f"<dd>{numbers['mpjpe']:.1f} <small>mm</small></dd>", f"<dd>{numbers['recall']:.3f}</dd>",
                 "7 of 8 people found", f"mean pose of the training data: {numbers['baseline_mpjpe']:.1f} mm",
                 panoptic.provenance.model_fingerprint, panoptic.provenance.data_fingerprint, "run-1"):  # fmt: skip
        assert text in panoptic.html, text
    for table in panoptic.results.tables:
        assert any(table.title in heading for heading in page.headings)
        for name, row in table.rows.items():
            # A number's interval follows it in the same cell.
            cells = [name, *(shown(x, form) for x, (_, form) in zip(row, table.columns, strict=True))]
            assert any(
                len(found) == len(cells) and all(text.startswith(cell) for text, cell in zip(found, cells))
                for found in page.rows
            ), (table.name, cells)


def test_pck_curves_equal_the_metrics_at_their_thresholds(panoptic):
    result, thresholds = panoptic.scored.strict, [0.0, 60.0, 100.0, 150.0]
    at = [CURVE.tolist().index(threshold) for threshold in thresholds]
    aligned, missed, absolute, pose = ([line.y[i] for i in at] for line in pck_lines(panoptic.results.strict))
    assert aligned[-1] == pytest.approx(100 * result.numbers()["pck_150mm"])
    found = result.scored & result.found[:, None]
    for i, threshold in enumerate(thresholds):
        assert aligned[i] == pytest.approx(100 * (result.errors[found] < threshold).mean())
        assert pose[i] == pytest.approx(100 * (result.baseline_errors[found] < threshold).mean())
        assert missed[i] == pytest.approx(aligned[i] * found.sum() / result.scored.sum())
    truth, people = panoptic.scored.truth, panoptic.scored.people
    gaps = np.linalg.norm(people.joints_cam[result.match] - truth.joints_cam, axis=2)
    everywhere = pck(gaps[result.found], 60.0, result.scored[result.found])
    weights = result.scored[result.found].sum(axis=0)
    assert absolute[1] == pytest.approx(100 * np.nansum(everywhere * weights) / weights.sum())


def test_threshold_curves_equal_the_metrics_at_their_thresholds(tmp_path):
    records = scene(frames=6)
    # Every person twice, the second time a metre aside: half of the candidates are false alarms.
    people = [np.concatenate([p, p + [1000.0, 0, 0]]) for p in joints_as(records, PANOPTIC15)]
    scores = np.random.default_rng(0).uniform(0.1, 0.9, sum(map(len, people)))
    case = Case(tmp_path, records, predictions_of(records, people, scores=scores))
    x, lines = threshold_lines(case.results.strict)
    assert x == sorted(scores) and "Recall and precision over score threshold" in case.html
    for i in (0, 7, len(x) - 1):
        numbers = score(case.annotations, case.predictions, threshold=x[i] - 1e-9).strict.numbers()
        expected = [100 * numbers[line.label.lower()] for line in lines]
        assert [line.y[i] for line in lines] == pytest.approx(expected)
    assert min(lines[1].y) == pytest.approx(50, abs=5) and lines[0].y[0] == 100


def test_a_page_without_any_prediction_has_dashes_and_no_nan(tmp_path):
    records = scene(frames=2)
    none = [np.zeros((0, 15, 3))] * 2
    case = Case(tmp_path, records, predictions_of(records, none, scores=np.zeros(0)))
    assert "<dd>0.000</dd>" in case.html and "<dd>– <small>mm</small></dd>" in case.html
    words = re.sub(r"base64,[^\"]+", "", case.html)
    assert "0 of 4 people found" in words and not re.search(r"\b(nan|inf)\b", words, re.IGNORECASE)


def test_train_fit_is_marked_in_every_heading_but_provenance(tmp_path, panoptic):
    records = scene(frames=2)
    page = Text(Case(tmp_path, records, noisy(records, train_fit=True)).html)
    unmarked = [heading for heading in page.headings if "train-fit" not in heading]
    assert unmarked == ["Provenance"]
    assert any(tag == "title" for tag, _ in page.tags) and "train-fit" not in panoptic.html


def test_optimistic_protocols_are_marked(panoptic):
    page = Text(panoptic.html)
    marked = [heading for heading in page.headings if heading.endswith(" optimistic")]
    assert len(marked) == 1 and marked[0].startswith("panoptic-release")
    assert '<span class="mark">optimistic</span> panoptic-release takes the nearest' in panoptic.html


def test_the_page_loads_no_other_file(panoptic):
    page = Text(panoptic.html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", panoptic.html)
    policy = next(a for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]


def test_names_are_escaped(tmp_path):
    records = scene(frames=2, sequence="</script><b>x")
    html = Case(tmp_path, records, noisy(records), name="<img src=x onerror=alert(1)>").html
    assert "<b>x" not in html and "<img src=x" not in html and "&lt;img src=x" in html
    assert len(re.findall("<script", html)) == 2


def test_a_page_holds_a_limited_number_of_frames_and_gives_the_number_of_others(tmp_path):
    records = scene(frames=MOST_PICTURES + 2)
    case = Case(tmp_path, records, noisy(records), spread=MOST_PICTURES, worst=3)
    assert case.html.count("<img data-picture=") == MOST_PICTURES == len(case.scene["frames"])
    assert "3 more are in the evaluation" in case.html and "worst 3" in case.html
