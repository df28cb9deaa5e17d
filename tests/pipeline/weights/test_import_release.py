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
from pipeline.evaluation.annotations import read_annotations
from pipeline.evaluation.train_overlap import is_train_fit, training_files
from pipeline.infra.mlflow_client import MlflowStore
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
    folder, file, data = place / name, place / "latest.pth", None
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
def test_an_imported_model_is_evaluated_promoted_and_used_on_a_photo(place, local_ray, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_prepared(tmp_path / "prepared", scene(frames=1))
    model = ["--model", str(place / "panoptic")]
    more = "--name release --overlays 1 --worst 0 --runtime-images 0 --workers 1".split()
    main(["evaluate", *model, "--data", "prepared", *more])
    said = capsys.readouterr().out
    assert "trained it on panoptic/train, panoptic/val, coco/train" in said and "cannot be checked" in said
    assert "train-fit" not in said and json.loads((tmp_path / "runs/evaluations/release/scores.json").read_text())
    promotion = ["promote", *model, "--scores", "runs/evaluations/release"]
    for name in ("das-panoptic", "my-release"):
        with pytest.raises(SystemExit) as ended:  # recorded weights are random: its numbers pass no gate
            main([*promotion, "--name", name])
        said = capsys.readouterr().out
        assert ended.value.code == 1 and f"{name} version 1 not promoted" in said and "F1" in said
    client = MlflowStore(f"sqlite:///{tmp_path}/runs/mlflow.db").client()
    first, second = (client.get_model_version(name, "1") for name in ("das-panoptic", "my-release"))
    assert first.run_id == second.run_id and "passed, disjoint from training: the model comes from" in first.description
    assert client.get_run(first.run_id).data.params["origin.file"] == "latest.pth"
    (tmp_path / "photo.jpg").write_bytes(jpeg(90, 160))
    main(["predict", "photo.jpg", "--model", "models:/my-release/1"])
    found = json.loads((tmp_path / "predictions" / "photo.json").read_text())
    assert len(found["joint_names"]) == 14 and "head" not in found["joint_names"]


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
    assert [file.name for file in job.trained_on] and training_files(place / "panoptic") == []
    assert read_annotations([str(prepared)], "test")


# ---- refusals ----


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s.pop("neck.fpn_convs.0.conv.weight"), "1 missing (neck.fpn_convs.0.conv.weight)"),
        (lambda s: s.update(extra=torch.zeros(1)), "1 unused (extra)"),
        (lambda s: s.update({"bbox_head.conv_cls.bias": torch.zeros(2)}), "1 of another shape (bbox_head.conv_cls.bi"),
        (lambda s: s["bbox_head.conv_cls.bias"].fill_(torch.inf), "bbox_head.conv_cls.bias holds NaN or infinity"),
        (lambda s: [s.pop(k) for k in list(s) if k.startswith("bbox_head.")], "no bbox_head.conv_poses.0.weight among"),
    ],
)
def test_a_file_that_is_not_wholly_the_releases_is_refused_and_leaves_nothing(place, tmp_path, capsys, change, said):
    state = torch.load(place / "latest.pth", weights_only=True, mmap=True)["state_dict"]
    change(state := dict(state))
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    refused(capsys, ["import-release", str(tmp_path / "other.pth"), "--out", str(tmp_path / "out")], "other.pth", said)
    assert [path.name for path in tmp_path.iterdir()] == ["other.pth"]


def test_the_wrong_experiment_a_taken_folder_and_unfit_data_are_refused(place, prepared, tmp_path, capsys):
    command = ["import-release", str(place / "latest.pth"), "--out"]
    refused(capsys, [*command, str(place)], "wanted a new or empty folder")
    refused(capsys, [*command, "s3://bucket/out"], "wanted a folder of this machine")
    refused(capsys, [*command, str(tmp_path / "a"), "--experiment", "mupots"], "model of 21 joints", "missing")
    write_prepared(tmp_path / "old", scene(frames=1))
    refused(capsys, [*command, str(tmp_path / "a"), "--data", str(tmp_path / "old")], "no statistics of a split train")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def refused(capsys, command, *parts):
    with pytest.raises(SystemExit) as ended:
        main(command)
    (line,) = capsys.readouterr().err.splitlines()
    assert ended.value.code == 2 and all(part in line for part in parts), line
