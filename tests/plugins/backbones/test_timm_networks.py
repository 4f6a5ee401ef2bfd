"""Networks of timm: their facts against a real forward pass, pretrained weights, and sizes that do not fit."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from ssl_bench.errors import UserError
from ssl_bench.method import evaluated_network
from ssl_bench.recipes.request import Request
from ssl_bench.recipes.resolve import resolve
from ssl_bench.runs.building import build_method
from ssl_bench.runs.describe import describe_backbone, tokens_in_words
from ssl_bench.testing.checking import run_checks
from ssl_bench_plugins.backbones.deit import DeitTi16, ViTSettings
from ssl_bench_plugins.backbones.timm_any import TimmAny, TimmSettings
from tests.toy import write_image_folder

KINDS = {
    "test_vit": (64, "vit"),
    "test_vit4": (64, "vit"),  # registers, mean over patches
    "deit_tiny_distilled_patch16_224": (64, "vit"),
    "vit_tiny_r_s16_p8_224": (64, "vit"),  # patches of a convolutional stem
    "xcit_nano_12_p16_224": (64, "vit"),
    "mixer_s32_224": (64, "vit"),
    "test_vit_relpos": (64, "vit"),
    "levit_128s": (64, "vit"),
    "cait_xxs24_224": (64, "vit"),
    "swin_tiny_patch4_window7_224": (64, "vit"),
    "test_resnet": (64, "convnet"),
    "test_convnext": (64, "convnet"),
    "test_efficientnet": (64, "convnet"),
    "test_byobnet": (64, "convnet"),
    "botnet26t_256": (128, "convnet"),
    "resnetv2_18": (64, "convnet"),
}
"""Architecture: side of the image, and what mixes positions in it: tokens' layers or convolutions."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return str(write_image_folder(tmp_path_factory.mktemp("data"), train=20, px=64))


def build(name, image_px=64, **settings):
    torch.manual_seed(0)
    return TimmAny(TimmSettings(name=name, **settings), image_px=image_px).eval()


@pytest.mark.parametrize(("name", "expected"), KINDS.items())
def test_facts_are_those_of_a_forward_pass(name, expected):
    image_px, kind = expected
    config = TimmSettings(name=name)
    said = TimmAny.kind_for(config, image_px), TimmAny.patch_px_for(config, image_px)
    backbone = build(name, image_px)
    images = torch.randn(2, 3, image_px, image_px)
    with torch.no_grad():
        features, inside = backbone(images), backbone.network.forward_features(images)
        torch.testing.assert_close(features, backbone.network(images), atol=1e-5, rtol=1e-4)
    assert said == (backbone.kind, backbone.patch_px) == (kind, backbone.patch_px)
    assert features.shape == (2, backbone.feature_dim)
    tokens = inside.shape[1] if inside.ndim == 3 else None
    assert backbone.token_count(image_px, image_px) == tokens
    if backbone.patch_px is not None:
        assert tokens == len(backbone.prefix_tokens) + (image_px // backbone.patch_px) ** 2
    if "patch_tokens" in backbone.supports:
        rows, columns = 2, 3
        shape = backbone.patch_tokens(torch.randn(1, 3, rows * backbone.patch_px, columns * backbone.patch_px)).shape
        assert shape == (1, backbone.feature_dim, rows, columns)
        assert backbone.token_count(rows * backbone.patch_px, columns * backbone.patch_px) == tokens - (
            (image_px // backbone.patch_px) ** 2 - rows * columns
        )


@pytest.mark.parametrize(
    ("arch", "settings", "tokens", "words"),
    [
        ("deit_ti16", {}, 17, "17 tokens per image (16 patches, CLS)"),
        ("timm:deit_tiny_distilled_patch16_224", {}, 18, "18 tokens per image (16 patches, CLS, distillation)"),
        (
            "timm:vit_small_patch14_reg4_dinov2",
            {"data.image_px": 56},
            21,
            "21 tokens per image (16 patches, CLS, 4 registers)",
        ),
        ("timm:vit_small_r26_s32_224", {}, 5, "5 tokens per image (4 patches, CLS)"),
        ("timm:levit_128s", {}, 1, "1 tokens in the last block"),
        ("timm:test_convnext", {}, None, ""),
    ],
)
def test_the_record_and_the_screen_have_the_true_number_of_tokens(data, arch, settings, tokens, words):
    values = {"training.batch_size": 8, **settings}
    resolved = resolve(Request(method="random", arch=arch, data=data, values=values))
    backbone = evaluated_network(build_method(resolved))
    record = describe_backbone(resolved, backbone)
    assert record.tokens == tokens
    assert record.kind == ("convnet" if tokens is None else "vit")
    assert tokens_in_words(backbone, resolved.dataset.image_px).removeprefix(", ") == words


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [("vit_base_r50_s16_224", "adamw"), ("mixer_s16_224", "adamw"), ("resnet18", "sgd"), ("convnext_atto", "sgd")],
)
def test_presets_follow_the_network(data, name, optimizer):
    values = {"training.batch_size": 8}
    resolved = resolve(Request(method="dino", arch=f"timm:{name}", data=data, preset="paper", values=values))
    assert resolved.recipe.optimizer["name"] == optimizer


def test_attention_behind_a_convolutional_stem():
    """One map a patch of the whole stride: a hybrid was once taken for one with patches of 1 px."""
    backbone = build("vit_tiny_r_s16_p8_224")
    with torch.no_grad():
        maps = backbone.attention(torch.randn(1, 3, 64, 96))
    assert maps.shape[2:] == (2, 3)
    assert backbone.patch_px == 32  # a stem of stride 4, then patches of 8 x 8 of its places


# ---------------------------------------------------------------- pretrained weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as timm publishes them, with classifier and for 160 px."""
    torch.manual_seed(5)
    network = timm.create_model("test_vit")
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, path)
    return network, path


