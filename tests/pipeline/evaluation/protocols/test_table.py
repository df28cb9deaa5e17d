"""The list of protocols names metrics that its protocols compute."""

import numpy as np

from das.skeleton import MUCO21, MUPOTS17
from pipeline.evaluation.protocols.table import COMPARED, HEADLINE, PROTOCOLS
from pipeline.evaluation.score import score
from pipeline.evaluation.scored import Scored
from tests.pipeline.evaluation.evaluation_cases import annotations_of, as_muco, mupots_scene, predictions_of, scene


def computed_metrics():
    """Names of all metrics for data in Panoptic's layout and in MuPoTS'."""
    panoptic, mupots = scene(), mupots_scene()
    for record in mupots:
        record.joints_cam_univ = record.joints_cam.copy()
    found = score(annotations_of(panoptic), predictions_of(panoptic)).metrics
    return {*found, *score(annotations_of(mupots), predictions_of(mupots, as_muco(mupots), MUCO21)).metrics}


def test_every_listed_metric_is_computed():
    listed = {*COMPARED, *HEADLINE} | {
        columns[-1] or columns[0] for p in PROTOCOLS for rows in (p.rows, p.baseline_rows) for columns in rows.values()
    }
    assert {name for name in listed if not name.startswith("oks/")} <= computed_metrics()
    assert len(set(COMPARED)) == len(COMPARED) and len(set(HEADLINE)) == len(HEADLINE)


def test_every_computed_metric_begins_with_a_listed_protocol_or_the_baseline():
    names = tuple(f"{protocol.name}" for protocol in PROTOCOLS)
    assert all(name.startswith((*names, "baseline/")) for name in computed_metrics())


def test_rows_of_a_published_table_have_its_columns():
    for protocol in PROTOCOLS:
        for columns in (*protocol.rows.values(), *protocol.baseline_rows.values()):
            assert protocol.table is not None and len(columns) == len(protocol.table.columns), protocol.name


def test_a_protocol_that_does_not_fit_the_data_has_no_numbers():
    records = mupots_scene()
    given = annotations_of(records), predictions_of(records, as_muco(records), MUCO21)
    found, scored = score(*given), Scored.of(*given)
    fitting = [p.name for p in PROTOCOLS if p.sums is not None and p.sums(scored) is not None]
    assert fitting == ["strict", "mupots_release", "mupots_matlab"]
    assert records[0].skeleton == MUPOTS17.name and np.isfinite(found.metrics["mupots_release/pck_rel_all"])
