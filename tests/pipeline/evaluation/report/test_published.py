"""The paper's tables as printed."""

import numpy as np

from pipeline.evaluation.report.published import TABLE_2, TABLE_3, TABLE_4


def test_published_means_are_the_means_of_their_rows():
    """Rounded as printed, but for the one that the file's opening names."""
    odd = [row.method for row in TABLE_2.rows if abs(np.mean(row.numbers[:4]) - row.numbers[4]) > 0.26]
    assert odd == ["Popa et al."]
    for table in (TABLE_2, TABLE_3, TABLE_4):
        assert all(len(row.numbers) == len(table.columns) for row in table.rows)
