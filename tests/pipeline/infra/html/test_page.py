"""Pages show no keys of addresses; what is HTML already is left alone."""

from pipeline.data.browse.page import statistics_page
from pipeline.infra.text_tables import Table


def test_keys_in_addresses_are_not_on_a_page():
    facts = {
        "folder": "s3://AKIA:SECRET@bucket/x?region=eu",
        "store": "postgresql://user:SECRET@host/db",
        "file": "https://host/w?token=SECRET&size=1",
        "other": "a <b> & c",
    }
    page = statistics_page(
        "Statistics of s3://AKIA:SECRET@bucket", facts, [], [Table("t", "postgresql://u:SECRET@h/d", (), {})]
    )
    assert "SECRET" not in page and "AKIA" not in page
    for shown in (
        "s3://***@bucket/x?region=eu",
        "postgresql://***@host/db",
        "token=***&amp;size=1",
        "a &lt;b&gt; &amp; c",
    ):
        assert shown in page
    assert "<!doctype html>" in page.lower()
