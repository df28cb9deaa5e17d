"""Losses of whole predictions, against the recorded release; and what the variants supervise."""

import dataclasses

import numpy as np
import pytest
import torch

from das.assign import POSITIVES, SUPERVISED_JOINTS, assign
from das.config import DASConfig, paper_resnet50, release_panoptic, small
from das.criterion import Criterion
from das.head import LevelOutput
from das.loss import rle_release_loss
from das.model import HeadOutput
from das.recursive_update import UpdateState
from tests.das.release_vectors import batch_of, head_output, load_flows, numbered, scatter
from tests.das.scenes import part_of

HEIGHT, WIDTH = 256, 320
VARIANTS = {
    "paper": paper_resnet50(),
    "small": small(),
    "release": release_panoptic(),
    "l1 without update": dataclasses.replace(DASConfig(), update="none", pose_likelihood="l1"),
    "box": dataclasses.replace(small(), center="box", offset_origin="pixel"),
    "initial too": dataclasses.replace(small(), supervise_initial=True),
}


def release_case(golden, case):
    """Criterion with the recorded flows, batch, leaf maps per level (cls, centerness, pose, updated)."""
    vectors = np.load(golden / "model" / "B_loss.npz")
    both = "noprev" not in case  # there the release supervises the updated prediction only
    criterion = Criterion(dataclasses.replace(release_panoptic(), supervise_initial=both))
    load_flows(criterion, golden, both)
    height, width = (8 * n for n in vectors[f"{case}/cls0"].shape[2:])
    batch = batch_of(numbered(vectors, f"{case}/gt"), height, width)
    root_z, root_sigma = 3 + 2 * 3 + 2, 48 + 2 * 3 + 2
    leaves = []
    for level, cls in enumerate(numbered(vectors, f"{case}/cls")):
        b, _, h, w = cls.shape
        index = vectors[f"{case}/pos{level}"]
        pose = scatter(vectors[f"{case}/pose_pos{level}"], index, (b, 93, h, w))
        assert (pose[:, root_z] == 0).all()
        pose[:, root_sigma] = 1
        updated = scatter(vectors[f"{case}/aux_pos{level}"], index, (b, 45, h, w))
        centerness = torch.from_numpy(vectors[f"{case}/cen{level}"])
        leaves.append([t.requires_grad_() for t in (torch.from_numpy(cls), centerness, pose, updated)])
    return vectors, criterion, batch, leaves


def cases(golden):
    with np.load(golden / "model" / "B_loss.npz") as vectors:
        return sorted({k.split("/")[0] for k in vectors.files})


@pytest.mark.golden
def test_losses_and_gradients_equal_the_release(golden):
    for case in cases(golden):
        vectors, criterion, batch, leaves = release_case(golden, case)
        output = head_output(*zip(*leaves, strict=True))
        losses = criterion.losses(criterion(output, batch), criterion.counts(batch))
        pose = criterion.config.pose_weight * losses["pose"]
        ours = torch.stack([losses["cls"], losses["root"], pose, losses["centerness"]])
        np.testing.assert_allclose(ours.detach(), vectors[f"{case}/losses"], rtol=1e-4, atol=1e-6, err_msg=case)
        torch.testing.assert_close(losses["loss"], ours.sum())

        if f"{case}/flowgrad_l2" in vectors:
            flows = [criterion.flow("initial" if "noprev" not in case else "updated", 3)]
            parameters = [p for flow in flows for p in flow.parameters()]
            # noprev leaves the second recorded flow without use.
            second = list(criterion.flow("updated", 2).parameters()) if "noprev" not in case else []
            gradients = torch.autograd.grad(pose, [*parameters, *second], retain_graph=True)
            norms = np.array([g.norm() for g in gradients] + [0.0] * (len(parameters) - len(second)))
            np.testing.assert_allclose(norms, vectors[f"{case}/flowgrad_l2"], rtol=1e-3, atol=1e-4, err_msg=case)

        losses["loss"].backward()
        for level, maps in enumerate(leaves):
            index = vectors[f"{case}/pos{level}"]
            dcls, dcenterness, dpose, dupdated = (torch.zeros_like(m) if m.grad is None else m.grad for m in maps)
            recorded = (
                (dcls, torch.from_numpy(vectors[f"{case}/dcls{level}"])),
                (dcenterness, torch.from_numpy(vectors[f"{case}/dcen{level}"])),
                (dpose, scatter(vectors[f"{case}/dpose_pos{level}"], index, dpose.shape)),
                (dupdated, scatter(vectors[f"{case}/daux_pos{level}"], index, dupdated.shape)),
            )
            for mine, theirs in recorded:
                torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4, msg=lambda m, c=case: f"{c}: {m}")


