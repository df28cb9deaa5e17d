"""Pages in headless Chromium: the report of an evaluation, that of a benchmark, and MLflow's page of a run."""

import json
import time

import numpy as np
import pytest
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from das.skeleton import PANOPTIC15
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.benchmark.costs import PARTS, STAGES, DeviceCost, ModelCost
from pipeline.evaluation.benchmark.page import benchmark_page
from pipeline.evaluation.benchmark.runtime import Throughput
from pipeline.evaluation.overlays import overlays
from pipeline.evaluation.report.evaluation import evaluation_page
from pipeline.evaluation.score import score
from pipeline.infra.mlflow_client import MlflowStore
from pipeline.tracking.tracker import Tracker
from tests.pipeline.evaluation.evaluation_cases import RUNTIME, joints_as, predictions_of, scene, write_prepared

PATIENCE = 120  # seconds; a loaded machine may be very slow


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report page as a file."""
    folder = tmp_path_factory.mktemp("page")
    records = scene(frames=4)
    write_prepared(folder / "prepared", records)
    annotations = read_annotations([str(folder / "prepared")], "test")
    rng = np.random.default_rng(0)
    people = [joints + rng.normal(0, 50, joints.shape) for joints in joints_as(records, PANOPTIC15)]
    predictions = predictions_of(records, [people[0][1:], *people[1:]])
    results = score(annotations, predictions)
    pictures = overlays(results, 2, 1)
    html = evaluation_page("tiny", "runs/model", results, pictures, RUNTIME, "run-1")
    (folder / "report.html").write_text(html)
    return folder / "report.html"


@pytest.fixture
def page(browser, report):
    """The report, opened in a wide window."""
    look(browser, 1280)
    browser.get(report.as_uri())
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.execute_script("return document.readyState") == "complete")
    return browser


def look(browser, width, scheme="light"):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def requested(browser):
    """URLs that the page requested since the last call, without data URIs."""
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [url for url in urls if not url.startswith("data:")]


def drawn(browser):
    return browser.execute_script("return document.getElementById('scene').toDataURL()")


def paper(browser):
    return browser.execute_script("return getComputedStyle(document.body).backgroundColor")


def drag(browser, canvas, right, down):
    ActionChains(browser).move_to_element(canvas).click_and_hold().move_by_offset(right, down).release().perform()


def test_the_report_opens_without_errors_and_loads_nothing(browser, report):
    browser.get("about:blank")
    browser.get_log("browser"), requested(browser)
    look(browser, 1280)
    browser.get(report.as_uri())
    assert browser.title.startswith("panoptic/test: tiny")
    assert browser.get_log("browser") == [] and requested(browser) == [report.as_uri()]
    images = browser.execute_script("return [...document.images].map(i => i.complete && i.naturalWidth)")
    assert len(images) == 4 and all(width > 100 for width in images), "three frames, and the one beside the 3D view"
    assert browser.execute_script("return document.querySelectorAll('svg.chart').length") == 4


def test_people_in_3d_turn_zoom_and_come_back(page):
    canvas = page.find_element(By.ID, "scene")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", canvas)
    seen = [drawn(page)]
    colors = page.execute_script(
        "const c = document.getElementById('scene');"
        "const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const found = new Set();"
        "for (let i = 0; i < d.length; i += 4) if (d[i + 3] === 255) found.add(`${d[i]},${d[i + 1]},${d[i + 2]}`);"
        "return found.size"
    )
    assert colors > 10, "the view is not empty"
    drag(page, canvas, 120, 0)
    seen.append(drawn(page))
    drag(page, canvas, 0, 60)
    seen.append(drawn(page))
    page.find_element(By.ID, "scene-in").click()
    seen.append(drawn(page))
    page.execute_script("arguments[0].focus()", canvas)
    ActionChains(page).send_keys("-").perform()
    seen.append(drawn(page))
    assert len(set(seen)) == len(seen), "every gesture changes what is drawn"
    page.find_element(By.ID, "scene-reset").click()
    assert drawn(page) == seen[0] and page.get_log("browser") == []


def test_frames_and_layers_are_chosen(page):
    first = drawn(page)
    for name in ("found", "truth", "aligned", "gaps"):
        box = page.find_element(By.ID, f"show-{name}")
        before = drawn(page)
        page.execute_script("arguments[0].click()", box)
        assert drawn(page) != before, name
        page.execute_script("arguments[0].click()", box)
    assert drawn(page) == first
    choice = Select(page.find_element(By.ID, "scene-frame"))
    assert [option.text.split(":")[0] for option in choice.options] == ["worst 1", "sample 1", "sample 2"]
    photo = page.find_element(By.ID, "scene-photo").get_attribute("src")
    choice.select_by_index(2)
    assert drawn(page) != first and page.find_element(By.ID, "scene-photo").get_attribute("src") != photo
    page.execute_script("document.querySelector('button[data-frame=\"0\"]').click()")
    assert drawn(page) == first
    page.find_element(By.ID, "scene-next").click()
    assert choice.first_selected_option.text.startswith("sample 1")
    rows = page.find_element(By.ID, "scene-people").text
    assert "0.90" in rows and "mm" in rows and "1 missed" in rows, "the first image lacks one person"


@pytest.mark.parametrize("width", [390, 1280])
def test_no_page_is_wider_than_the_window_in_light_and_dark(page, width):
    papers = set()
    for scheme in ("light", "dark"):
        look(page, width, scheme)
        assert page.execute_script("return document.documentElement.scrollWidth") <= width
        papers.add(paper(page))
    assert len(papers) == 2
    look(page, 1280)


def test_the_page_of_a_benchmark_opens_without_errors(browser, tmp_path):
    parts = dict.fromkeys(PARTS, 1_000_000)
    cost = DeviceCost(RUNTIME, dict.fromkeys(STAGES, 1.5), (Throughput(1, 40.0, 500.0, None),))
    size = ModelCost((96, 128), parts, parts)
    file = tmp_path / "benchmark.html"
    file.write_text(benchmark_page("Cost of m", "panoptic/test", size, {"cpu": cost}, {"model": "m"}))
    browser.get("about:blank")
    browser.get_log("browser"), requested(browser)
    browser.get(file.as_uri())
    assert browser.get_log("browser") == [] and requested(browser) == [file.as_uri()]
    for width in (390, 1280):
        look(browser, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    shows(browser, "Cost of m", "21.4", "DAS, the paper")


def test_mlflows_page_of_a_run_shows_its_name_numbers_and_report(browser, mlflow_server, report, tmp_path):
    with Tracker.open(mlflow_server.uri, "das", "evaluation/tiny", tmp_path / "run") as tracker:
        tracker.log_params({"model": "runs/model", "split": "test"})
        tracker.log_metrics({"strict/mpjpe": 123.4, "strict/recall": 0.875}, step=0)
        tracker.log_artifact(report)
        tracker.log_json("scores.json", {"recall": 0.875})
    run = tracker.handle.run_id
    experiment = MlflowStore(mlflow_server.uri).client().get_run(run).info.experiment_id
    look(browser, 1280)
    for tab, wanted in (
        ("", ("evaluation/tiny", "strict/mpjpe", "123.4", "strict/recall", "0.875", "runs/model")),
        ("/artifacts", ("report.html", "scores.json", "params.json")),
    ):
        browser.get(f"{mlflow_server.uri}/#/experiments/{experiment}/runs/{run}{tab}")
        shows(browser, *wanted)


def shows(browser, *wanted):
    """Waits until the page's text has all of these."""
    patience, text = time.monotonic() + PATIENCE, ""
    while missing := [part for part in wanted if part not in text]:
        assert time.monotonic() < patience, f"{missing} not in: {text}"
        time.sleep(0.2)
        text = browser.execute_script("return document.body ? document.body.innerText : ''")
