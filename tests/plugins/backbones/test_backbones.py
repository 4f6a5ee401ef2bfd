"""Backbones: the published facts, features against whole forward passes, sizes, and messages."""

import csv
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench_plugins.backbones import deit, resnet, timm_any

PUBLISHED = {
    "deit_s16": deit.DeitS16,
    "deit_s8": deit.DeitS8,
    "vit_b16": deit.VitB16,
    "vit_b8": deit.VitB8,
    "resnet50": resnet.ResNet50,
    "resnet50w2": resnet.ResNet50w2,
    "resnet50w4": resnet.ResNet50w4,
    "resnet50w5": resnet.ResNet50w5,
    "resnet200w2": resnet.ResNet200w2,
}
TINY = {"patch_px": 4, "dim": 32, "depth": 5, "heads": 2}


def published_rows():
    path = Path(__file__).parents[3] / "benchmarks" / "published" / "architectures.csv"
    with path.open(newline="") as file:
        return [row for row in csv.DictReader(file) if row["arch"] in PUBLISHED]


def tiny_vit(arch=deit.DeitS16, image_px=16, drop_path=0.0, **more):
    torch.manual_seed(0)
    return arch(arch.Config(**{**TINY, **more}), image_px=image_px, drop_path=drop_path)


@pytest.mark.parametrize("row", published_rows(), ids=lambda row: row["arch"])
def test_parameters_and_shape_are_the_published_ones(row):
    arch = PUBLISHED[row["arch"]]
    with torch.device("meta"):
        backbone = arch(arch.Config(), image_px=224)
    assert sum(p.numel() for p in backbone.parameters()) // 10**6 == int(row["params_m"])
    if row["dim"]:
        assert backbone.feature_dim == int(row["dim"])
    if row["blocks"]:
        attention = backbone.network.blocks[0].attn
        assert (len(backbone.network.blocks), attention.num_heads) == (int(row["blocks"]), int(row["heads"]))
        assert backbone.network.pos_embed.shape[1] == int(row["tokens_at_224"])


def test_deit_ti_and_resnet18():
    tiny = deit.DeitTi16(deit.DeitTi16.Config(), image_px=224)
    assert (tiny.feature_dim, tiny.network.blocks[0].attn.num_heads) == (192, 3)
    assert sum(p.numel() for p in tiny.parameters()) == 5_524_416  # DeiT, table 1: 5 M without the classifier
    small = resnet.ResNet18(resnet.ResNet18.Config(), image_px=224)
    assert sum(p.numel() for p in small.parameters()) == 11_176_512  # torchvision's 11,689,512 without its classifier


def test_the_cls_token_is_that_of_the_whole_forward_pass_with_its_gradient():
    vit = tiny_vit().double()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    direction = torch.randn(2, 32, dtype=torch.float64)
    whole = vit.network(images)
    (whole * direction).sum().backward()
    expected = {name: p.grad.clone() for name, p in vit.named_parameters()}
    vit.zero_grad()
    features = vit(images)
    (features * direction).sum().backward()
    torch.testing.assert_close(features, whole, atol=1e-12, rtol=0)
    for name, parameter in vit.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-10, rtol=0)


def test_drop_path_draws_as_the_whole_forward_pass():
    vit = tiny_vit(drop_path=0.5).train()
    images = torch.randn(8, 3, 16, 16)
    torch.manual_seed(1)
    whole = vit.network(images)
    torch.manual_seed(1)
    torch.testing.assert_close(vit(images), whole, atol=1e-5, rtol=1e-5)


