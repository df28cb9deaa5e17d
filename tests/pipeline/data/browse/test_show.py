"""Pictures and statistics of prepared data say what the rows and the assignment say."""

import html
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from das.assign import assign
from das.draw.people import TRUTH_GREY, person_color
from das.sample import collate
from das.skeleton import skeleton_named
from das.transforms import convert_joints, resize_matrix
from pipeline.data.browse.assignment import CROWDED_OUT, OUTSIDE, network, targets_of
from pipeline.data.browse.measures import LevelStatistics
from pipeline.data.browse.show import ShowConfig, overlay, page, show
from pipeline.data.browse.stats import StatsConfig, stats
from pipeline.data.record import UNLABELLED, VISIBLE, decode_image, left_out, to_sample
from pipeline.data.shards import list_shards, read_records


@pytest.fixture(scope="module")
def records(prepared):
    """All rows of the train split, with images."""
    return [record for shard in list_shards(prepared, "train") for record in read_records(shard)]


@pytest.fixture(scope="module")
def eyes():
    return network("small", None, ("coco19",))


def picture(path) -> np.ndarray:
    return cv2.imread(str(path))[:, :, ::-1]


# Targets


def test_levels_and_points_are_those_of_the_assignment(records, eyes):
    for record in records[::5]:
        targets = targets_of(record, eyes)
        positives = assign(collate([targets.sample]), eyes.model)
        for i, person in enumerate(targets.people):
            counts = [int((level.person == i).sum()) for level in positives]
            assert sum(counts) == targets.points[i]
            low, high = eyes.model.level_ranges[targets.level[i]]
            if counts[targets.level[i]]:
                assert low <= targets.r_max[i] <= high and counts[targets.level[i]] == targets.points[i]
            else:
                assert targets.why[person] in (OUTSIDE, CROWDED_OUT) and targets.level[i] == -1


def test_without_the_image_the_targets_are_the_same(records, eyes):
    for record in records[:3]:
        seen, unseen = (targets_of(record, eyes, with_image) for with_image in (True, False))
        # Only the border mixes with what lies outside.
        assert seen.sample.image.mean() > 20 > unseen.sample.image.mean() and not unseen.sample.image[2:-2, 2:-2].any()
        np.testing.assert_array_equal(seen.points, unseen.points)
        np.testing.assert_array_equal(seen.r_max, unseen.r_max)
        np.testing.assert_array_equal(seen.why, unseen.why)


def test_positions_are_those_of_the_resized_image(records, eyes):
    record = records[0]
    sample = targets_of(record, eyes).sample
    A, size = resize_matrix(record.height, record.width, eyes.recipe.test_size)
    native = convert_joints(to_sample(record)[0], eyes.model.skeleton, eyes.recipe)
    np.testing.assert_allclose(sample.joints_uv, native.joints_uv @ A[:, :2].T + A[:, 2])
    assert sample.image.shape[:2] == size


def test_everybody_left_out_has_a_reason(records, eyes):
    record = max(records, key=len)
    root = list(skeleton_named(record.skeleton).root_indices)
    record = type(record)(**{**vars(record), "state": record.state.copy(), "valid": record.valid.copy(),
                             "ignore": record.ignore.copy()})  # fmt: skip
    record.state[0, root] = UNLABELLED
    record.valid[1] = False
    reasons = targets_of(record, eyes).why
    assert reasons[:2].tolist() == ["root unlabelled", "invalid"] == left_out(record)[:2].tolist()
    record.ignore[:] = True
    targets = targets_of(record, eyes)
    assert set(targets.why) == {"ignored"} and not len(targets.people) and not len(targets.points)


@pytest.mark.parametrize(
    ("joints", "variant", "recipe"),
    [(("coco19",), "release_panoptic", "ours_panoptic"), (("mupots17",), "release_mupots", "ours_mupots")],
)
def test_the_network_belongs_to_the_joints_unless_it_is_named(joints, variant, recipe):
    assert network(None, None, joints).name == f"{variant} with recipe {recipe}"
    assert network("small", None, joints).name == "small with recipe small"
    assert network("paper_mspn", "release_mupots", joints).name == "paper_mspn with recipe release_mupots"


# Pictures


