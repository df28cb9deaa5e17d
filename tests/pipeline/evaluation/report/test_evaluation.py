"""The HTML report says what the evaluation found, stands alone, marks what must be marked, and stays small."""

import base64
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from das.camera import project
from das.metrics.tables import pck
from das.skeleton import COCO19, MUCO21, MUPOTS17, PANOPTIC15
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.frame_choice import chosen_frames, frame_errors, people_on_frame
from pipeline.evaluation.overlays import overlays
from pipeline.evaluation.report.evaluation import MOST_PICTURES, evaluation_page, pck_lines
from pipeline.evaluation.report.published import TABLE_2, TABLE_3, TABLE_4
from pipeline.evaluation.report.scene import scene_of
from pipeline.evaluation.score import score
from pipeline.infra.html import charts
from pipeline.infra.html.page import shown
from pipeline.infra.html.pictures import MOST_BYTES, WIDTH, data_uri
from tests.pipeline.evaluation.evaluation_cases import (
    RUNTIME,
    joints_as,
    predictions_of,
    record,
    scene,
    standing,
    write_prepared,
)


class Case:
    """Annotated images, predictions for them, their scores, and the page."""

    def __init__(self, folder: Path, records, predictions, spread=2, worst=1, name="tiny", runtime=RUNTIME):
        write_prepared(folder, records)
        self.annotations = read_annotations([str(folder)], "test")
        self.provenance = predictions.provenance
        self.results = score(self.annotations, predictions)
        self.pictures = overlays(self.results.scored, spread, worst)
        self.html = evaluation_page(name, "runs/model", self.results, self.pictures, runtime, "run-1")

    @property
    def scene(self):
        return json.loads(re.search(r'id="scene-data">(.*?)</script>', self.html, re.DOTALL)[1])


class Text(HTMLParser):
    """Words of a page by heading (h1, h2), all tags with their attributes, and the cells of every table row."""

    def __init__(self, html):
        super().__init__()
        self.tags, self.headings, self.rows, self._open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(tag)
        if tag in ("h1", "h2", "h3"):
            self.headings.append("")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th") and self.rows:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data):
        if set(self._open) & {"h1", "h2", "h3"}:
            self.headings[-1] += data
        if set(self._open) & {"td", "th"}:
            self.rows[-1][-1] += data


def noisy(records, skeleton=PANOPTIC15, mm=50.0, **changes):
    """Predictions a little beside the truth; in the first image one person is not found."""
    rng = np.random.default_rng(0)
    people = [joints + rng.normal(0, mm, joints.shape) for joints in joints_as(records, skeleton)]
    people[0] = people[0][1:]
    return predictions_of(records, people, skeleton, **changes)


@pytest.fixture(scope="module")
def panoptic(tmp_path_factory):
    records = scene(frames=4)
    return Case(tmp_path_factory.mktemp("report"), records, noisy(records))


# ---- what it says ----


def test_headline_tables_and_provenance_are_the_sheets(panoptic):
    page, numbers = Text(panoptic.html), panoptic.results.strict.numbers()
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


def test_published_rows_stand_beside_ours_with_their_source(panoptic):
    page = Text(panoptic.html)
    assert ["DAS, the paper", "single-stage", "53.3", "51.2", "49.1", "61.5", "53.8", ""] in page.rows
    assert "Table 2" in panoptic.html and "Table 4" in panoptic.html and "Table 3" not in panoptic.html
    metrics = panoptic.results.metrics
    found = [f"{metrics[f'panoptic_release/mpjpe/{name}']:.1f}" for name in ("haggling", "mafia")]
    assert ["this model", "", *found, "–", "–", "–", ""] in page.rows, "two activities are no mean of four"
    assert ["this model, CPU, 1 thread, 128 x 96", "", "21", "–", "–", ""] in page.rows


def test_other_data_than_the_papers_is_said_to_be_no_comparison(tmp_path, panoptic):
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


def test_published_means_are_those_of_their_rows():
    """Rounded as printed, but for the one that the file's opening names."""
    odd = [row.method for row in TABLE_2.rows if abs(np.mean(row.numbers[:4]) - row.numbers[4]) > 0.26]
    assert odd == ["Popa et al."]
    for table in (TABLE_2, TABLE_3, TABLE_4):
        assert all(len(row.numbers) == len(table.columns) for row in table.rows)


def test_pck_curves_are_the_metrics_own(panoptic):
    result, thresholds = panoptic.results.strict, [0.0, 60.0, 100.0, 150.0]
    aligned, missed, absolute, pose = (line.y for line in pck_lines(panoptic.results.scored, thresholds))
    assert aligned[-1] == pytest.approx(100 * result.numbers()["pck_150mm"])
    found = result.scored & result.found[:, None]
    for i, threshold in enumerate(thresholds):
        assert aligned[i] == pytest.approx(100 * (result.errors[found] < threshold).mean())
        assert pose[i] == pytest.approx(100 * (result.baseline_errors[found] < threshold).mean())
        assert missed[i] == pytest.approx(aligned[i] * found.sum() / result.scored.sum())
    truth, people = panoptic.results.scored.truth, panoptic.results.scored.people
    gaps = np.linalg.norm(people.joints_cam[result.match] - truth.joints_cam, axis=2)
    everywhere = pck(gaps[result.found], 60.0, result.scored[result.found])
    weights = result.scored[result.found].sum(axis=0)
    assert absolute[1] == pytest.approx(100 * np.nansum(everywhere * weights) / weights.sum())