def test_attention_is_the_softmax_of_scaled_products():
    """Written per image, head and token, from the last block's weights."""
    vit = tiny_vit().double().eval()
    images = torch.randn(2, 3, 16, 24, dtype=torch.float64)
    with torch.no_grad():
        found = vit.attention(images)
        inputs = []
        vit.network.blocks[-1].register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
        vit.network(images)
        block = vit.network.blocks[-1]
        qkv = functional.linear(block.norm1(inputs[0]), block.attn.qkv.weight, block.attn.qkv.bias)
    assert found.shape == (2, 2, 4, 6)
    for image in range(2):
        for head in range(2):
            query = qkv[image, 0, 16 * head : 16 * head + 16]
            keys = qkv[image, :, 32 + 16 * head : 32 + 16 * head + 16]
            weights = [torch.exp(query @ key / 16**0.5).item() for key in keys]
            expected = [weight / sum(weights) for weight in weights[1:]]
            assert found[image, head].flatten().tolist() == pytest.approx(expected, abs=1e-12)
    assert (found.sum(dim=(2, 3)) < 1).all()


def test_probe_features_are_cls_tokens_of_the_last_four_blocks():
    vit = tiny_vit().eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        expected = vit.network.get_intermediate_layers(images, 4, return_prefix_tokens=True, norm=True)
        found = vit.probe_features(images)
        assert torch.allclose(vit(images), found[:, -32:], atol=1e-5)
    torch.testing.assert_close(found, torch.cat([prefix[:, 0] for _, prefix in expected], dim=1), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("arch", "words"),
    [
        (deit.DeitTi16, "CLS tokens of the last 4 blocks"),
        (deit.VitB16, "CLS token of the last block and the mean patch token"),
        (resnet.ResNet18, "the features that k-NN reads"),
    ],
)
def test_records_name_the_features_of_the_probe(arch: type[Backbone], words: str) -> None:
    config = arch.Config.model_validate({"dim": 32, "depth": 4, "heads": 2} if arch is not resnet.ResNet18 else {})
    assert arch(config, image_px=32).probe_reads == words


def test_probe_features_of_vit_b_are_cls_and_mean_patch():
    vit = tiny_vit(deit.VitB16).eval()
    images = torch.randn(3, 3, 16, 16)
    with torch.no_grad():
        tokens = vit.network.forward_features(images)
        found = vit.probe_features(images)
    expected = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1)], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_patch_tokens_lie_as_in_the_image():
    vit = tiny_vit().eval()
    images = torch.randn(2, 3, 12, 24)
    with torch.no_grad():
        found, tokens = vit.patch_tokens(images), vit.network.forward_features(images)
    assert found.shape == (2, 32, 3, 6)
    torch.testing.assert_close(found[1, :, 2, 1], tokens[1, 1 + 2 * 6 + 1])


def test_networks_can_be_small():
    vit = tiny_vit(dim=48, depth=2, heads=None)
    assert (vit.feature_dim, len(vit.network.blocks), vit.network.blocks[0].attn.num_heads) == (48, 2, 1)
    assert vit.probe_features(torch.randn(1, 3, 16, 16)).shape == (1, 96)
    narrow = resnet.ResNet18(resnet.ResNetSettings(width=0.25), image_px=32)
    assert narrow.feature_dim == 128
    assert narrow(torch.randn(2, 3, 32, 32)).shape == (2, 128)


