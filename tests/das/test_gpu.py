"""A GPU computes what the CPU computes, whose numbers the recorded vectors pin; half precision is safe there too."""

import copy

import pytest
import torch

from das.config import VARIANTS as NAMED
from das.decode import decode
from das.model import DAS, channels_last
from tests.das.scenes import MIXED, VARIANTS, frozen_norms, gradients_of, made, scene

pytestmark = pytest.mark.usefixtures("exact_gpu")


@pytest.fixture
def exact_gpu(gpu):
    """float32 products in float32: by default cuDNN rounds their factors to 10 bits (TF32)."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield gpu


def distance(found, wanted):
    """Relative distance of two tensors as vectors, on any device."""
    wanted = wanted.detach().double().cpu()
    return float((found.detach().double().cpu() - wanted).norm() / wanted.norm().clamp(min=1e-12))


@pytest.mark.parametrize("name", NAMED)
def test_every_named_variant_gives_the_cpus_maps(name):
    torch.manual_seed(0)
    model = DAS(NAMED[name]()).eval()
    images = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        expected = model(images, want_sigma=True)
        channels_last(model.cuda())
        found = model(images.cuda(), want_sigma=True)
    for ours, theirs in zip(found.levels, expected.levels, strict=True):
        for field in ("confidence", "centerness", "root", "joints", "raw_sigma"):
            assert distance(getattr(ours, field), getattr(theirs, field)) < 1e-3, field


@pytest.mark.parametrize("name", VARIANTS)
def test_a_training_step_gives_the_cpus_losses_and_gradients(name):
    step, batch = frozen_norms(made(VARIANTS[name])), scene(MIXED)
    twin, moved = copy.deepcopy(step).cuda(), batch.to("cuda")
    totals = twin.counts(moved)
    assert totals.cpu().equal(step.counts(batch))
    expected, found = step(batch, step.counts(batch)), twin(moved, totals)
    for key, value in expected.items():
        assert found[key].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-6), key
    expected["loss"].backward()
    found["loss"].backward()
    ours, theirs = gradients_of(twin), gradients_of(step)
    largest = max(float(g.norm()) for g in theirs.values())
    for key, value in theirs.items():
        gap = float((ours[key].cpu() - value).norm())
        assert gap < 1e-2 * float(value.norm()) + 1e-5 * largest, key


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", VARIANTS)
def test_half_precision_gives_finite_gradients_of_about_the_same_losses(name, half):
    step, batch = frozen_norms(made(VARIANTS[name])).cuda(), scene(MIXED).to("cuda")
    totals = step.counts(batch)
    full = step(batch, totals)["loss"].item()
    with torch.autocast("cuda", half):
        loss = step(batch, totals)["loss"]
    loss.backward()
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(full, rel=0.1)
    assert all(g.isfinite().all() for g in gradients_of(step).values())


def test_maps_on_a_gpu_are_decoded_to_the_cpus_people():
    step, batch = frozen_norms(made(VARIANTS["ours"])), scene(MIXED)
    with torch.no_grad():
        output = step.model(step.model.normalize(batch.images, batch.sizes))
        expected = decode(output, step.model.config, batch.K, batch.distortion, sizes=batch.sizes, score_threshold=0.0)
        step.cuda()
        output = step.model(step.model.normalize(batch.images.cuda(), batch.sizes.cuda()))
        found = decode(output, step.model.config, batch.K, batch.distortion, sizes=batch.sizes, score_threshold=0.0)
    assert sum(map(len, expected)) > 0
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours) == len(theirs)
        torch.testing.assert_close(ours.joints_cam.cpu(), theirs.joints_cam, rtol=1e-3, atol=1.0)