@pytest.mark.golden
def test_the_likelihood_receives_what_the_release_gives_it(golden):
    received = []

    def spy(*args):
        received.append(args)
        return rle_release_loss(*args)

    found = 0
    for case in cases(golden):
        vectors, criterion, batch, leaves = release_case(golden, case)
        if f"{case}/captured_sigma" not in vectors:
            continue
        found, received[:] = found + 1, []
        criterion.pose_loss = dataclasses.replace(criterion.pose_loss, loss=spy)
        with torch.no_grad():
            criterion(head_output(*zip(*leaves, strict=True)), batch)
        offsets, target, sigma = (torch.cat([call[i] for call in received], dim=1) for i in range(3))
        for ours, name in ((offsets, "uvd"), (target, "gt_uvd"), (sigma, "sigma")):
            recorded = torch.from_numpy(vectors[f"{case}/captured_{name}"])
            torch.testing.assert_close(ours, recorded, rtol=1e-4, atol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
        # Their residual term: log sigma - joint log density, the latter once per dimension.
        densities = []
        for o, t, s, _, has_z, of_both in received:
            x = (o - t) / s
            with torch.no_grad():
                plane, space = of_both(x.flatten(0, 1))
            densities.append(torch.where(has_z, space.view(has_z.shape), plane.view(has_z.shape)))
        term = sigma.log() - torch.cat(densities, dim=1)[..., None]
        torch.testing.assert_close(term, torch.from_numpy(vectors[f"{case}/captured_nf_loss"]), rtol=1e-4, atol=1e-3)
    assert found


def random_scene(config, seed=0, people=3, images=2):
    """People all over two images, the last one of each annotated in 2D; and random predictions of a batch."""
    g = torch.Generator().manual_seed(seed)
    poses = torch.zeros(images, people, 63)
    roots = torch.rand(images, people, 2, generator=g) * torch.tensor([200.0, 150.0]) + 50
    uv = roots[:, :, None] + torch.randn(images, people, 15, 2, generator=g) * 20
    uv[:, :, 2] = roots
    poses[..., :2], poses[..., 2] = roots, 0.2
    uvd = torch.cat([uv, torch.randn(images, people, 15, 1, generator=g) * 30], dim=-1)
    uvd[:, :, 2, 2] = 0
    uvd[:, -1, :, 2] = 0
    poses[..., 3:48] = uvd.flatten(2)
    poses[..., 48:] = (torch.rand(images, people, 15, generator=g) < 0.8).float()
    batch = batch_of(list(poses.numpy()), HEIGHT, WIDTH)
    levels, updates = [], []
    for stride in config.strides:
        h, w = HEIGHT // stride, WIDTH // stride

        def maps(*channels, h=h, w=w):
            return torch.randn(images, *channels, h, w, generator=g, requires_grad=True)

        levels.append(LevelOutput(maps(1), maps(1), maps(3), maps(15, 3), maps(15, 3)))
        updates.append(UpdateState("none", maps(15, 3)))
    return batch, HeadOutput(levels, updates)


def losses_of(criterion, output, batch):
    return criterion.losses(criterion(output, batch), criterion.counts(batch))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_every_variant_gives_finite_losses_that_add_up(config):
    batch, output = random_scene(config)
    criterion = Criterion(config)
    losses = losses_of(criterion, output, batch)
    assert set(losses) == {"loss", "cls", "centerness", "root", "pose", "nll_sigma", "nll_prior", "nll_flow"}
    assert all(v.isfinite() and v.shape == () for v in losses.values())
    weights = {"cls": 1, "centerness": config.centerness_weight, "root": config.root_weight, "pose": config.pose_weight}
    torch.testing.assert_close(losses["loss"], sum(w * losses[k] for k, w in weights.items()))
    if config.pose_likelihood != "l1":
        torch.testing.assert_close(losses["pose"], losses["nll_sigma"] + losses["nll_prior"] + losses["nll_flow"])
    losses["loss"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in criterion.flows.parameters() if p.ndim == 2)


def test_only_the_flows_that_are_trained_exist():
    names = {name: sorted(Criterion(config).flows) for name, config in VARIANTS.items()}
    all_four = ["initial_2d", "initial_3d", "updated_2d", "updated_3d"]
    assert names["release"] == names["initial too"] == all_four
    assert names["paper"] == names["small"] == ["updated_2d", "updated_3d"]
    assert names["l1 without update"] == []
    assert sorted(Criterion(dataclasses.replace(small(), update_layers=0, update="none")).flows) == all_four[:2]


def test_paper_flows_start_as_standard_normals_and_the_release_ones_do_not():
    x = torch.randn(20, 3)
    normal = torch.distributions.Normal(0, 1).log_prob(x).sum(-1)
    with torch.no_grad():
        near = (Criterion(small()).flow("updated", 3).log_prob(x) - normal).abs().max()
        far = (Criterion(release_panoptic()).flow("updated", 3).log_prob(x) - normal).abs().max()
    assert near < 0.01 < 0.05 < far


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_perfect_predictions_are_best(config):
    """Away from the targets in any direction the root and pose terms grow."""
    batch, output = random_scene(config)
    criterion = Criterion(config)
    for module in criterion.modules():
        if isinstance(module, torch.nn.Linear):  # exact standard normals
            torch.nn.init.zeros_(module.weight)
            torch.nn.init.zeros_(module.bias)
    positives = assign(batch, config)
    targets = criterion.targets(batch)
    with torch.no_grad():
        end = 0
        for level, state, p in zip(output.levels, output.updates, positives, strict=True):
            start, end = end, end + len(p.person)
            image, y, x = p.cells
            level.root[image, :, y, x] = targets.root[start:end]
            level.joints[image, :, :, y, x] = targets.joints[start:end]
            state.offsets[image, :, :, y, x] = targets.joints[start:end]
        best = losses_of(criterion, output, batch)
        assert best["root"] == 0
        if config.pose_likelihood == "l1":
            assert best["pose"] == 0
        for level, state in zip(output.levels, output.updates, strict=True):
            level.root.add_(0.3)
            level.joints.add_(-0.3)
            state.offsets.add_(-0.3)
        worse = losses_of(criterion, output, batch)
    assert worse["root"] > best["root"] and worse["pose"] > best["pose"]
    if config.pose_likelihood == "rle":
        torch.testing.assert_close(worse["nll_sigma"], best["nll_sigma"])


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_people_annotated_in_2d_never_teach_depth(config):
    batch, output = random_scene(config)
    batch.has_depth[:] = False
    losses_of(Criterion(config), output, batch)["loss"].backward()
    for level, state in zip(output.levels, output.updates, strict=True):
        gradients = [level.root.grad[:, 2]]
        gradients += [m.grad[:, :, 2] for m in (level.joints, level.raw_sigma, state.offsets) if m.grad is not None]
        assert len(gradients) >= 2 and not any(g.any() for g in gradients)


def test_measured_from_the_root_its_own_joint_is_not_supervised():
    for config in (small(), dataclasses.replace(small(), offset_origin="pixel")):
        batch, output = random_scene(config)
        losses_of(Criterion(config), output, batch)["loss"].backward()
        root = config.skeleton.root_index
        gradient = torch.cat([u.offsets.grad[:, root].flatten(2) for u in output.updates], -1)
        assert (gradient[:, 2] == 0).all()
        assert (gradient[:, :2] != 0).any() == (config.offset_origin == "pixel")


def test_without_any_positive_background_is_learned_except_by_the_release():
    for config in (small(), release_panoptic()):
        batch, output = random_scene(config)
        batch.person_mask[:] = False
        criterion = Criterion(config)
        counts = criterion.counts(batch)
        assert counts[POSITIVES] == 0 and counts[SUPERVISED_JOINTS] == 0
        losses = losses_of(criterion, output, batch)
        assert (losses["cls"] > 0) == config.background_without_people
        assert all(losses[k] == 0 for k in ("centerness", "root", "pose"))


@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS)
def test_masked_areas_are_neither_person_nor_background(config):
    """Of all confidences, those inside a box and of no positive have no gradient, and only the cls loss changes."""
    batch, output = random_scene(config)
    plain = losses_of(Criterion(config), output, batch)
    positives = assign(batch, config)
    boxes = torch.tensor([[[20.0, 20, 180, 140], [150, 100, 260, 200]], [[torch.inf] * 2 + [-torch.inf] * 2] * 2])
    masked = dataclasses.replace(batch, masked=boxes)
    losses = losses_of(Criterion(config), output, masked)
    losses["cls"].backward()
    found = 0
    for stride, level, positive in zip(config.strides, output.levels, positives, strict=True):
        y, x = torch.meshgrid(*(torch.arange(n) for n in level.confidence.shape[2:]), indexing="ij")
        u, v = stride * x + stride // 2, stride * y + stride // 2
        inside = (u >= 20) & (u <= 180) & (v >= 20) & (v <= 140) | (u >= 150) & (u <= 260) & (v >= 100) & (v <= 200)
        wanted = torch.stack([~inside, torch.ones_like(inside)])
        found += int(wanted[tuple(positive.cells)].logical_not().sum())
        wanted[tuple(positive.cells)] = True
        assert ((level.confidence.grad[:, 0] != 0) == wanted).all()
    assert found, "some positives must lie inside the boxes"
    assert losses["cls"] < plain["cls"] and all(losses[k] == plain[k] for k in ("centerness", "root"))


