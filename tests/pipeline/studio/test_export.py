"""The studio's other layouts: the sources read them like the owners' files, and what they say is in the pictures."""

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from das.skeleton import COCO17, COCO19, MPI15, MUCO21, MUPOTS17, Skeleton
from pipeline.data.record import OCCLUDED, VISIBLE
from pipeline.data.sources import coco, muco, mupots
from pipeline.data.sources.base import DroppedFrame, terms_of
from pipeline.studio import VERSION, StudioConfig, layout_plan, render
from pipeline.studio.annotate import _hidden
from pipeline.studio.cameras import photo_camera, sequence_cameras
from pipeline.studio.coco_json import outline, run_lengths
from pipeline.studio.config import RENDERED_TERMS, sequence_names
from pipeline.studio.geometry import to_world
from pipeline.studio.joints import joint_points
from pipeline.studio.panoptic_layout import sequence_room
from pipeline.studio.render import View
from pipeline.studio.render_job import RenderConfig
from pipeline.studio.render_job import render as render_job
from pipeline.studio.shots import HIDDEN, OUTSIDE, SEEN, shots
from pipeline.studio.stage import plan_take

TINY = StudioConfig(width=192, height=108, take_frames=2, shard_frames=2, train_frames=4, val_frames=2, test_frames=4,
                    train_sequences=("studio_train_mafia1", "studio_train_haggling1"),
                    val_sequences=("studio_val_mafia1",), people_min=3, seed=1,
                    test_sequences=("studio_test_pizza1", "studio_test_mafia1"))  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("layouts")
    assert render(TINY, root / "muco", workers=1, layout="muco") == 2 * 2 * 4
    assert render(TINY, root / "coco", workers=1, layout="coco") == 2 * 4 + 2
    assert render(TINY, root / "mupots", workers=1, layout="mupots") == 2 * 4
    return root


def read_all(source, folder: Path, split: str) -> list:
    found = [record for chunk in source.chunks(folder, split) for record in source.records(chunk)]
    assert not any(isinstance(record, DroppedFrame) for record in found)
    return found


def pixels(cam: np.ndarray, K: np.ndarray) -> np.ndarray:
    points = np.ascontiguousarray(cam.reshape(-1, 3), np.float64)
    return cv2.projectPoints(points, np.zeros(3), np.zeros(3), K, None)[0].reshape(*cam.shape[:-1], 2)


def read_coco(folder: Path, photos: str) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        return COCO(str(folder / "annotations" / f"person_keypoints_{photos}.json"))


# MuCo-3DHP


def test_muco_is_read_whole_and_its_joints_project_to_their_pixels(root):
    records = read_all(muco, root / "muco", "train")
    assert len(records) == 16 and {r.sequence for r in records} == {"unaugmented_set", "augmented_set"}
    for r in records:
        assert len(r.joints_uv) and r.joints_cam.shape[1:] == (len(MUCO21), 3) and r.distortion is None
        assert np.abs(pixels(r.joints_cam, r.K) - r.joints_uv).max() < 0.02
        inside = ((r.joints_uv >= -0.5) & (r.joints_uv < (r.width - 0.5, r.height - 0.5))).all(-1)
        np.testing.assert_array_equal(r.state == VISIBLE, inside)
        assert 1500 < np.median(r.joints_cam[..., 2]) < 6000  # mm
        # Boxes hold what is in the picture of the joints.
        low, high = r.bbox[:, None, :2] - 1, r.bbox[:, None, 2:] + 1
        assert ((r.joints_uv >= low) & (r.joints_uv <= high)).all(-1)[inside].mean() > 0.99


def test_mucos_list_positions_are_its_ids_and_its_first_half_is_cut_out(root):
    content = json.loads((root / "muco" / "MuCo-3DHP.json").read_text())
    assert [image["id"] for image in content["images"]] == list(range(16))
    assert "no recordings" in content["info"]["description"]
    assert not (root / "muco" / ".parts").exists()
    for image in content["images"]:
        # The corners of a cut-out picture are green cloth, those of an augmented one are a room.
        picture = cv2.imread(str(root / "muco" / image["file_name"])).astype(float)
        corner = picture[:12, -12:].mean((0, 1))
        green = corner[1] > 1.5 * max(corner[0], corner[2])
        assert green == image["file_name"].startswith("unaugmented_set/")


# MuPoTS-3D