def test_joints_and_boxes_are_drawn_where_they_are(records, eyes):
    record = next(r for r in records if len(r) and (left_out(r) == "").all())
    width = 2 * record.width
    drawn = overlay(record, targets_of(record, eyes), width, short=True)
    plain = cv2.resize(decode_image(record), drawn.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    changed = (np.abs(drawn.astype(int) - plain).sum(-1) > 30).astype(np.uint8)
    near = cv2.dilate(changed, np.ones((5, 5), np.uint8))
    seen = (record.state == VISIBLE) & (record.joints_uv > 1).all(-1)
    seen &= (record.joints_uv < (record.width - 2, record.height - 2)).all(-1)
    for u, v in (record.joints_uv[seen] + 0.5) * 2 - 0.5:
        assert near[round(float(v)), round(float(u))], (u, v)
    assert changed.mean() < 0.6


def test_grey_are_those_whom_nobody_answers_for(records, eyes):
    record = max(records, key=len)
    valid = np.zeros(len(record), bool)
    nobody = type(record)(**{**vars(record), "valid": valid})
    drawn = overlay(nobody, targets_of(nobody, eyes), 600, short=True)
    assert (np.abs(drawn.astype(int) - TRUTH_GREY).sum(-1) < 12).sum() > 100
    assert not (drawn == person_color(0)).all(-1).any()


def test_pages_and_sheet_are_written(prepared, tmp_path, capsys):
    config = ShowConfig(str(prepared), split="val", count=5, single=2, columns=2, variant="small", out=str(tmp_path))
    files = show(config)
    assert capsys.readouterr().out.split() == files and len(files) == 3
    sheet, *pages = map(picture, files)
    assert sheet.shape[1] == 2 * 480 + 8 and "sheet_val" in files[0]
    assert all(p.shape[1] > 800 and p.shape[0] > 450 for p in pages)
    key = next(iter(read_records(list_shards(prepared, "test")[0], images=False))).key
    (file,) = show(ShowConfig(str(prepared), keys=(key,), out=str(tmp_path), format="png", variant="small"))
    assert file.endswith(key.replace("/", "-").replace("_", "-") + ".png") and picture(file).size


def test_a_page_of_people_in_2d_has_no_view_from_above(records, eyes):
    record = max(records, key=len)
    flat = type(record)(**{**vars(record), "joints_cam": None, "K": None})
    assert page(record, eyes).shape[1] > page(flat, eyes).shape[1] == 800


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


# Statistics


class Page(HTMLParser):
    """What a page would load from elsewhere, its ids and its pictures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.ids: list[str] = []
        self.pictures = self.tables = 0
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        of = dict(attributes)
        self.pictures += tag == "svg"
        self.tables += tag == "table"
        self.ids += [of["id"]] if "id" in of else []
        link = of.get("src") or of.get("href") or of.get("xlink:href") or ""
        self.loads += [link] if link and not link.startswith("#") or tag in ("script", "link") else []


@pytest.fixture(scope="module")
def measured(prepared, tmp_path_factory):
    out = tmp_path_factory.mktemp("stats") / "page.html"
    return stats(StatsConfig(str(prepared), variant="small", out=str(out))), out.read_text()


def test_numbers_are_those_of_the_rows(measured, records):
    train = measured[0].splits["train"]
    usable = [left_out(r) == "" for r in records]
    assert train.people_per_image.n == len(records) == 32
    assert train.people_per_image.total == sum(u.sum() for u in usable)
    depths = np.concatenate([r.joints_cam[u, 2, 2] for r, u in zip(records, usable, strict=True)]) / 1000
    assert train.depth.n == len(depths) and np.isclose(train.depth.mean, depths.mean(), rtol=1e-6)
    assert abs(train.depth.quantile(0.5) - np.median(depths)) < 0.15
    joints = train.joints["coco19"]
    state = np.concatenate([r.state[r.valid & ~r.ignore] for r in records])
    assert joints.people == len(state) and (joints.labelled == (state > 0).sum(axis=0)).all()
    assert (joints.visible <= joints.labelled).all() and joints.visible.any()
    a, b = skeleton_named("coco19").bone_indices[3]
    known = state[:, [a, b]].all(axis=1)
    people = np.concatenate([r.joints_cam[r.valid & ~r.ignore] for r in records]).astype(float)
    lengths = np.linalg.norm(people[known, a] - people[known, b], axis=-1)
    assert joints.bones[3].n == len(lengths) and np.isclose(joints.bones[3].mean, lengths.mean(), rtol=1e-6)


def test_levels_add_up(measured, records, eyes):
    levels = measured[0].splits["train"].levels
    assert levels.images == 32 and levels.people == sum((left_out(r) == "").sum() for r in records)
    assert levels.on_level.sum() + sum(levels.unanswered.values()) == levels.people == levels.r_max.n
    again = LevelStatistics(eyes)
    for record in records:
        again.add(record)
    np.testing.assert_array_equal(again.points, levels.points)


def test_the_page_stands_alone_and_is_the_same_every_time(measured, prepared, tmp_path):
    found, text = measured
    page_ = Page(text)
    assert page_.loads == [] and "url(http" not in text and "@import" not in text
    assert page_.pictures >= 6 and page_.tables == len(found.tables()) and len(set(page_.ids)) == len(page_.ids)
    assert found.manifest.fingerprint in text and html.escape(found.manifest.terms) in text
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


def test_splits_that_are_not_there_are_named(prepared, tmp_path):
    out = str(tmp_path / "page.html")
    found = stats(StatsConfig(str(prepared), splits=("val",), assigned=0, out=out))
    assert list(found.splits) == ["val"] and found.splits["val"].levels is None
    with pytest.raises(ValueError, match="holds no manifest|does not exist"):
        stats(StatsConfig(str(tmp_path / "none"), out=out))
