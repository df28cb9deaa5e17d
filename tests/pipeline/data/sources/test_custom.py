"""Your own data: the documented lines, malformed lines, and conversion, training and prediction on the example."""

import json
import runpy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from das.camera import project
from das.checkpoint import fresh_tensors, load_model, save_model
from das.model import DAS
from das.model_info import load_info
from das.skeleton import MUCO21, Skeleton, read_skeleton, skeleton_named
from pipeline.data.manifest import load_manifest
from pipeline.data.prepare.config import ConvertConfig
from pipeline.data.prepare.convert import convert
from pipeline.data.record import Record
from pipeline.data.samples import to_sample
from pipeline.data.schema import from_row, to_table
from pipeline.data.shards import list_shards, read_records
from pipeline.data.sources import custom
from pipeline.data.sources.base import DroppedFrame
from pipeline.data.validate_record import validate
from pipeline.predict.config import PredictConfig
from pipeline.predict.predict import predict
from pipeline.training.config import IngestConfig, ModelChoice, TrainConfig
from pipeline.training.job import training_job
from pipeline.training.loop import train_loop
from pipeline.training.optim_config import OptimConfig
from tests.pipeline.data.original_layouts import HEIGHT, WIDTH, jpeg
from tests.pipeline.training.ray_train_stand_in import StandIn

DOCS = Path(__file__).resolve().parents[4] / "docs"

TOY = Skeleton("toy", ("hip", "l_hand", "r_hand"), (("hip", "l_hand"), ("hip", "r_hand")), ("hip",))
K = [300.0, 301.0, 160.0, 90.0]


def person(x=0.0, **changes):
    cam = np.array([[x, 0, 3000], [x + 400, -200, 3000], [x - 400, -200, 3100]], float)
    uv = project(cam, np.array([[K[0], 0, K[2]], [0, K[1], K[3]], [0, 0, 1]]))
    return {"joints_uv": uv.tolist(), "joints_cam": cam.tolist(), "state": [2, 1, 2], **changes}


def image(number=0, people=None, **changes):
    return {"image": f"images/{number}.jpg", "K": K, "people": [person()] if people is None else people, **changes}


def write(root, lines, name="train", skeleton=None):
    (root / "images").mkdir(exist_ok=True)
    (root / "skeleton.json").write_text(json.dumps(TOY.to_json() if skeleton is None else skeleton))
    text = (line if isinstance(line, str) else json.dumps(line) for line in lines)
    (root / f"{name}.jsonl").write_text("".join(f"{line}\n" for line in text))
    for i in range(len(lines)):
        (root / "images" / f"{i}.jpg").write_bytes(jpeg(HEIGHT, WIDTH, seed=i))
    return root


def read(root, split="train"):
    items = [item for chunk in custom.chunks(root, split) for item in custom.records(chunk)]
    for item in items:
        if isinstance(item, Record):
            validate(item)
    return items


def test_a_line_becomes_a_record_with_its_joint_set(tmp_path):
    distortion = [0.1, 0.01, 0.001, 0.0, 0.0]
    two = [person(id=7, bbox=[1, 2, 30, 40]), person(900.0, ignore=True, valid=False)]
    flat = image(1, [person(joints_cam=None)], K=None)
    matrix = [[300, 0, 160], [0, 301, 90], [0, 0, 1]]
    lines = [image(0, two, distortion=distortion), "", flat, image(2, []), image(3, K=matrix)]
    first, second, third, fourth = read(write(tmp_path, lines))
    assert [i.key for i in (first, second, third)] == [f"custom/train/0/{n:08d}" for n in range(3)]
    assert skeleton_named(first.skeleton) == TOY and json.loads(first.skeleton) == TOY.to_json()
    assert np.array_equal(first.K, matrix) and np.array_equal(fourth.K, matrix)
    assert np.array_equal(first.distortion, distortion) and fourth.distortion is None
    assert first.person_id.tolist() == [7, 1] and first.state.tolist() == [[2, 1, 2]] * 2
    assert first.bbox[0].tolist() == [1, 2, 30, 40] and first.ignore.tolist() == [False, True]
    limit = (WIDTH - 1, HEIGHT - 1)
    corners = [np.clip(corner(first.joints_uv[1], axis=0), 0, limit) for corner in (np.min, np.max)]
    assert np.allclose(first.bbox[1], np.concatenate(corners))
    assert np.allclose(first.joints_cam[0], person()["joints_cam"]) and first.valid.tolist() == [True, False]
    assert second.K is None and second.joints_cam is None and not to_sample(second)[0].has_depth.any()
    assert len(third) == 0 and read(tmp_path, "val") == []
    assert to_sample(first)[0].skeleton == TOY


