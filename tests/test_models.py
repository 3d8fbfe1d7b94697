"""models/: sizes, shake coefficients forward and backward, evaluation, the shifted skip path."""

import pytest
import torch
from torch import nn

import models
from common.command_line import UserError
from models.shake_resnet import Block, Shake, Skip, draw_coefficients, shake_resnet

NAMES = {
    "small_cnn": "conv1.weight norm1.weight norm1.bias conv2.weight norm2.weight norm2.bias "
    "conv3.weight norm3.weight norm3.bias hidden.weight hidden.bias linear.weight linear.bias",
    "shake_resnet": "blocks.1.branch1.1.weight blocks.1.branch1.2.bias blocks.1.branch2.4.weight "
    "blocks.1.branch2.5.running_var blocks.1.skip.conv1.weight blocks.1.skip.conv2.weight "
    "blocks.1.skip.norm.bias stem.0.weight stem.1.running_mean linear.weight linear.bias",
}


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(("width", "count"), [(32, 2_923_162), (64, 11_653_978), (96, 26_192_922)])
def test_parameter_counts_are_the_published_ones(width, count):
    with torch.device("meta"):
        assert parameters(shake_resnet(width=width)) == count


def test_depth_counts_the_layers_on_one_path():
    for depth in (8, 14, 26):
        model = shake_resnet(depth, 8)
        on_path = [m for n, m in model.named_modules() if "branch2" not in n and "skip" not in n]
        assert sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in on_path) == depth


@pytest.mark.parametrize("name", models.MODELS)
def test_every_network_of_the_dict_is_built_and_has_a_name(name):
    model = models.MODELS[name](7, (8, 12), 8, 4)
    for size in ((8, 8), (12, 32), (64, 64)):
        assert model(torch.randn(3, 3, *size)).shape == (3, 7)
    assert models.network_title(name, 8, 4) == {"shake_resnet": "shake8-2x4d"}.get(name, name)
    # Those of earlier checkpoints.
    assert set(NAMES[name].split()) <= set(model.state_dict())
    assert len(model.state_dict()) == {"small_cnn": 22, "shake_resnet": 101}[name]


def test_impossible_sizes_are_refused():
    models.check_size(26, 32)
    for depth in (25, 2, 0, 1208):
        with pytest.raises(UserError, match=f"--depth {depth} is not 6n"):
            models.check_size(depth, 32)
    for width in (30, 0, 1028):
        with pytest.raises(UserError, match=f"--width {width} is not a multiple of 4"):
            models.check_size(26, width)
    for name, size in (("small_cnn", (7, 8)), ("shake_resnet", (10, 8)), ("shake_resnet", (8, 4))):
        with pytest.raises(UserError, match=f"{size[1]}x{size[0]} pixels; --model {name} needs"):
            models.MODELS[name](7, size, 8, 4)


def test_coefficients_forward_and_backward():
    x1, x2 = torch.randn(2, 5, 3, 4, 4, dtype=torch.float64).requires_grad_()
    alpha, beta = torch.rand(2, 5, 1, 1, 1, dtype=torch.float64)
    out = Shake.apply(x1, x2, alpha, beta)
    gradient = torch.randn_like(out)
    g1, g2 = torch.autograd.grad(out, (x1, x2), gradient)
    for i in range(5):
        a, b = alpha[i].item(), beta[i].item()
        torch.testing.assert_close(out[i], a * x1[i] + (1 - a) * x2[i])
        torch.testing.assert_close(g1[i], b * gradient[i])
        torch.testing.assert_close(g2[i], (1 - b) * gradient[i])


def test_coefficients_are_uniform_and_independent_for_each_image():
    alpha, beta = draw_coefficients(1, torch.zeros(4000, 4, 2, 2))[0]
    assert alpha.shape == beta.shape == (4000, 1, 1, 1)  # the same at all pixels of an image
    for draws in (alpha, beta):
        assert 0 <= draws.min() < 0.05 and 0.95 < draws.max() <= 1
        assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / len(draws)) ** 0.5
        assert abs(draws.var() - 1 / 12) < 0.01
    assert abs(torch.corrcoef(torch.stack((alpha.flatten(), beta.flatten())))[0, 1]) < 0.08


def test_blocks_draw_independently_what_a_generator_draws_in_their_order():
    model, x = shake_resnet(14, 4).train(), torch.zeros(50, 16, 8, 8)
    given = []
    for block in model.blocks:
        block.register_forward_hook(lambda module, inputs, output: given.append(inputs[1]))
    torch.manual_seed(1)
    model(torch.randn(50, 3, 8, 8, generator=torch.Generator()))
    torch.manual_seed(1)
    for of_block in given:
        assert torch.equal(of_block, torch.rand(2, 50, 1, 1, 1))
    assert len(given) == 6
    assert draw_coefficients(3, x.double()).dtype == torch.float64
    # Under autocast they are drawn with all digits and rounded.
    assert draw_coefficients(3, x.bfloat16()).dtype == torch.bfloat16
    model.eval()(torch.randn(2, 3, 8, 8))
    assert given[6:] == [None] * 6


def test_evaluation_is_the_mean_of_the_branches():
    block = Block(8, 16, 2).eval()
    x = torch.randn(3, 8, 8, 8)
    expected = block.skip(x) + (block.branch1(x) + block.branch2(x)) / 2
    torch.testing.assert_close(block(x), expected)
    model = shake_resnet(8, 4).eval()
    images = torch.randn(3, 3, 8, 8)
    assert torch.equal(model(images), model(images))


def test_skip_is_two_paths_one_shifted_by_a_pixel():
    skip = Skip(2, 4, stride=2).eval()
    x = torch.randn(1, 2, 6, 6)
    rectified = x.clamp(min=0)
    expected = torch.zeros(1, 4, 3, 3)
    for row in range(3):
        for column in range(3):
            for path, (conv, shift) in enumerate(((skip.conv1, 0), (skip.conv2, 1))):
                pixel = rectified[0, :, 2 * row + shift, 2 * column + shift]
                expected[0, 2 * path : 2 * path + 2, row, column] = conv.weight[:, :, 0, 0] @ pixel
    torch.testing.assert_close(skip(x), expected / (1 + skip.norm.eps) ** 0.5)
    assert any(isinstance(module, nn.BatchNorm2d) for module in skip.modules())


@pytest.mark.parametrize("name", ["small_cnn", "shake_resnet"])
def test_head_computes_in_float32_under_autocast(name):
    torch.manual_seed(0)
    model = models.MODELS[name](7, (12, 12), 8, 4).eval()  # no shake
    images = torch.randn(16, 3, 12, 12)
    features = []
    model.linear.register_forward_hook(lambda module, inputs, output: features.append(inputs[0]))
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(images)
    assert logits.dtype == features[0].dtype == torch.float32
    for values in (logits, features[0]):  # averages and logits have more digits than bfloat16
        assert (values != values.bfloat16()).float().mean() > 0.5
    expected = features[0].double() @ model.linear.weight.double().T + model.linear.bias.double()
    torch.testing.assert_close(logits.double(), expected, rtol=1e-5, atol=1e-6)
    # The layers before it do compute in bfloat16.
    difference = (logits - model(images)).abs().max()
    assert 1e-4 < difference < 0.2
    assert model.double()(images.double()).dtype == torch.float64
