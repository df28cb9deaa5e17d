import numpy as np
import pytest
import torch
from torch.nn import functional as F

from das.deform_conv import DeformConv, _read, deform_conv


def random_inputs(batch=2, channels=4, out=3, height=5, width=7, dtype=torch.float64, spread=2.0):
    torch.manual_seed(1)
    x = torch.randn(batch, channels, height, width, dtype=dtype)
    offset = spread * torch.randn(batch, 18, height, width, dtype=dtype)
    mask = torch.rand(batch, 9, height, width, dtype=dtype)
    weight = torch.randn(out, channels, 3, 3, dtype=dtype)
    bias = torch.randn(out, dtype=dtype)
    return x, offset, mask, weight, bias


def by_hand(x, offset, mask, weight, bias):
    """The definition, one output value after the other."""

    def pixel(image, channel, row, column):
        inside = 0 <= row < x.shape[2] and 0 <= column < x.shape[3]
        return x[image, channel, row, column] if inside else 0.0

    out = np.zeros((x.shape[0], weight.shape[0], *x.shape[2:]))
    for b, d, i, j in np.ndindex(*out.shape):
        value = bias[d]
        for k in range(9):
            y = i + k // 3 - 1 + offset[b, 2 * k, i, j]
            z = j + k % 3 - 1 + offset[b, 2 * k + 1, i, j]
            y0, z0 = int(np.floor(y)), int(np.floor(z))
            fy, fz = y - y0, z - z0
            for c in range(x.shape[1]):
                read = (
                    (1 - fy) * (1 - fz) * pixel(b, c, y0, z0)
                    + (1 - fy) * fz * pixel(b, c, y0, z0 + 1)
                    + fy * (1 - fz) * pixel(b, c, y0 + 1, z0)
                    + fy * fz * pixel(b, c, y0 + 1, z0 + 1)
                )
                value += weight[d, c, k // 3, k % 3] * mask[b, k, i, j] * read
        out[b, d, i, j] = value
    return out


def test_equals_the_definition():
    inputs = random_inputs()
    want = by_hand(*(t.numpy() for t in inputs))
    np.testing.assert_allclose(deform_conv(*inputs).numpy(), want, rtol=1e-10, atol=1e-10)


def test_without_displacement_and_mask_it_is_a_plain_convolution():
    x, offset, mask, weight, bias = random_inputs()
    got = deform_conv(x, torch.zeros_like(offset), torch.ones_like(mask), weight, bias)
    torch.testing.assert_close(got, F.conv2d(x, weight, bias, padding=1))


def test_whole_cell_displacement_shifts_the_input():
    x, offset, mask, weight, bias = random_inputs()
    offset = torch.zeros_like(offset)
    offset[:, 1::2] = 1  # dx of every tap
    shifted = F.pad(x, (0, 1))[..., 1:]
    got = deform_conv(x, offset, torch.ones_like(mask), weight, bias)
    want = F.conv2d(shifted, weight, bias, padding=1)
    # At the left edge the shifted taps see column 0, which a shifted copy of the input has lost.
    torch.testing.assert_close(got[..., 1:], want[..., 1:])


def test_gradients_are_exact():
    inputs = [t.requires_grad_() for t in random_inputs(1, 2, 2, 3, 4)]
    assert torch.autograd.gradcheck(deform_conv, inputs)


def test_gradients_are_those_without_checkpointing(monkeypatch):
    inputs = [t.requires_grad_() for t in random_inputs()]
    with_checkpoint = torch.autograd.grad(deform_conv(*inputs).square().sum(), inputs)
    monkeypatch.setattr("das.deform_conv.checkpoint", lambda f, *a, **_: f(*a))
    plain = torch.autograd.grad(deform_conv(*inputs).square().sum(), inputs)
    for a, b in zip(with_checkpoint, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("taps", [1, 2, 4])
def test_how_many_taps_are_read_at_once_changes_nothing(monkeypatch, taps):
    inputs = [t.requires_grad_() for t in random_inputs()]
    expected = deform_conv(*inputs)
    reads = []

    def read(x, grid, mask, weight):
        reads.append(grid.shape[1])
        return _read(x, grid, mask, weight)

    monkeypatch.setattr("das.deform_conv._read", read)
    monkeypatch.setattr("das.deform_conv.AT_ONCE_CPU", taps * inputs[0].numel())
    found = deform_conv(*inputs)
    assert max(reads) == taps and sum(reads) == 9
    torch.testing.assert_close(found, expected)
    for a, b in zip(torch.autograd.grad(found.sum(), inputs), torch.autograd.grad(expected.sum(), inputs), strict=True):
        torch.testing.assert_close(a, b)


def kept_for_backward(inputs):
    """Bytes that autograd keeps beyond the inputs themselves."""
    kept = {}
    own = {t.untyped_storage().data_ptr() for t in inputs}

    def pack(t):
        if t.untyped_storage().data_ptr() not in own:
            kept[t.untyped_storage().data_ptr()] = t  # held, so that no address is used twice
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        deform_conv(*inputs)
    return sum(t.untyped_storage().nbytes() for t in kept.values())


def test_memory_kept_for_the_backward_pass_is_bounded(monkeypatch):
    inputs = [t.requires_grad_() for t in random_inputs(1, 32, 32, 16, 16)]
    x_bytes = inputs[0].untyped_storage().nbytes()
    assert kept_for_backward(inputs) < x_bytes
    monkeypatch.setattr("das.deform_conv.checkpoint", lambda f, *a, **_: f(*a))
    assert kept_for_backward(inputs) > 9 * x_bytes  # the column matrix that is avoided


@pytest.mark.parametrize("grad", [False, True])
def test_layer_exports(grad):
    torch.manual_seed(0)
    layer = DeformConv(8, 4)
    torch.nn.init.normal_(layer.conv_offset.weight, std=0.3)
    x = torch.randn(2, 8, 6, 9)
    with torch.set_grad_enabled(grad):
        program = torch.export.export(layer.eval(), (x,))
    torch.testing.assert_close(program.module()(x), layer(x))


def test_autocast_reads_in_float32():
    """A place in bfloat16 would be off by whole cells at column 300."""
    x = torch.zeros(1, 1, 3, 320)
    x[..., 300] = 1
    offset = torch.zeros(1, 18, 3, 320)
    offset[:, 9] = 0.5  # dx of the middle tap
    weight = torch.zeros(1, 1, 3, 3)
    weight[..., 1, 1] = 1
    with torch.autocast("cpu", torch.bfloat16):
        out = deform_conv(x, offset, torch.ones(1, 9, 3, 320), weight)
    assert out[0, 0, 1, 298:302].tolist() == [0, 0.5, 0.5, 0]


def test_wrong_kernel_size_is_refused():
    x, offset, mask, weight, bias = random_inputs()
    with pytest.raises(ValueError, match="weight has shape"):
        deform_conv(x, offset, mask, weight[..., :1], bias)