def test_mupots_is_read_whole_with_occlusion_and_the_universal_skeleton(root):
    records = read_all(mupots, root / "mupots", "test")
    assert [r.sequence for r in records] == ["TS1"] * 4 + ["TS2"] * 4
    takes: dict[tuple[str, int], list[np.ndarray]] = {}
    for r in records:
        assert r.joints_cam.shape[1:] == (len(MUPOTS17), 3) and r.valid.all()
        assert np.abs(pixels(r.joints_cam, r.K) - r.joints_uv).max() < 0.02
        pelvis = r.joints_cam[:, [MUPOTS17.root_index]]
        ours, universal = r.joints_cam - pelvis, r.joints_cam_univ - pelvis
        scale = np.linalg.norm(universal, axis=(1, 2)) / np.linalg.norm(ours, axis=(1, 2))
        np.testing.assert_allclose(universal, scale[:, None, None] * ours, atol=0.02)
        assert 0.75 < scale.min() and scale.max() < 1.3
        takes.setdefault((r.sequence, r.frame // TINY.take_frames), []).append(scale)
    # A person's size does not change; both frames of a take show the same people.
    for first, second in takes.values():
        np.testing.assert_allclose(first, second, atol=1e-4)
    states = np.concatenate([r.state.ravel() for r in records])
    assert set(states.tolist()) == {OCCLUDED, VISIBLE} and 0.05 < (states == OCCLUDED).mean() < 0.6


# COCO


def test_coco_is_what_pycocotools_takes_for_coco(root):
    for photos, count in (("train2017", 8), ("val2017", 2)):
        data = read_coco(root / "coco", photos)
        (category,) = data.loadCats(data.getCatIds(catNms=["person"]))
        assert len(category["keypoints"]) == 17 and category["keypoints"][5] == "left_shoulder"
        assert len(data.imgs) == count
        for annotation in data.anns.values():
            image = data.imgs[annotation["image_id"]]
            shape = image["height"], image["width"]
            assert cv2.imread(str(root / "coco" / photos / image["file_name"])).shape[:2] == shape
            mask = data.annToMask(annotation).astype(bool)
            # Outlines fill what an arm encloses, as COCO's do.
            assert mask.shape == shape and abs(mask.sum() - annotation["area"]) < 0.25 * annotation["area"] + 6
            rows, columns = np.nonzero(mask)
            box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
            assert np.abs(np.subtract(box, annotation["bbox"])).max() <= 1
            keypoints = np.reshape(annotation["keypoints"], (17, 3))
            assert annotation["num_keypoints"] == (keypoints[:, 2] > 0).sum()
            assert not keypoints[keypoints[:, 2] == 0].any()
            near = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8))
            x, y, _ = keypoints[keypoints[:, 2] == SEEN].T
            assert near[y.clip(0, shape[0] - 1), x.clip(0, shape[1] - 1)].all()
        people = [a for a in data.anns.values() if not a["iscrowd"]]
        assert {v for a in people for v in a["keypoints"][2::3]} == {OUTSIDE, HIDDEN, SEEN}


def test_coco_scores_its_own_labels_as_perfect(root):
    data = read_coco(root / "coco", "train2017")
    labelled = [{**a, "score": 1.0} for a in data.anns.values() if a["num_keypoints"]]
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(data, data.loadRes([{k: a[k] for k in ("image_id", "category_id", "keypoints", "score")}
                                             for a in labelled]), "keypoints")  # fmt: skip
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    assert judge.stats[0] == pytest.approx(1.0) and len(labelled) > 8


def test_coco_is_read_whole_and_crowds_are_ignored(root):
    records = read_all(coco, root / "coco", "train")
    assert len(records) == 8 and len(read_all(coco, root / "coco", "val")) == 2
    data = read_coco(root / "coco", "train2017")
    for r in records:
        assert r.K is None and r.joints_cam is None
        annotations = {a["id"]: a for a in data.imgToAnns[r.frame]}
        assert set(r.person_id.tolist()) == set(annotations)
        for id_, state, ignore in zip(r.person_id, r.state, r.ignore):
            assert state.tolist() == annotations[id_]["keypoints"][2::3]
            assert ignore == (annotations[id_]["iscrowd"] or not annotations[id_]["num_keypoints"])
    crowds = [a for a in data.anns.values() if a["iscrowd"]]
    assert crowds and all(isinstance(a["segmentation"]["counts"], list) for a in crowds)


def test_rendered_people_are_under_the_studios_terms_in_every_layout(root, tmp_path):
    for source in (muco, coco, mupots):
        folder = root / source.__name__.rpartition(".")[2]
        assert terms_of(source, folder) == RENDERED_TERMS != source.TERMS
    (tmp_path / "terms.txt").write_text("a copy made in May")
    assert terms_of(coco, tmp_path) == f"{coco.TERMS}: a copy made in May", "words of others take nothing away"


def test_photos_are_taken_from_anywhere_with_any_lens():
    cameras = [photo_camera(TINY, "studio_train_mafia1", take) for take in range(40)]
    assert {(c.width, c.height) for c in cameras} == {(192, 108), (144, 108), (81, 108)}
    azimuths = [np.arctan2(c.centre[0], c.centre[2]) for c in cameras]
    assert np.histogram(azimuths, 4, (-np.pi, np.pi))[0].min() > 3
    assert all(not c.distortion.any() and np.linalg.det(c.R) == pytest.approx(1) for c in cameras)


