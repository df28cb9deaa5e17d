"""An evaluation's page, and its text taken apart."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from das.skeleton import PANOPTIC15
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.overlays import overlays
from pipeline.evaluation.report.evaluation import evaluation_page
from pipeline.evaluation.score import score
from pipeline.evaluation.scored import Scored
from tests.pipeline.evaluation.evaluation_cases import (
    RUNTIME,
    joints_as,
    predictions_of,
    write_prepared,
)


class Case:
    """Annotated images, predictions for them, their scores, and the page."""

    def __init__(self, folder: Path, records, predictions, spread=2, worst=1, name="tiny", runtime=RUNTIME):
        write_prepared(folder, records)
        self.annotations = read_annotations([str(folder)], "test")
        self.predictions, self.provenance = predictions, predictions.provenance
        self.results = score(self.annotations, predictions)
        self.scored = Scored.of(self.annotations, predictions)
        self.pictures = overlays(self.results, spread, worst)
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
    """Predictions with noise of ``mm`` per axis; in the first image one person is not predicted."""
    rng = np.random.default_rng(0)
    people = [joints + rng.normal(0, mm, joints.shape) for joints in joints_as(records, skeleton)]
    people[0] = people[0][1:]
    return predictions_of(records, people, skeleton, **changes)