def test_counts_are_those_of_the_losses():
    for config in VARIANTS.values():
        batch, _ = random_scene(config)
        criterion = Criterion(config)
        positives, images, with_depth, joints = criterion.counts(batch).tolist()
        targets = criterion.targets(batch)
        assert (positives, images, with_depth) == (len(targets.root), 2, targets.has_depth.sum())
        assert joints == targets.supervised.sum() * len(criterion.predictions)
        assert 0 < with_depth < positives


def test_parts_of_a_batch_add_up_to_the_whole():
    for config in VARIANTS.values():
        batch, output = random_scene(config)
        criterion = Criterion(config)
        totals = criterion.counts(batch)
        whole = criterion.losses(criterion(output, batch), totals)
        parts = []
        for i in range(2):
            part = part_of(batch, i, i + 1)
            names = [f.name for f in dataclasses.fields(LevelOutput)]
            levels = [LevelOutput(*(getattr(v, name)[i : i + 1] for name in names)) for v in output.levels]
            updates = [UpdateState("none", u.offsets[i : i + 1]) for u in output.updates]
            parts.append(criterion.losses(criterion(HeadOutput(levels, updates), part), totals))
        for name, value in whole.items():
            torch.testing.assert_close(parts[0][name] + parts[1][name], value)


def test_sigma_that_was_not_asked_for_is_a_clear_error():
    batch, output = random_scene(small())
    for level in output.levels:
        level.raw_sigma = None
    with pytest.raises(AssertionError, match="want_sigma"):
        losses_of(Criterion(small()), output, batch)


def test_under_autocast_losses_are_float32_and_the_same():
    config = small()
    batch, output = random_scene(config)
    criterion = Criterion(config)
    plain = losses_of(criterion, output, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = losses_of(criterion, output, batch)
    for name, value in plain.items():
        assert mixed[name].dtype == torch.float32
        torch.testing.assert_close(mixed[name], value)
