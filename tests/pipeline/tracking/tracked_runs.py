"""Runs for the tests of this folder: opened in one experiment, read back from the store."""

from pipeline.tracking.tracker import Tracker


def start(store, name, folder, **more):
    return Tracker.open(store, "tests", name, folder, **more)


def run_of(tracker):
    """MLflow's run of a tracker."""
    return tracker.handle.store.client().get_run(tracker.handle.run_id)


def history(tracker, name):
    """Steps and values of a metric, as the server has them."""
    found = tracker.handle.store.client().get_metric_history(tracker.handle.run_id, name)
    return [(metric.step, metric.value) for metric in found]