@pytest.mark.parametrize("count", [4, 5, 8, 12, 14])
def test_a_lens_in_any_of_opencvs_forms_is_read_and_stored(count, tmp_path):
    lens = [-0.1, 0.01, 0.001, 0.002, 0.003, 0.02, 0.01, 0.004, 1e-3, 2e-3, 3e-3, 4e-3, 0, 0][:count]
    (item,) = read(write(tmp_path, [image(distortion=[lens])]))
    assert len(item.distortion) == (5 if count <= 5 else 12)
    assert np.array_equal(item.distortion[:count], lens[:12])
    (row,) = to_table([item]).to_pylist()
    assert np.array_equal(from_row(row).distortion, item.distortion)
    assert len(to_sample(item)[0].distortion) == len(item.distortion)


def test_missing_and_damaged_images_become_dropped_frames(tmp_path):
    root = write(tmp_path, [image(0), image(1), image(2)])
    (root / "images/0.jpg").unlink()
    (root / "images/1.jpg").write_bytes(b"\xff\xd8 no more")
    missing, damaged, whole = read(root)
    assert (missing, damaged) == (
        DroppedFrame("custom/train/0/00000000", "image missing"),
        DroppedFrame("custom/train/0/00000001", "image damaged"),
    )  # fmt: skip
    assert missing.file == "images/0.jpg" and isinstance(whole, Record)


BAD_LINES = [
    ("{", "not JSON"),
    ("[]", "found a list, wanted an object"),
    ({"image": "images/0.jpg", "K": K}, "field 'people' is missing"),
    (image(colour="red"), "field 'colour' is unknown"),
    (image(image=3), "wanted image as a path"),
    (image(people={}), "people as a list"),
    (image(K=[1, 2, 3]), "K: found size 3"),
    (image(K=["a", 2, 3, 4]), "K: found values that are no numbers"),
    (image(K=["300", "301", "160", "90"]), "K: found values that are no numbers"),
    (image(K=[[300, 0, 160], [0, 301], [0, 0, 1]]), "K: found lists of different lengths"),
    (image(K={"fx": 300}), "K: found size 1"),
    (image(distortion=[1]), r"distortion: distortion = \[1.0\], wanted 4, 5, 8, 12 or 14 finite numbers"),
    (image(people=[3]), "person 1: found a number, wanted an object"),
    (image(people=[person(), person(joints_uv=[[1, 2]] * 4)]), "person 2: joints_uv: found size 8, wanted .*3, 2"),
    (image(people=[person(joints_cam=[[1, 2, float("nan")]] * 3)]), "person 1: joints_cam: found NaN"),
    (image(people=[person(joints_cam=np.array(person()["joints_cam"])[:, :2].tolist())]), "joints_cam: found size 6"),
    (image(people=[person(joints_uv=np.array(person()["joints_uv"]).T.tolist())]), r"joints_uv: found shape .2, 3."),
    (image(people=[person(bbox=[None, 0, 1, 1])]), "person 1: bbox: found values that are no numbers"),
    (image(people=[person(state=[2, 2])]), "person 1: state: found size 2"),
    (image(people=[person(state=[2, 2, 3])]), "person 1: state: found .*3.0.*, wanted 0, 1 or 2"),
    (image(people=[person(visibility=[2, 2, 2])]), "person 1: field 'visibility' is unknown"),
    (image(people=[person(id="me")]), "wanted id as a whole number"),
    (image(people=[person(ignore=1)]), "ignore and valid as true or false"),
    (image(people=[person(), person(joints_cam=None)]), "joints_cam: found some null, wanted .* of all people"),
    (image(K=None), "joints_cam: found no K"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "reason"), BAD_LINES, ids=[reason[:30] for _, reason in BAD_LINES])