@pytest.mark.parametrize(("stem", "image_px", "small"), [("auto", 64, True), ("auto", 96, False), ("cifar", 96, True)])
def test_stem_of_a_resnet(stem, image_px, small):
    network = resnet.ResNet18(resnet.ResNetSettings(stem=stem, width=0.125), image_px=image_px).network
    before_pool = network.maxpool(network.conv1(torch.randn(1, 3, image_px, image_px)))
    assert before_pool.shape[-1] == (image_px if small else image_px // 4)


def test_a_resnet_is_torchvisions_with_its_weights():
    """The same features from the same weights: stride, padding and pooling are torchvision's (as in DINO's code)."""
    import torchvision

    torch.manual_seed(0)
    theirs = torchvision.models.resnet18(num_classes=10).eval()
    theirs.fc = torch.nn.Identity()
    ours = resnet.ResNet18(resnet.ResNetSettings(), image_px=96).eval()
    ours.network.load_state_dict(theirs.state_dict())
    images = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


def test_patches_that_do_not_fit_are_answered_with_sizes():
    with pytest.raises(UserError, match=r"224 px.*patches of 5 px.*220 or 225"):
        deit.DeitS5(deit.DeitS5.Config(), image_px=224)
    with pytest.raises(UserError, match="3 heads"):
        tiny_vit(dim=32, heads=3)
    with torch.device("meta"):
        assert deit.DeitS5(deit.DeitS5.Config(), image_px=225).network.pos_embed.shape[1] == 45 * 45 + 1


@pytest.mark.parametrize(
    ("name", "image_px", "patch_px"),
    [("vit_tiny_patch16_224", 32, 16), ("resnet10t", 32, None), ("convnext_atto", 32, None), ("levit_128s", 224, None)],
)
def test_any_network_of_timms(name, image_px, patch_px):
    config = timm_any.TimmSettings(name=name)
    backbone = timm_any.TimmAny(config, image_px=image_px, drop_path=0.1).eval()
    images = torch.randn(2, 3, image_px, image_px)
    with torch.no_grad():
        features = backbone(images)
        assert features.shape == (2, backbone.feature_dim)
        assert backbone.patch_px == timm_any.TimmAny.patch_px_for(config, image_px) == patch_px
        if "attention" in backbone.supports:
            torch.testing.assert_close(features, backbone.network(images), atol=1e-5, rtol=1e-5)
            assert backbone.attention(images).shape == (2, 3, 2, 2)
            assert backbone.patch_tokens(images).shape == (2, 192, 2, 2)


def test_an_unknown_timm_name_is_answered_with_the_nearest():
    with pytest.raises(UserError, match=r"resnet5000.*Did you mean 'resnet50"):
        timm_any.TimmAny(timm_any.TimmSettings(name="resnet5000"), image_px=32)


def test_stochastic_depth_keeps_the_gradients_of_the_whole_forward_pass():
    """Some samples dropped, none dropped and all dropped: rates low, middle and high, drawn from the same seeds."""
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for rate in (0.02, 0.5, 0.98):
        vit = tiny_vit(drop_path=rate).double().train()
        gradients = []
        for forward in (vit.network, vit):
            vit.zero_grad()
            torch.manual_seed(3)
            forward(images).square().sum().backward()
            gradients.append([parameter.grad.clone() for parameter in vit.parameters()])
        for whole, ours in zip(*gradients, strict=True):
            torch.testing.assert_close(ours, whole, atol=1e-9, rtol=1e-6)


def test_attention_in_bf16_is_that_of_fp32_up_to_rounding():
    vit = tiny_vit().eval()
    images = torch.randn(4, 3, 16, 16)
    direction = torch.randn(4, 32)
    gradients = []
    for enabled in (False, True):
        vit.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            features = vit(images)
        (features.float() * direction).sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in vit.parameters()]))
    assert functional.cosine_similarity(*gradients, dim=0) > 0.999


def test_a_training_step_runs_on_fake_tensors():
    from torch._subclasses import FakeTensorMode

    vit = tiny_vit(drop_path=0.5).train()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        vit(mode.from_tensor(torch.randn(2, 3, 16, 16))).sum().backward()


@pytest.mark.parametrize(("width", "channels_last"), [(0.0625, False), (0.1, False), (0.125, True)])
def test_narrow_residual_networks_are_kept_from_a_fault_of_onednn(width: float, channels_last: bool) -> None:
    """A strided 1 x 1 convolution of fewer than 8 channels, channels-last, ends the process in its backward pass."""
    torch.manual_seed(0)
    network = resnet.ResNet18(resnet.ResNetSettings(width=width), image_px=32)
    weight = network.network.conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) == channels_last
    network(torch.rand(2, 3, 32, 32)).square().mean().backward()
    gradients = [parameter.grad for parameter in network.parameters()]
    assert all(gradient is not None and bool(gradient.isfinite().all()) for gradient in gradients)
