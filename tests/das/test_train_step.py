"""Model and criterion together: the recorded head, workers with different people, training on one scene."""

import dataclasses
import json
from datetime import timedelta

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from das.config import release_panoptic
from das.criterion import Criterion
from das.decode import decode
from das.head import Head
from das.model import HeadOutput
from das.recursive_update import RecursiveUpdate, update_dense
from das.release.weights import FLOW_NAMES, load_official, to_official
from das.train_step import require_finite
from tests.das.release_vectors import batch_of, flow_weights, numbered
from tests.das.scenes import MIXED, TINY, VARIANTS, frozen_norms, gradients_of, made, part_of, scene


class RecordedHead(nn.Module):
    """The recorded small head and its update branch, in the shape of our model."""

    def __init__(self, sizes):
        super().__init__()
        update = sizes["recursive_update"]
        self.head = Head(
            joints=sizes["num_joints"],
            root=sizes["root_idx"],
            levels=len(sizes["strides"]),
            in_channels=sizes["in_channels"],
            channels=sizes["feat_channels"],
            branch_channels=sizes["cls_branch"][0],
            centerness_channels=sizes["centerness_branch"][0],
        )
        self.update = RecursiveUpdate(
            kind="release",
            layers=update["num_layers"],
            samples=update["num_heads"],
            joints=update["num_joints"],
            in_channels=update["in_channels"],
            channels=update["feat_channels"],
            root=sizes["root_idx"],
        )

    def forward(self, features):
        output = HeadOutput([], [])
        for level, x in enumerate(features):
            prediction, pose_features = self.head(x, level, want_sigma=True)
            output.levels.append(prediction)
            output.updates.append(self.update(pose_features, prediction.joints))
        return output


@pytest.mark.golden
def test_head_losses_and_parameter_gradients_equal_the_release(golden):
    folder = golden / "model"
    recorded = json.loads((folder / "E_head_config.json").read_text())
    height, width = recorded["image_hw"]
    model, criterion = RecordedHead(recorded["head"]), Criterion(release_panoptic())
    flows = {key: criterion.flow(*key) for key in FLOW_NAMES.values()}
    with np.load(folder / "E_head_state.npz") as vectors:
        state = {f"bbox_head.{k.removeprefix('sd/')}": torch.from_numpy(vectors[k]) for k in vectors.files}
    for name in FLOW_NAMES:
        state |= {f"bbox_head.{name}.{k}": v for k, v in flow_weights(golden, name).items()}
    load_official(state, model, flows)

    with np.load(folder / "E_head_input.npz") as vectors:
        output = model([torch.from_numpy(f) for f in numbered(vectors, "feat")])
    with np.load(folder / "E_head_train.npz") as vectors:
        batch = batch_of(numbered(vectors, "gt"), height, width)
        for level, updated in enumerate(numbered(vectors, "aux")):
            dense = update_dense(output.updates[level]).flatten(1, 2).detach()
            np.testing.assert_allclose(dense, updated, atol=1e-3)
        recorded_losses = vectors["losses"]
    losses = criterion.losses(criterion(output, batch), criterion.counts(batch))
    ours = [losses["cls"], losses["root"], 2 * losses["pose"], losses["centerness"]]
    np.testing.assert_allclose([v.item() for v in ours], recorded_losses, rtol=1e-3)

    losses["loss"].backward()
    # The release's names for our gradients, by the same map as for the parameters themselves.
    for parameter in (*model.parameters(), *criterion.parameters()):
        parameter.data = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    gradients = to_official(model, flows)
    expected = json.loads((folder / "E_head_grads.json").read_text())["param_grad_l2_and_sum"]
    for name, (norm, _) in expected.items():
        # A bias before a group norm has a true gradient of 0: what is recorded there is rounding.
        rounding = 1e-6 * expected[name.removesuffix("bias") + "weight"][0] if name.endswith("bias") else 0.0
        found = gradients[f"bbox_head.{name}"].norm().item()
        assert found == pytest.approx(norm, rel=1e-2, abs=rounding), name
    assert len(expected) == sum(1 for k in gradients if not k.endswith("mask"))