def test_a_bad_line_is_named_by_file_line_and_field(line, reason, tmp_path):
    root = write(tmp_path, [image(0), line])
    with pytest.raises(ValueError, match=f"train.jsonl: .*image 2.*{reason}") as caught:
        read(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("skeleton", "reason"),
    [
        ("[]", "wanted a JSON object"),
        ('{"name": "toy"', "not JSON"),
        ({"name": "toy"}, "needs name, joints, bones and root"),
        ({**TOY.to_json(), "joints": "abc"}, "wanted joints as a list"),
        ({**TOY.to_json(), "joints": ["hip", "l_hand", "hand"], "bones": []}, "no partner"),
        ({**TOY.to_json(), "bones": [["hip", "l_hand", "r_hand"]]}, "two joints a bone"),
        ({**TOY.to_json(), "root": ["tail"]}, "'tail'"),
        ({**TOY.to_json(), "name": "coco17"}, "'coco17' is a known set of other joints"),
        ({**TOY.to_json(), "name": " "}, "without a name"),
    ],
)
def test_a_bad_skeleton_refuses_the_folder_and_is_named(skeleton, reason, tmp_path):
    root = write(tmp_path, [image(0)])
    (root / "skeleton.json").write_text(skeleton if isinstance(skeleton, str) else json.dumps(skeleton))
    with pytest.raises(ValueError, match=f"skeleton.json: .*{reason}"):
        custom.chunks(root, "train")


def test_missing_parts_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"custom: skeleton: no file .*skeleton.json"):
        custom.chunks(tmp_path, "train")
    write(tmp_path, [], name="monday")
    with pytest.raises(ValueError, match=r"custom: annotations: no file .*train.jsonl or .*val.jsonl"):
        custom.chunks(tmp_path, "train")


def test_a_known_set_needs_no_definition_in_its_rows(tmp_path):
    people = [{"joints_uv": [[5, 5]] * 21, "joints_cam": None, "state": [2] * 21}]
    root = write(tmp_path, [image(0, people, K=None)], skeleton=MUCO21.to_json())
    (item,) = read(root)
    assert item.skeleton == "muco21"


# The worked example of docs/bring_your_own.md.


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    runpy.run_path(str(DOCS / "bring_your_own_example.py"))["write_example"](folder)
    return folder


