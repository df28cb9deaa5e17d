"""`das import-release`: the folder computes what the release computes, and every command takes it."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch

from das.checkpoint import load_criterion, load_model
from das.config import release_mupots, release_panoptic
from das.criterion import Criterion
from das.model_info import load_info
from das.predictor import Predictor
from das.recipe import RecipeConfig, release_mupots_recipe, release_panoptic_recipe
from das.release.weights import flows_of, to_official
from pipeline.cli import main
from pipeline.data.joint_statistics import JointStatistics
from pipeline.data.manifest import load_manifest
from pipeline.data.pose_statistics import pose_statistics
from pipeline.evaluation.train_overlap import is_train_fit, training_files
from pipeline.training.job import training_job
from tests.das.model_cases import assert_recorded_outputs
from tests.pipeline.data.original_layouts import jpeg
from tests.pipeline.evaluation.evaluation_cases import annotations_of, manifest_of, scene, write_prepared
from tests.pipeline.training.training_cases import tiny
from tests.pipeline.weights.weight_files import official_file

pytestmark = pytest.mark.golden
RELEASES = {
    "panoptic": (release_panoptic, release_panoptic_recipe, ("head",), ["panoptic", "coco"]),
    "mupots": (release_mupots, release_mupots_recipe, (), ["muco", "coco"]),
}


@pytest.fixture(scope="module")
def place(golden, prepared, tmp_path_factory):
    """Official files of both experiments, and the folder that the first one became, with a mean pose."""
    folder = tmp_path_factory.mktemp("import")
    official_file(golden, "panoptic", folder / "latest.pth")
    main(["import-release", str(folder / "latest.pth"), "--out", str(folder / "panoptic"), "--data", str(prepared)])
    return folder


@pytest.mark.parametrize("name", RELEASES)
def test_an_imported_model_computes_what_was_recorded_from_the_release(name, place, golden, tmp_path, capsys):
    folder, file = place / name, place / "latest.pth"
    if name != "panoptic":
        folder, file = tmp_path / name, tmp_path / "epoch_22.pth"
        official_file(golden, name, file)
        main(["import-release", str(file), "--out", str(folder)])
        assert "no first version can be promoted; import it with --data" in capsys.readouterr().out
    predictor, info = Predictor.from_folder(folder), load_info(folder)
    assert_recorded_outputs(golden, name, predictor.model)
    config, recipe, unsupervised, sources = RELEASES[name]
    assert (info.model, info.score_threshold, info.test_size) == (config(), 0.07, recipe().test_size)
    assert RecipeConfig.from_json(info.recipe) == recipe() and info.unsupervised_joints == unsupervised
    assert (info.data["sources"], info.data["fingerprints"]) == (sources, [])
    assert any("CC BY 4.0" in terms for terms in info.data["terms"]) and len(info.data["terms"]) == 3
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (info.origin.file, info.origin.sha256, info.origin.experiment) == (file.name, digest, name)
    assert sorted(path.name for path in folder.iterdir()) == [
        "config.json", "criterion.safetensors", "model.safetensors"
    ]  # fmt: skip


def test_every_tensor_of_the_file_flows_included_is_in_the_folder(place):
    model, info = load_model(place / "panoptic")
    criterion = Criterion(info.model)
    load_criterion(place / "panoptic", criterion)
    kept = to_official(model, flows_of(criterion))
    state = torch.load(place / "latest.pth", weights_only=True)["state_dict"]
    assert kept.keys() == state.keys() and all(torch.equal(kept[key], value) for key, value in state.items())


def test_the_mean_pose_is_that_of_the_training_split_given_with_data(place, prepared):
    statistics = JointStatistics.from_json(load_manifest(str(prepared)).splits["train"].statistics)
    wanted = pose_statistics(statistics, release_panoptic().skeleton, release_panoptic_recipe()).mean_pose
    assert torch.allclose(torch.tensor(load_info(place / "panoptic").mean_pose), torch.tensor(wanted).float())


# ---- commands ----


@pytest.mark.slow
def test_an_imported_model_is_evaluated_and_finds_people_on_a_photo(place, local_ray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "prepared", scene(frames=1))
    model = ["--model", str(place / "panoptic")]
    more = "--name release --overlays 0 --worst 0 --runtime-images 0 --workers 1".split()
    main(["evaluate", *model, "--data", "prepared", *more])
    said = capsys.readouterr().out
    assert "trained it on panoptic/train, panoptic/val, coco/train" in said and "cannot be checked" in said
    assert not json.loads((tmp_path / "runs/evaluations/release/scores.json").read_text())["train_fit"]
    (tmp_path / "photo.jpg").write_bytes(jpeg(90, 160))
    main(["predict", "photo.jpg", *model])
    found = json.loads((tmp_path / "predictions" / "photo.json").read_text())
    assert len(found["joint_names"]) == 14 and "head" not in found["joint_names"] and found["people"]


@pytest.mark.parametrize(("split", "fit"), [("test", False), ("val", True), ("train", True)])
def test_only_the_splits_that_its_owners_trained_on_count_as_seen(place, split, fit):
    records = scene(frames=1)
    annotations = replace(annotations_of(records), split=split, manifests=(manifest_of(records, split),))
    assert is_train_fit(place / "panoptic", annotations, allow=True) == fit
    if fit:
        with pytest.raises(ValueError, match=f"latest.pth, which was trained on panoptic/{split}; wanted images"):
            is_train_fit(place / "panoptic", annotations, allow=False)
    elsewhere = replace(annotations, manifests=(replace(annotations.manifests[0], source="custom"),))
    assert not is_train_fit(place / "panoptic", elsewhere, allow=False)


def test_a_training_that_starts_from_an_imported_model_keeps_where_it_came_from(place, prepared):
    variant = replace(tiny(prepared).model, variant="release_panoptic", backbone_width=None)
    job = training_job(tiny(prepared, model=variant, pretrained=str(place / "panoptic")))
    assert job.info.origin == load_info(place / "panoptic").origin and not job.info.imported
    assert job.info.data["sources"] == ["panoptic", "coco", "synthetic"]
    assert training_files(place / "panoptic") == [] and len(job.trained_on) == 1, "of its own data alone"


# ---- refusals ----


def test_a_file_with_other_tensors_is_refused_with_their_names_and_leaves_nothing(place, tmp_path, capsys):
    state = dict(torch.load(place / "latest.pth", weights_only=True, mmap=True)["state_dict"])
    del state["neck.fpn_convs.0.conv.weight"]
    torch.save({**state, "extra": torch.zeros(1), "bbox_head.conv_cls.bias": torch.zeros(2)}, tmp_path / "other.pth")
    refused(
        capsys,
        ["import-release", str(tmp_path / "other.pth"), "--out", str(tmp_path / "out")],
        "other.pth: not the release's model of 15 joints: 1 missing (neck.fpn_convs.0.conv.weight)",
        "1 of another shape (bbox_head.conv_cls.bias (2,) for (1,)); 1 unused (extra)",
    )
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_another_network_experiment_or_folder_and_unfit_data_are_refused(place, tmp_path, capsys):
    out = ["--out", str(tmp_path / "out")]
    torch.save({"layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    refused(
        capsys, ["import-release", str(tmp_path / "resnet.pth"), *out], "resnet.pth: its tensors are another network"
    )
    torch.save({"bbox_head.conv_poses.0.weight": torch.zeros(45, 256, 1, 1)}, tmp_path / "part.pth")
    part = ["import-release", str(tmp_path / "part.pth")]
    refused(
        capsys, [*part, *out, "--experiment", "mupots"], "model of 21 joints", "1417 missing", "(45, 256, 1, 1) for"
    )
    refused(capsys, [*part, "--out", str(place)], "wanted a new or empty folder")
    refused(capsys, [*part, "--out", "s3://bucket/out"], "wanted a folder of this machine")
    write_prepared(tmp_path / "old", scene(frames=1))
    whole = ["import-release", str(place / "latest.pth"), *out]
    refused(capsys, [*whole, "--data", str(tmp_path / "old")], "old: its manifest has no statistics of a split train")
    assert not (tmp_path / "out").exists()


def refused(capsys, command, *parts):
    with pytest.raises(SystemExit) as ended:
        main(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and all(part in line for part in parts), line