def worker(rank, folder):
    torch.set_num_threads(1)
    init = f"file://{folder}/rendezvous"
    dist.init_process_group("gloo", init, rank=rank, world_size=2, timeout=timedelta(seconds=90))
    results = {}
    for name, config in VARIANTS.items():
        # Rank 0 sees people annotated in 2D only, rank 1 none at all; in the last step neither sees anybody.
        step = made(config)
        parallel = DistributedDataParallel(step)
        optimizer = torch.optim.SGD(step.parameters(), lr=1e-3)
        before = {k: v.clone() for k, v in step.criterion.state_dict().items()}
        for i in range(5):
            no_people = rank == 1 or i == 4
            batch = scene([[], []] if no_people else [[((40, 30), False)], [((60, 30), False)]], seed=i)
            totals = step.counts(batch)
            dist.all_reduce(totals)
            optimizer.zero_grad()
            (2 * parallel(batch, totals)["loss"]).backward()
            optimizer.step()
        results[f"{name}/weights"] = dict(step.named_parameters())
        results[f"{name}/flows before"] = before

        # The mixed batch in halves, and each half in two accumulation steps.
        for parts in (1, 2):
            step = frozen_norms(made(config))
            parallel = DistributedDataParallel(step)
            half = part_of(scene(MIXED), 2 * rank, 2 * rank + 2)
            pieces = [half] if parts == 1 else [part_of(half, 0, 1), part_of(half, 1, 2)]
            totals = torch.stack([step.counts(p) for p in pieces]).sum(0)
            dist.all_reduce(totals)
            losses = []
            for i, piece in enumerate(pieces):
                parallel.require_backward_grad_sync = i == len(pieces) - 1
                losses.append(parallel(piece, totals))
                (2 * losses[-1]["loss"]).backward()
            results[f"{name}/{parts}/losses"] = {k: sum(v[k].detach() for v in losses) for k in losses[0]}
            results[f"{name}/{parts}/gradients"] = gradients_of(step)
    torch.save(results, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two_workers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("workers")
    torch.multiprocessing.spawn(worker, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", VARIANTS)
def test_workers_with_2d_people_and_without_people_stay_equal_and_no_worker_waits(two_workers, name):
    ours, theirs = (results[f"{name}/weights"] for results in two_workers)
    for key, value in ours.items():
        assert torch.equal(value, theirs[key]) and value.isfinite().all(), key
    before = two_workers[0][f"{name}/flows before"]
    moved = {k for k, v in before.items() if "mask" not in k and not torch.equal(v, ours[f"criterion.{k}"])}
    flows = Criterion(VARIANTS[name]).flows
    assert {k.split(".")[1] for k in moved} == {k for k in flows if k.endswith("2d")}


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("name", VARIANTS)
def test_one_process_equals_two_with_accumulation(two_workers, name, parts):
    step, batch = frozen_norms(made(VARIANTS[name])), scene(MIXED)
    losses = step(batch, step.counts(batch))
    losses["loss"].backward()
    for key, value in losses.items():
        both = sum(results[f"{name}/{parts}/losses"][key] for results in two_workers)
        torch.testing.assert_close(both, value.detach(), rtol=1e-4, atol=1e-6)
    for key, value in gradients_of(step).items():
        for results in two_workers:
            found = results[f"{name}/{parts}/gradients"][key]
            atol = 1e-4 * float(value.abs().max()) + 1e-7
            torch.testing.assert_close(found, value, rtol=1e-3, atol=atol, msg=lambda m, k=key: f"{k}: {m}")


@pytest.mark.parametrize("people", [[[]], [[((40, 30), False)]], [[((40, 30), True)]]])
@pytest.mark.parametrize(
    "config",
    [
        *VARIANTS.values(),
        dataclasses.replace(TINY, update="single", update_layers=2, regress_root_xy=False, offset_origin="pixel"),
        dataclasses.replace(TINY, update_layers=3, supervise_initial=True),
        dataclasses.replace(TINY, center="box", head_norm=True, tower_deformable=True),
    ],
)
def test_every_parameter_gets_a_gradient_whoever_is_there(config, people):
    step, batch = made(config), scene(people)
    losses = step(batch, step.counts(batch))
    losses["loss"].backward()
    assert all(g is not None and g.isfinite().all() for g in gradients_of(step).values())
    assert not any(v.requires_grad for k, v in losses.items() if k != "loss")
    assert losses["loss"].isfinite()


def test_counts_need_no_forward_pass_and_hold_for_it():
    step, batch = made(TINY), scene(MIXED)
    step.model = nn.Identity()  # gone
    counts = step.counts(batch)
    assert counts.dtype == torch.float64 and counts[1] == 4
    assert counts[0] > counts[2] > 0 and counts[3] > 15


def test_a_loss_that_is_not_finite_names_samples_and_losses():
    losses = {"loss": torch.tensor(float("nan")), "cls": torch.tensor(0.5), "pose": torch.tensor(float("inf"))}
    with pytest.raises(FloatingPointError, match=r"pose inf.*panoptic/a/1, coco/2"):
        require_finite(losses, ["panoptic/a/1", "coco/2"])
    require_finite({"loss": torch.tensor(-3.0)}, ["a negative likelihood loss is no error"])


def test_training_on_one_scene_reproduces_it():
    """Two overlapping people: both found and no one else, placed within 2 px, with depths within 5 percent."""
    config = dataclasses.replace(TINY, score_threshold=0.3, oks_threshold=0.6)
    # Fixed norms: the coarsest maps of one image have 6 cells, too few for running statistics.
    step, batch = frozen_norms(made(config)), scene([[((35, 32), True), ((62, 36), True)]], size=10.0)
    batch.visible[:] = True
    totals, steps = step.counts(batch), 120
    optimizer = torch.optim.AdamW(step.parameters(), lr=4e-3)
    fade = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(1.0, (i + 1) / 10, 2 * (steps - i) / steps))
    for _ in range(steps):
        optimizer.zero_grad()
        step(batch, totals)["loss"].backward()
        nn.utils.clip_grad_norm_(step.parameters(), 10.0)
        optimizer.step()
        fade.step()
    output = step.model(step.model.normalize(batch.images, batch.sizes))
    (people,) = decode(output, config, batch.K, batch.distortion, sizes=batch.sizes)
    order = people.root_uv[:, 0].argsort()
    assert len(people) == 2
    assert (people.root_uv[order] - batch.root_uv[0]).norm(dim=-1).max() < 2
    assert (people.joints_uv[order] - batch.joints_uv[0]).norm(dim=-1).mean() < 2
    assert (people.joints_cam[order][..., 2] / batch.joints_depth[0] - 1).abs().max() < 0.05
