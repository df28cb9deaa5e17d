"""What a training returns: the best kept checkpoint, its metrics, and a summary for the terminal."""

from types import SimpleNamespace

from pipeline.training.fit import Pace, TrainResult, _best
from pipeline.training.validation import SELECT_BY


def test_the_best_checkpoint_is_the_one_with_the_smallest_validation_error():
    kept = [("a", {SELECT_BY: 90.0}), ("b", {SELECT_BY: 80.0}), ("last", {SELECT_BY: 85.0})]
    result = SimpleNamespace(checkpoint="last", metrics={SELECT_BY: 85.0}, best_checkpoints=kept)
    assert _best(result) == ("b", {SELECT_BY: 80.0})


def test_without_validation_the_last_checkpoint_is_the_best():
    kept = [("a", {"epoch": 1}), ("b", {"epoch": 2})]
    result = SimpleNamespace(checkpoint="b", metrics={"epoch": 2}, best_checkpoints=kept)
    assert _best(result) == ("b", {"epoch": 2})


def test_the_summary_shows_the_checkpoint_the_run_and_the_validation():
    metrics = {"epoch": 3, "val/recall": 0.54321, "seconds": 9.0}
    result = TrainResult("/runs/a/best", "abc", metrics, finished_before=False)
    assert result.summary().splitlines() == [
        "training finished: /runs/a/best (MLflow run abc)",
        "  epoch 3",
        "  val/recall 0.5432",
    ]
    assert "finished before, nothing to do" in TrainResult("", "", {}, finished_before=True).summary()


def test_the_time_that_a_training_takes_is_said_once_as_soon_as_its_speed_is_known():
    pace = Pace()
    # Half a minute until the first share is no part of the speed: 0.02 of the training take 6 s, the rest 4.8 min.
    shares = [(0.0, 0.0), (0.0, 27.0), (0.02, 30.0), (0.02, 33.0), (0.04, 36.0), (0.06, 50.0)]
    assert [pace.line(done, now) for done, now in shares] == [
        None,
        None,
        None,
        None,
        "about 5 min of training left on this machine",
        None,
    ]
    continued = Pace()  # at nine tenths
    assert continued.line(0.9, 10.0) is None
    assert continued.line(0.92, 16.0) == "about 1 min of training left on this machine"