@pytest.fixture(scope="module")
def prepared_example(example, local_ray, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "out"
    convert(ConvertConfig("custom", str(example), str(out)))
    return out


def test_the_example_has_twenty_images_whose_joints_project_onto_their_labels(example):
    skeleton = read_skeleton(example / "skeleton.json")
    items = {split: read(example, split) for split in ("train", "val", "test")}
    assert {split: len(found) for split, found in items.items()} == {"train": 14, "val": 4, "test": 2}
    assert len(skeleton) == 12 and len(list((example / "images").iterdir())) == 20
    people = 0
    for item in (item for found in items.values() for item in found):
        labelled = item.state > 0
        projected = project(item.joints_cam.astype(float), item.K, item.distortion)
        assert np.abs(projected - item.joints_uv)[labelled].max() < 0.1
        people += len(item)
    assert people >= 40


def test_the_manifest_has_the_joint_set_and_the_terms(prepared_example):
    manifest = load_manifest(str(prepared_example))
    (text,) = manifest.skeletons
    assert skeleton_named(text).name == "studio12" and len(skeleton_named(text)) == 12
    assert manifest.terms == "data of your own: rendered by this project's studio, free of third-party rights"
    assert manifest.split_manifest == custom.SPLITS.id
    assert {name: info.images for name, info in manifest.splits.items()} == {"train": 14, "val": 4, "test": 2}
    records = [r for split in manifest.splits for s in list_shards(prepared_example, split) for r in read_records(s)]
    assert {record.skeleton for record in records} == {text}


def training(prepared, skeleton, **changes):
    return TrainConfig(
        data=(str(prepared),),
        model=ModelChoice("small", joints=skeleton, backbone_width=8),
        ingest=IngestConfig(recipe="small", width=96, height=54, batch_size=7),
        optim=OptimConfig("adamw", lr=1e-3, warmup_steps=0, schedule="cosine", epochs=1, clip_norm=10.0),
        **changes,
    )


def train(config, folder):
    """One epoch by the real loop; the checkpoint's folder."""
    stand_in = StandIn(folder)
    job = training_job(config)
    with pytest.MonkeyPatch.context() as patch:
        stand_in.install(patch)
        train_loop({"job": job})
    return stand_in.reports[-1][1]


def test_a_model_of_own_joints_is_trained_and_predicts_from_skeleton_json(example, prepared_example, tmp_path, capsys):
    checkpoint = train(training(prepared_example, str(example / "skeleton.json")), tmp_path / "run")
    info = load_info(checkpoint)
    assert info.model.skeleton == read_skeleton(example / "skeleton.json") and info.unsupervised_joints == ()
    assert info.data["terms"] == ["data of your own: rendered by this project's studio, free of third-party rights"]
    photo = next((example / "images").glob("test_*"))
    predict(PredictConfig((str(photo),), str(checkpoint), out=str(tmp_path / "found"), threshold=0.0))
    found = json.loads((tmp_path / "found" / f"{photo.stem}.json").read_text())
    assert found["joint_names"] == list(info.model.skeleton.joints) and found["people"]
    assert (tmp_path / "found" / f"{photo.stem}_overlay.jpg").stat().st_size > 0


def test_training_starts_from_a_model_of_other_joints_and_names_fresh_layers(
    example, prepared_example, tmp_path, capsys
):
    base = training_job(training(prepared_example, "panoptic15"))
    theirs = DAS(base.info.model)
    save_model(tmp_path / "start", theirs, base.info)
    config = training(prepared_example, str(example / "skeleton.json"), pretrained=str(tmp_path / "start"))
    config = replace(config, optim=replace(config.optim, lr=1e-9, weight_decay=0.0, ema_decay=None))
    model, info = load_model(train(config, tmp_path / "run"))
    said = capsys.readouterr().out
    fresh = fresh_tensors(tmp_path / "start", info.model)
    assert "start predicts other joints than studio12" in said and "layers start fresh (head.joints.out" in said
    for name, value in model.state_dict().items():
        if "running" in name or "num_batches" in name:
            continue
        old = theirs.state_dict()[name]
        if name in fresh:
            assert name.startswith(("head.joints.out", "head.sigma.out", "update.")) and old.shape != value.shape
        else:
            assert np.allclose(value, old, atol=1e-6), name
    # The new joints start at the mean pose of these data, not at zero: heads above, feet below their root.
    offsets = model.head.joints.out.bias.detach().unflatten(0, (12, 3))
    ankle, neck = (info.model.skeleton.joints.index(joint) for joint in ("l_ankle", "neck"))
    assert offsets[ankle, 1] > 0 > offsets[neck, 1]


@pytest.mark.parametrize("name", ["../secret.jpg", "images/../../secret.jpg", "/dev/zero", "link.jpg"])
def test_an_image_outside_the_folder_is_refused_while_listing(tmp_path, name):
    (tmp_path / "secret.jpg").write_bytes(jpeg(HEIGHT, WIDTH))
    root = tmp_path / "data"
    root.mkdir()
    write(root, [image(0), image(1, image=name)])
    (root / "link.jpg").symlink_to("../secret.jpg")
    found = "link.jpg: leads out of" if name == "link.jpg" else f"entry image 2: image: found '{name}', wanted the name"
    with pytest.raises(ValueError, match=found):
        read(root)