def test_a_tag_loads_the_pretrained_weights(weights):
    network, path = weights
    one, other = (build("test_vit.r160_in1k", 160, weights=str(path)) for _ in range(2))
    for name, tensor in one.network.state_dict().items():
        assert torch.equal(tensor, network.state_dict()[name]), name
        assert torch.equal(tensor, other.network.state_dict()[name]), name
    assert one.pretrained.startswith("test_vit.r160_in1k from model.safetensors, sha256 ")
    assert build("test_vit").pretrained == ""
    plain = TimmAny(TimmAny.without_pretrained(TimmSettings(name="test_vit.r160_in1k", weights="gone")), image_px=64)
    assert plain.pretrained == ""


def test_pretrained_positions_come_resampled_to_the_image(weights):
    backbone = build("test_vit.r160_in1k", 64, weights=str(weights[1]))
    assert backbone.network.pos_embed.shape[1] == 17
    kernel = "patch_embed.proj.weight"
    assert torch.equal(backbone.network.state_dict()[kernel], weights[0].state_dict()[kernel])


def test_a_pretrained_network_is_recorded_as_such_and_passes_the_checks(weights, data):
    values = {"training.batch_size": 8, "backbone.weights": str(weights[1])}
    resolved = resolve(Request(method="random", arch="timm:test_vit.r160_in1k", data=data, values=values))
    record = describe_backbone(resolved, evaluated_network(build_method(resolved)))
    assert record.pretrained.startswith("test_vit.r160_in1k from model.safetensors")
    settings = {"name": "test_vit.r160_in1k", "weights": str(weights[1])}
    outcomes = run_checks("backbone", TimmAny, settings=settings)
    assert {(one.name, one.message) for one in outcomes if one.outcome != "ok"} == set()


def test_without_network_or_file_the_message_says_how_to_give_the_weights(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise OSError("We couldn't connect to 'https://huggingface.co'\nmore")

    monkeypatch.setattr("timm.models._builder.load_state_dict_from_hf", unreachable)
    words = r"vit_tiny_patch16_224.augreg_in21k are not on this machine .*--set backbone.weights=FILE.*--arch timm:vit_"
    with pytest.raises(UserError, match=words) as raised:
        build("vit_tiny_patch16_224.augreg_in21k")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot read"),
        (b"no weights", "no file of weights|damaged"),
        ({"other": torch.ones(2)}, "does not hold"),
    ],
)
def test_a_wrong_file_of_weights_is_one_message(tmp_path, content, words):
    path = tmp_path / "given.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        save_file(content, path)
    with pytest.raises(UserError, match=words):
        build("test_vit.r160_in1k", weights=str(path))


def test_an_unknown_tag_is_answered_with_the_known_ones():
    with pytest.raises(UserError, match=r"'test_vit.r160'\..*Did you mean 'test_vit.r160_in1k'.*--arch timm:test_vit "):
        build("test_vit.r160")


# ---------------------------------------------------------------- sizes


@pytest.mark.parametrize("name", ["mixer_s32_224", "levit_128s", "cait_xxs24_224", "test_vit_relpos"])
def test_a_network_of_one_size_says_what_to_set_for_views_of_another(name):
    backbone = build(name)
    with pytest.raises(UserError, match=rf"{name} fails on images of 32 x 32 px .*built for 64 x 64 px.*local_views=0"):
        backbone(torch.randn(2, 3, 32, 32))


def test_images_too_small_for_a_network_name_its_own_size():
    with pytest.raises(UserError, match=r"inception_v3 fails on images of 32 x 32 px .*data.image_px=299"):
        build("inception_v3", 32)(torch.randn(2, 3, 32, 32))


def test_patches_that_do_not_divide_the_image_name_sizes_of_the_data():
    with pytest.raises(UserError, match=r"64 px .*14 px. Give --set data.image_px=56, or 70") as raised:
        build("vit_small_patch14_reg4_dinov2")
    assert "backbone.patch_px" not in str(raised.value)


def test_own_networks_count_their_tokens_at_every_size():
    vit = DeitTi16(ViTSettings(depth=1, dim=64), image_px=64)
    assert (vit.token_count(64, 64), vit.token_count(480, 832)) == (17, 1 + 30 * 52)


def test_the_class_token_is_read_where_asked_and_refused_where_no_norm_reaches_it() -> None:
    dinov3 = TimmAny.fill(TimmSettings(name="vit_small_patch16_dinov3"), 32, {})
    assert dinov3.pool == "token"
    network = TimmAny(dinov3, image_px=32).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(network(images), network.network.forward_features(images)[:, 0])
    assert TimmAny.fill(TimmSettings(name="vit_tiny_patch16_224"), 32, {}).pool == "timm"
    for name in ("resnet18", "convnext_atto"):
        assert TimmAny.fill(TimmSettings(name=name), 64, {}).pool == "timm"
        with pytest.raises(UserError, match=r"backbone.pool = 'token': .* has no class token behind its last norm"):
            TimmAny.fill(TimmSettings(name=name, pool="token"), 64, {})
