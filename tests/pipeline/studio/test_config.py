"""Sequence names, splits, chunks and refused settings of a studio configuration."""

from dataclasses import replace

import pytest

from pipeline.studio.config import StudioConfig, plan_chunks, sequence_activity, sequence_names, sequence_split


def test_chunks_cover_every_frame_once():
    config = StudioConfig(train_frames=103, val_frames=7, test_frames=96, take_frames=5, chunk_frames=32)
    covered: dict[str, list[int]] = {}
    for chunk in plan_chunks(config):
        assert chunk.first % config.take_frames == 0
        covered.setdefault(chunk.sequence, []).extend(range(chunk.first, chunk.first + chunk.count))
    assert {name: len(frames) for name, frames in covered.items()} == {
        name: config.frames(name) for split in ("train", "val", "test") for name in config.sequences(split)
    }
    assert all(frames == list(range(len(frames))) for frames in covered.values())


def test_splits_share_no_sequence_and_pizza_is_in_test_only():
    names = {split: set(sequence_names(split)) for split in ("train", "val", "test")}
    assert not (names["train"] & names["val"] or names["train"] & names["test"] or names["val"] & names["test"])
    config = StudioConfig()
    for split, allowed in names.items():
        chosen = config.sequences(split)
        assert set(chosen) <= allowed
        activities = {sequence_activity(name) for name in chosen}
        assert activities == {"haggling", "mafia", "ultimatum"} | ({"pizza"} if split == "test" else set())
        assert all(sequence_split(name) == split for name in chosen)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("train_sequences", ("studio_train_pizza1",)),
        ("train_sequences", ("studio_test_mafia1",)),
        ("val_sequences", ("160224_mafia2",)),
        ("height", 200),
        ("people_max", 9),
        ("frame_seconds", 0.0),
        ("take_frames", 0),
        ("jpeg_quality", 0),
        ("seed", -1),
        ("interactions", 1.1),
        ("layers", -0.1),
    ],
)
def test_a_bad_setting_is_refused_with_its_name(field, value):
    wanted = "pizza in test only|belongs to|wanted studio_|height|people_max|frame_seconds|take_frames|jpeg|seed"
    wanted += "|interactions|layers"
    with pytest.raises(ValueError, match=wanted):
        replace(StudioConfig(), **{field: value})