def test_nobody_found_is_a_page_too(tmp_path):
    records = scene(frames=2)
    nobody = [np.zeros((0, 15, 3))] * 2
    case = Case(tmp_path, records, predictions_of(records, nobody, scores=np.zeros(0)))
    assert "<dd>0.000</dd>" in case.html and "<dd>– <small>mm</small></dd>" in case.html
    words = re.sub(r"base64,[^\"]+", "", case.html)
    assert "0 of 4 people found" in words and not re.search(r"\b(nan|inf)\b", words, re.IGNORECASE)


# ---- marks ----


def test_train_fit_is_marked_in_every_heading_but_where_it_comes_from(tmp_path, panoptic):
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


# ---- stands alone, and small ----


def test_the_page_holds_all_it_needs(panoptic):
    page = Text(panoptic.html)
    for tag, attributes in page.tags:
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            if name in attributes:
                assert attributes[name].startswith(("data:", "#")), (tag, attributes[name][:80])
    assert not re.search(r"https?://|@import|url\(|fetch\(|XMLHttpRequest|import\(", panoptic.html)
    policy = next(a for t, a in page.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert "default-src 'none'" in policy["content"]


def test_names_are_text_and_never_markup(tmp_path):
    records = scene(frames=2, sequence="</script><b>x")
    html = Case(tmp_path, records, noisy(records), name="<img src=x onerror=alert(1)>").html
    assert "<b>x" not in html and "<img src=x" not in html and "&lt;img src=x" in html
    assert len(re.findall("<script", html)) == 2


@pytest.mark.parametrize("shape", [(480, 1300), (1080, 3008), (40, 30)])
def test_pictures_are_bounded_whatever_they_show(shape):
    noise = np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8)
    uri = data_uri(cv2.imencode(".jpg", noise)[1].tobytes())
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert len(data) <= MOST_BYTES and image.shape[1] <= WIDTH
    assert image.shape[1] / image.shape[0] == pytest.approx(shape[1] / shape[0], rel=0.02)


def test_a_page_holds_only_so_many_frames_and_says_so(tmp_path):
    records = scene(frames=MOST_PICTURES + 2)
    case = Case(tmp_path, records, noisy(records), spread=MOST_PICTURES, worst=3)
    assert case.html.count("<img data-picture=") == MOST_PICTURES == len(case.scene["frames"])
    assert "3 more are in the evaluation" in case.html and "worst 3" in case.html


# ---- frames and the 3D scene ----


def test_worst_frames_come_first_and_sample_frames_are_spread(panoptic):
    errors = frame_errors(panoptic.results.scored)
    chosen = chosen_frames(panoptic.results.scored, 2, 3)
    kinds = {name[:8]: at for name, at in chosen.items()}
    assert kinds["spread_0"] == 3 and [at for name, at in chosen.items() if "worst" in name] == [
        *np.argsort(-errors, kind="stable")[:3]
    ]
    assert [f["key"] for f in panoptic.scene["frames"]][0] == panoptic.annotations.keys[int(np.argmax(errors))]


def test_a_frame_knows_who_was_found_and_how_well(panoptic):
    here, result = people_on_frame(panoptic.results.scored, 0), panoptic.results.strict
    assert len(here.people) == 1 and len(here.truth) == 2 and here.match.tolist() == [1]
    row = here.truth[1]
    assert here.errors[0] == pytest.approx(result.errors[row][result.scored[row]].mean())
    # In the other images everybody is found.
    assert people_on_frame(panoptic.results.scored, 1).match.tolist() == [0, 1]


@pytest.mark.parametrize("found", [1, 0])
def test_missed_people_are_the_worst_frame_also_where_nobody_knows_a_mean_pose(tmp_path, found):
    records = scene(frames=3)
    people = joints_as(records, PANOPTIC15)
    people = [people[0], people[1][:found], people[2]] if found else [joints[:0] for joints in people]
    case = Case(tmp_path, records, predictions_of(records, people, mean_pose=None))
    assert np.isfinite(frame_errors(case.results.scored)).all()
    (worst,) = (name for name in case.pictures if name.startswith("worst"))
    assert found == 0 or records[1].key.replace("/", "-").replace("_", "-") in worst
    pasted = re.search(r'id="scene-data">(.*?)</script>', case.html, re.DOTALL)[1]
    assert json.loads(pasted, parse_constant=pytest.fail)["frames"] and "nan mm" not in case.html


