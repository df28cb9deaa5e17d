"""`das data stats` writes a self-contained page and a summary with every table."""

import html
import re
from html.parser import HTMLParser

import pytest

from pipeline.data.browse.config import StatsConfig
from pipeline.data.browse.stats import stats


class Page(HTMLParser):
    """Ids of a page, numbers of its plots and tables, and what it would load from elsewhere."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.plots = self.tables = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        self.plots += tag == "svg"
        self.tables += tag == "table"
        self.ids += [of["id"]] if "id" in of else []
        link = of.get("src") or of.get("href") or of.get("xlink:href") or ""
        self.loads += [link] if link and not link.startswith(("#", "data:")) or tag == "script" else []


def test_the_page_is_self_contained_and_the_same_every_time(measured, prepared, tmp_path):
    found, text = measured
    page_ = Page(text)
    assert page_.loads == [] and "url(http" not in text and "@import" not in text
    assert page_.plots >= 6 and page_.tables == len(found.tables()) and len(set(page_.ids)) == len(page_.ids)
    assert found.manifest.fingerprint in text and found.manifest.terms in html.unescape(text)
    for reference in re.findall(r'(?:href="#|url\(#)([^")]+)', text):
        assert reference in page_.ids, reference
    again = tmp_path / "again.html"
    stats(StatsConfig(str(prepared), variant="small", out=str(again)))
    assert again.read_text() == text


def test_the_summary_has_every_table(measured):
    summary = measured[0].summary()
    for table in measured[0].tables():
        assert table.title in summary
    assert "people by pyramid level, of 32 images" in summary


def test_missing_splits_are_left_out_and_a_missing_folder_is_named(prepared, tmp_path):
    out = str(tmp_path / "page.html")
    found = stats(StatsConfig(str(prepared), splits=("val",), assigned=0, out=out))
    assert list(found.splits) == ["val"] and found.splits["val"].levels is None
    with pytest.raises(ValueError, match="holds no manifest|does not exist"):
        stats(StatsConfig(str(tmp_path / "none"), out=out))
