"""people.html and drawn videos in headless Chromium."""

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select, WebDriverWait

from das.draw.people import person_color, side_color
from pipeline.predict.config import PredictConfig
from pipeline.predict.predict import predict
from pipeline.predict.videos import overlay_codec
from tests.pipeline.evaluation.report.test_pages_in_browser import PATIENCE, drag, drawn, look, requested
from tests.pipeline.predict.prediction_cases import write_video


@pytest.fixture
def out(checkpoint, photo, tmp_path):
    """Results of a photo and of a video of 12 frames in a second."""
    video = write_video(tmp_path / "walk.mp4", frames=12)
    files = (str(photo), str(video))
    predict(PredictConfig(files, str(checkpoint), str(tmp_path / "out"), formats=("overlay", "html")))
    return tmp_path / "out"


def test_the_page_of_a_run_plays_videos_offline_in_every_width(browser, out):
    page = (out / "people.html").as_uri()
    browser.get("about:blank")
    browser.get_log("browser"), requested(browser)
    look(browser, 1300)
    browser.get(page)
    assert browser.get_log("browser") == [] and requested(browser) == [page]
    canvas = browser.find_element(By.ID, "scene")
    pixels = browser.execute_script(
        "const c = arguments[0], d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, found = new Set();"
        "for (let i = 0; i < d.length; i += 4) found.add(`${d[i]},${d[i + 1]},${d[i + 2]}`); return [...found]",
        canvas,
    )
    for side in ("l_hip", "r_hip"):
        assert ",".join(map(str, side_color(side, person_color(0)))) in pixels, f"{side} has its own colour"
    before = drawn(browser)
    drag(browser, canvas, 90, 0)
    assert drawn(browser) != before
    assert not browser.find_element(By.ID, "scene-play").is_displayed(), "a photo has nothing to play"
    photo = browser.find_element(By.ID, "scene-photo").get_attribute("src")

    Select(browser.find_element(By.ID, "scene-frame")).select_by_visible_text("walk.mp4")
    assert browser.find_element(By.ID, "scene-photo").get_attribute("src") != photo
    play, slider = (browser.find_element(By.ID, f"scene-{name}") for name in ("play", "slider"))
    assert slider.get_attribute("max") == "11" and slider.get_attribute("value") == "0"
    play.click()
    assert play.text == "Pause"
    WebDriverWait(browser, PATIENCE).until(lambda _: play.text == "Play")
    assert slider.get_attribute("value") == "11" and browser.find_element(By.ID, "scene-time").text == "0.92 s"
    last = browser.find_element(By.ID, "scene-photo").get_attribute("src")
    browser.execute_script("arguments[0].value = 3; arguments[0].dispatchEvent(new Event('input'))", slider)
    assert browser.find_element(By.ID, "scene-time").text == "0.25 s"
    assert browser.find_element(By.ID, "scene-photo").get_attribute("src") != last
    for width in (390, 1300):
        look(browser, width)
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_a_browser_plays_the_overlay_of_a_video(browser, out):
    assert overlay_codec() == "vp09", "this OpenCV writes MPEG-4 Part 2, which no browser plays; the summary says so"
    (out / "look.html").write_text('<video muted src="walk_overlay.mp4"></video>')
    browser.get((out / "look.html").as_uri())
    video = browser.find_element(By.TAG_NAME, "video")
    ready = "return arguments[0].readyState"
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.execute_script(ready, video) >= 2)
    width, height, duration = browser.execute_script(
        "const v = arguments[0]; return [v.videoWidth, v.videoHeight, v.duration]", video
    )
    assert (width, height) == (160, 90), "an overlay alone has the size of the frames"
    assert duration == pytest.approx(1.0, abs=0.1)
    browser.execute_script("arguments[0].play()", video)
    WebDriverWait(browser, PATIENCE).until(lambda _: browser.execute_script("return arguments[0].ended", video))