def test_the_scene_is_the_same_people_upright_in_metres(panoptic):
    frame = next(f for f in panoptic.scene["frames"] if f["key"] == panoptic.annotations.keys[0])
    assert panoptic.scene["bones"] == [list(bone) for bone in PANOPTIC15.bone_indices]
    record_ = panoptic.annotations.records[0]
    true = joints_as([record_], PANOPTIC15)[0] / 1000
    shown = np.array([[p or [np.nan] * 3 for p in joints] for joints in frame["truth"]])
    gaps = np.linalg.norm(shown[:, :, None] - shown[:, None], axis=-1)
    np.testing.assert_allclose(gaps, np.linalg.norm(true[:, :, None] - true[:, None], axis=-1), atol=2e-3)
    # Distances from the camera stay, and height is along the world's y axis, which points down.
    np.testing.assert_allclose(np.linalg.norm(shown, axis=-1), np.linalg.norm(true, axis=-1), atol=2e-3)
    np.testing.assert_allclose(shown[..., 1], true @ (record_.R @ [0, 1, 0]), atol=2e-3)
    (person,) = frame["people"]
    here = people_on_frame(panoptic.results.scored, 0)
    assert person["truth"] == 1 and person["error"] == round(float(here.errors[0]), 1) and person["score"] == 0.9


def test_joints_that_mean_nothing_are_not_in_the_scene(tmp_path):
    records = [record([standing(COCO19)])]
    predictions = predictions_of(records, unsupervised_joints=("head",))
    case = Case(tmp_path, records, predictions)
    (person,) = case.scene["frames"][0]["people"]
    assert person["joints"][PANOPTIC15.index("head")] is None and person["joints"][0] is not None


def test_the_drawn_camera_sees_the_corners_of_the_image(panoptic):
    frame, record_ = panoptic.scene["frames"][0], panoptic.annotations.records[0]
    corners = np.array(frame["view"])
    level = scene_of({"worst_00_x.jpg": 0}, panoptic.results.scored)
    assert level["frames"][0]["picture"] == "worst_00_x.jpg"
    down = record_.R @ [0, 1, 0]
    forward = np.array([0, 0, 1.0]) - down[2] * down
    forward /= np.linalg.norm(forward)
    axes = np.stack([np.cross(down, forward), down, forward])
    uv = project(1000 * corners @ axes, record_.K)
    np.testing.assert_allclose(uv, np.array([[0, 0], [320, 0], [320, 180], [0, 180]]) - 0.5, atol=0.5)


# ---- charts ----


def texts(svg):
    return [node.text for node in ElementTree.fromstring(svg).iter("text")]


def test_a_line_ends_where_its_last_value_is_and_leaves_gaps():
    line = charts.Line("a", "c1", [0.0, 50.0, math.nan, 100.0])
    svg = charts.line_chart("t", [0, 1, 2, 3], [line, charts.Line("none", "c2", [math.nan] * 4)], "x", "y", 100)
    (path,) = ElementTree.fromstring(svg).iter("path")
    points = [tuple(map(float, point.split())) for point in path.get("d").removeprefix("M").split("L")]
    assert len(points) == 3 and points[0][1] > points[1][1] > points[2][1]
    assert points[1][1] == pytest.approx((points[0][1] + points[2][1]) / 2, abs=0.1)
    assert "a" in texts(svg) and "none" not in texts(svg)


def test_labels_of_lines_that_end_together_do_not_touch():
    lines = [
        charts.Line(name, "c1", [0.0, value]) for name, value in (("a", 0.0), ("b", 0.5), ("c", 1.0), ("d", 100.0))
    ]
    root = ElementTree.fromstring(charts.line_chart("t", [0, 1], lines, "x", "y", 100))
    heights = sorted(float(node.get("y")) for node in root.iter("text") if "label" in node.get("class"))
    assert len(heights) == 4 and all(b - a >= 14.9 for a, b in zip(heights, heights[1:]))
    assert heights[-1] < float(root.get("viewBox").split()[3])


def test_dots_and_bars_stand_at_their_values():
    rows = {
        "a": [charts.Dot("x", "c1", 50.0, 40.0, 60.0)],
        "b": [charts.Dot("x", "c1", 100.0)],
        "c": [charts.Dot("y", "c4", math.nan)],
    }
    root = ElementTree.fromstring(charts.dot_chart("t", rows, "mm"))
    circles = {c.find("title").text: float(c.get("cx")) for c in root.iter("circle") if c.find("title") is not None}
    a, b = circles["a, x: 50.0 mm"], circles["b, x: 100.0 mm"]
    left = min(float(line.get("x1")) for line in root.iter("line"))
    assert len(circles) == 2 and a - left == pytest.approx((b - left) / 2, abs=0.2)
    (interval,) = (line for line in root.iter("line") if "interval" in line.get("class"))
    assert float(interval.get("x1")) < a < float(interval.get("x2"))
    bars = [
        float(r.get("width"))
        for r in ElementTree.fromstring(charts.bar_chart("t", {"a": 1, "b": 2}, "ms")).iter("rect")
    ]
    assert bars[1] == pytest.approx(2 * bars[0], abs=0.2)


def test_charts_of_nothing_can_be_drawn():
    for svg in (
        charts.dot_chart("t", {}, "mm"),
        charts.bar_chart("t", {"a": 0.0}, "ms"),
        charts.line_chart("t", [0, 1], [], "x", "y", 1),
    ):
        assert ElementTree.fromstring(svg).get("aria-label") == "t"