def test_run_lengths_and_outlines_are_those_of_pycocotools():
    rng = np.random.default_rng(0)
    for _ in range(20):
        mask = cv2.GaussianBlur(rng.normal(0, 1, (40, 61)), (0, 0), 3) > 0
        h, w = mask.shape
        ours = rle.frPyObjects({"size": [h, w], "counts": run_lengths(mask)}, h, w)
        np.testing.assert_array_equal(rle.decode(ours), mask)
        filled = np.zeros_like(mask, np.uint8)
        blocks, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(filled, blocks, -1, 1, cv2.FILLED)  # outlines have no holes
        drawn = rle.decode(rle.merge(rle.frPyObjects(outline(mask), h, w)))
        assert (drawn & filled).sum() > 0.93 * (drawn | filled).sum()


# What all of them rest on


def test_every_joint_of_every_set_lies_on_its_person():
    """Painted alone, a person covers every joint of every joint set that the studio can name."""
    config = replace(TINY, width=320, height=180, take_frames=1)
    sequence = "studio_train_haggling1"
    room = sequence_room(config, sequence)
    views = [View(config, room, sequence_cameras(config, sequence)[0], np.random.default_rng(0))]
    sets = (COCO17, COCO19, MPI15, MUPOTS17, MUCO21)
    checked = {name: 0 for skeleton in sets for name in skeleton.joints}
    for number in range(6):
        take = plan_take(config, sequence, number)
        for i, actor in enumerate(take.actors):
            alone = replace(take, actors=[actor], boxes=[])
            (shot,) = shots(config, sequence, number, 1, alone, room, views)
            for skeleton in sets:
                (figure,) = shot.figures(skeleton)
                near = cv2.dilate(figure.mask.astype(np.uint8), np.ones((3, 3), np.uint8))
                for name, uv, state in zip(skeleton.joints, figure.uv, figure.state):
                    if state != OUTSIDE:
                        x, y = np.round(uv).astype(int).clip(0, (319, 179))
                        assert near[y, x], (number, i, skeleton.name, name)
                        checked[name] += 1
    assert min(checked.values()) > 8
    unknown = Skeleton("animals", ("mid_hip", "tail"), (), ("mid_hip",))
    with pytest.raises(ValueError, match="'animals': the studio's people have no joint 'tail'"):
        joint_points(actor.person, actor.pose, unknown)


def test_hidden_joints_are_those_behind_bodies():
    """What the painted pictures hide agrees with rays that meet other bodies' spheres."""
    config = replace(TINY, width=192, height=108, take_frames=1, people_min=6)
    sequence = "studio_train_mafia1"
    room = sequence_room(config, sequence)
    (camera, _) = sequence_cameras(config, sequence)
    views = [View(config, room, camera, np.random.default_rng(0))]
    eye = to_world(camera.centre)
    painted, met = [], []
    for number in range(10):
        take = replace(plan_take(config, sequence, number), boxes=[])
        (shot,) = shots(config, sequence, number, 1, take, room, views)
        for figure, actor in zip(shot.figures(MUCO21), take.actors):
            others = [other for other in take.actors if other is not actor]
            points = joint_points(actor.person, actor.pose, MUCO21)
            behind = _hidden(points, eye, others)[0]
            inside = figure.state != OUTSIDE
            painted += (figure.state[inside] == HIDDEN).tolist()
            met += behind[inside].tolist()
    painted, met = np.array(painted), np.array(met)
    assert met.sum() > 100 and painted[met].mean() > 0.85  # what is behind others is hidden
    assert painted[~met].mean() < 0.35  # the rest only by the person's own body


def test_bytes_of_other_layouts_do_not_depend_on_how_the_work_is_shared(root, tmp_path):
    render(replace(TINY, shard_frames=4), tmp_path, workers=1, layout="coco")

    def contents(folder: Path) -> dict[str, bytes]:
        return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}

    assert contents(tmp_path) == contents(root / "coco")


def test_a_layout_without_its_sequences_is_refused():
    with pytest.raises(ValueError, match="layout coco: wanted train or val sequences, found none"):
        layout_plan(replace(TINY, train_sequences=(), val_sequences=()), "coco")
    with pytest.raises(ValueError, match="MuPoTS-3D has 20, found 21"):
        layout_plan(replace(TINY, test_sequences=sequence_names("test")[:21]), "mupots")


def test_a_rendered_folder_is_taken_for_what_it_is(tmp_path):
    done = tmp_path / "studio.json"
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in vars(TINY).items()}
    done.write_text(json.dumps({"config": plain, "pictures": 7, "layout": "muco", "version": 10**6}))
    with pytest.raises(ValueError, match="rendered by version 1000000 of the studio"):
        render_job(RenderConfig(str(tmp_path), TINY, layout="muco"))
    content = json.loads(done.read_text())
    done.write_text(json.dumps({**content, "version": VERSION}))
    assert render_job(RenderConfig(str(tmp_path), TINY, layout="muco")) == 7
    for other in (RenderConfig(str(tmp_path), TINY, layout="coco"), RenderConfig(str(tmp_path), replace(TINY, seed=2))):
        with pytest.raises(ValueError, match="with other settings"):
            render_job(other)
