"""MuCo-3DHP in Moon's form: images, cameras and splits, and malformed annotations."""

import numpy as np
import pytest

from pipeline.data.samples import to_sample
from pipeline.data.sources import muco
from tests.pipeline.data.original_layouts import coco_like_person, read, write_muco


def test_muco_images_load_with_their_pseudo_camera(tmp_path):
    names = [f"{s}_set/{i:06d}.jpg" for s in ("unaugmented", "augmented") for i in range(100)]
    unseen = {3: {"keypoints_vis": [[1]] * 20 + [[0]]}}
    root = write_muco(tmp_path, names, unseen)
    train, val = (read(muco, root, split) for split in ("train", "val"))
    assert len(train) == 196 and read(muco, root, "test") == []
    assert [item.frame for item in val] == [98, 99, 198, 199], "val is the end of each set"
    assert train[3].key == "muco/unaugmented_set/0/00000003"
    assert train[3].image == (root / names[3]).read_bytes()
    assert np.array_equal(train[3].K, [[300, 0, 160], [0, 301, 90], [0, 0, 1]])
    assert train[3].state.tolist() == [[2] * 20 + [0]] and train[3].skeleton == "muco21"
    assert np.allclose(train[3].joints_cam[0], coco_like_person(3, 3, 21)["keypoints_cam"], atol=1e-3)
    assert to_sample(train[3])[0].has_depth.tolist() == [True]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"keypoints_cam": [[1, 2, 3000]] * 17}, r"entry 0: keypoints_cam: found size 51, wanted .* \(21, 3\)"),
        ({"keypoints_cam": [[1, 2, float("nan")]] * 21}, "entry 0: keypoints_cam: found NaN"),
        ({"bbox": None}, "entry 0: bbox: found size 1"),
        ({"bbox": [1, 2, 3]}, "entry 0: bbox: found size 3"),
        ({"keypoints_vis": "all"}, "entry 0: keypoints_vis"),
        ({"image_id": 77}, "entry 0: image_id: found 77, wanted the id of one of the images"),
    ],
)
def test_a_malformed_annotation_is_named(change, reason, tmp_path):
    root = write_muco(tmp_path, ["augmented_set/0.jpg"], {0: change})
    with pytest.raises(ValueError, match=f"MuCo-3DHP.json: .*{reason}"):
        read(muco, root, "train")


def test_an_image_named_twice_is_refused(tmp_path):
    root = write_muco(tmp_path, ["augmented_set/0.jpg", "augmented_set/0.jpg"])
    with pytest.raises(ValueError, match="2 images share 2 ids and 1 file names"):
        muco.chunks(root, "train")
