"""Pictures of prepared data show joints, boxes and reasons where the rows have them."""

import cv2
import numpy as np
import pytest

from das.draw.people import TRUTH_GREY, person_color
from pipeline.data.browse.assignment import assign_record
from pipeline.data.browse.config import ShowConfig
from pipeline.data.browse.show import frame_picture, overlay, show
from pipeline.data.record import VISIBLE, decode_image, left_out
from pipeline.data.shards import list_shards, read_records


def picture(path) -> np.ndarray:
    return cv2.imread(str(path))[:, :, ::-1]


def test_joints_and_boxes_are_drawn_where_they_are(records, preset):
    record = next(r for r in records if len(r) and (left_out(r) == "").all())
    width = 2 * record.width
    drawn = overlay(record, assign_record(record, preset), width, labels=False)
    plain = cv2.resize(decode_image(record), drawn.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    changed = (np.abs(drawn.astype(int) - plain).sum(-1) > 30).astype(np.uint8)
    near = cv2.dilate(changed, np.ones((5, 5), np.uint8))
    seen = (record.state == VISIBLE) & (record.joints_uv > 1).all(-1)
    seen &= (record.joints_uv < (record.width - 2, record.height - 2)).all(-1)
    for u, v in (record.joints_uv[seen] + 0.5) * 2 - 0.5:
        assert near[round(float(v)), round(float(u))], (u, v)
    assert changed.mean() < 0.6


def test_people_without_positives_are_grey(records, preset):
    record = max(records, key=len)
    valid = np.zeros(len(record), bool)
    unused = type(record)(**{**vars(record), "valid": valid})
    drawn = overlay(unused, assign_record(unused, preset), 600, labels=False)
    assert (np.abs(drawn.astype(int) - TRUTH_GREY).sum(-1) < 12).sum() > 100
    assert not (drawn == person_color(0)).all(-1).any()


def test_the_sheet_and_single_frames_are_written(prepared, tmp_path, capsys):
    config = ShowConfig(str(prepared), split="val", count=5, single=2, columns=2, variant="small", out=str(tmp_path))
    files = show(config)
    assert capsys.readouterr().out.split() == files and len(files) == 3
    sheet, *singles = map(picture, files)
    assert sheet.shape[1] == 2 * 480 + 8 and "sheet_val" in files[0]
    assert all(p.shape[1] > 800 and p.shape[0] > 450 for p in singles)
    key = next(iter(read_records(list_shards(prepared, "test")[0], images=False))).key
    (file,) = show(ShowConfig(str(prepared), keys=(key,), out=str(tmp_path), format="png", variant="small"))
    assert file.endswith(key.replace("/", "-").replace("_", "-") + ".png") and picture(file).size


def test_a_frame_of_people_in_2d_has_no_view_from_above(records, preset):
    record = max(records, key=len)
    flat = type(record)(**{**vars(record), "joints_cam": None, "K": None})
    assert frame_picture(record, preset).shape[1] > frame_picture(flat, preset).shape[1] == 800


def test_a_key_or_split_that_is_not_there_is_named(prepared, tmp_path):
    out = str(tmp_path)
    with pytest.raises(ValueError, match=r"keys: .* has no 'x/y/z/1'; it has 42, such as synthetic/"):
        show(ShowConfig(str(prepared), keys=("x/y/z/1",), out=out))
    keys = [next(iter(read_records(list_shards(prepared, s)[0], images=False))).key for s in ("train", "test")]
    with pytest.raises(ValueError, match="keys are of test, train, wanted keys of one split"):
        show(ShowConfig(str(prepared), keys=tuple(keys), out=out))
    with pytest.raises(ValueError, match="holds no manifest|does not exist"):
        show(ShowConfig(str(tmp_path / "none"), out=out))
    assert not any(tmp_path.iterdir())
