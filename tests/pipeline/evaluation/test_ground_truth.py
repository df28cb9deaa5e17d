"""Images to clusters for intervals, and which people the release scores."""

from dataclasses import replace

from das.metrics.bootstrap import SURE, WITHIN
from das.skeleton import COCO17, COCO19
from pipeline.evaluation.annotations import ImageIndex
from pipeline.evaluation.ground_truth import image_clusters, panoptic_truth
from tests.pipeline.evaluation.evaluation_cases import (
    scene,
)


def test_the_release_takes_people_from_three_annotated_joints_on():
    (few,) = scene(frames=1)
    few.confidence[:] = 0.1
    few.confidence[0, [COCO19.index(j) for j in ("mid_hip", "l_hip")]] = 0.2
    few.confidence[1, [COCO19.index(j) for j in ("mid_hip", "l_hip", "r_hip")]] = 0.2
    assert panoptic_truth([few]).truth.ignore.tolist() == [True, False]


def test_blocks_of_a_recording_last_five_seconds_and_each_photo_is_one_block():
    first = scene(frames=2)
    video = [replace(r, frame=frame) for r in first for frame in range(0, 1800, 10)]
    clusters = image_clusters(ImageIndex.of(video))
    assert clusters.label == SURE and clusters.count == 2 * (1791 // 150)
    photos = [replace(r, source="coco", sequence="val2017", joints_cam=None) for r in scene(COCO17, frames=9)]
    assert image_clusters(ImageIndex.of(photos)).of.tolist() == [*range(9)]
    assert image_clusters(ImageIndex.of(scene(frames=9))).label == WITHIN, "two sequences of a fraction of a second"
