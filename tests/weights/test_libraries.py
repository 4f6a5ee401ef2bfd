"""Files that other libraries write themselves: features equal the library's own forward pass, at two image sizes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from ssl_bench.weights.loaded import Loaded
from ssl_bench.weights.loading import load_network, open_weights
from tests.weights.networks import RESNET, VIT, resnet, varied, vit

transformers = pytest.importorskip("transformers")
SIZES = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 256}
SQUARE = {"image_size": 32, "patch_size": 16}
Forward = Callable[[Tensor], Tensor]


def of_vit(folder: Path) -> tuple[Forward, Loaded]:
    network = saved(transformers.ViTModel(transformers.ViTConfig(**SIZES, **SQUARE)), folder)
    loaded = load_network(open_weights(folder), arch="deit_s16", settings=VIT)
    return lambda x: network(x, interpolate_pos_encoding=True).last_hidden_state[:, 0], loaded


def of_vit_mae(folder: Path) -> tuple[Forward, Loaded]:
    decoder = {"decoder_hidden_size": 16, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 2}
    config = transformers.ViTMAEConfig(**SIZES, **SQUARE, **decoder, decoder_intermediate_size=32, mask_ratio=0.0)
    network = saved(transformers.ViTMAEForPreTraining(config), folder)
    loaded = load_network(open_weights(folder), arch="deit_s16", settings=VIT)
    return lambda x: network.vit(x, interpolate_pos_encoding=True).last_hidden_state[:, 0], loaded


def of_resnet(folder: Path) -> tuple[Forward, Loaded]:
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 32, 64], depths=[2, 2, 2, 2], layer_type="basic"
    )
    network = saved(transformers.ResNetForImageClassification(config), folder)
    loaded = load_network(open_weights(folder), arch="resnet18", settings=RESNET)
    return lambda x: network.resnet(x).pooler_output.flatten(1), loaded


def of_convnext(folder: Path) -> tuple[Forward, Loaded]:
    config = transformers.ConvNextConfig(hidden_sizes=[96, 192, 384, 768], depths=[3, 3, 9, 3])
    network = saved(transformers.ConvNextModel(config), folder)
    return lambda x: network(x).pooler_output, load_network(open_weights(folder), arch="timm:convnext_tiny")


def of_small_convnext(folder: Path) -> tuple[Forward, Loaded]:
    """timm writes the MLPs of its small ConvNeXts as convolutions of 1 x 1, transformers as linear layers."""
    config = transformers.ConvNextConfig(hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2])
    network = saved(transformers.ConvNextModel(config), folder)
    return lambda x: network(x).pooler_output, load_network(open_weights(folder), arch="timm:convnext_atto")


def of_dinov2_with_registers(folder: Path) -> tuple[Forward, Loaded]:
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "mlp_ratio": 4}
    config = transformers.Dinov2WithRegistersConfig(**sizes, image_size=56, patch_size=14)
    network = saved(transformers.Dinov2WithRegistersModel(config), folder)
    recognized = open_weights(folder)
    loaded = load_network(recognized, arch="timm:vit_small_patch14_reg4_dinov2")
    assert recognized.method == "dinov2"  # no preprocessor_config.json: as the authors evaluate, at 224 px
    assert (loaded.preprocessing.crop_px, loaded.preprocessing.interpolation) == (224, "bicubic")
    return lambda x: network(x).last_hidden_state[:, 0], loaded


def of_dinov3(folder: Path) -> tuple[Forward, Loaded]:
    """Features are the class token, as its authors evaluate it; timm would average the patches."""
    sizes = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 6, "intermediate_size": 1536}
    config = transformers.DINOv3ViTConfig(**sizes, image_size=32, patch_size=16, num_register_tokens=4)
    network = transformers.DINOv3ViTModel(config).eval()
    frequencies = network.rope_embeddings.inv_freq.clone()
    varied(network)
    network.rope_embeddings.inv_freq.copy_(frequencies)  # computed from the configuration, in no file
    network.save_pretrained(folder)
    loaded = load_network(open_weights(folder), arch="timm:vit_small_patch16_dinov3_qkvb")
    assert loaded.config.model_dump()["pool"] == "token"
    assert "attention" in loaded.backbone.supports
    return lambda x: network(x).last_hidden_state[:, 0], loaded


def of_torchvision_resnet(folder: Path) -> tuple[Forward, Loaded]:
    network: Any = varied(torchvision.models.resnet18(num_classes=3))
    torch.save(network.state_dict(), folder / "resnet18.pth")
    loaded = load_network(open_weights(folder / "resnet18.pth"))
    network.fc = nn.Identity()
    return network, loaded


def of_timm(folder: Path) -> tuple[Forward, Loaded]:
    network = varied(timm.create_model("mobilenetv3_small_050", num_classes=3))
    timm.models.save_for_hf(network, folder, safe_serialization=True)
    loaded = load_network(open_weights(folder), arch="timm:mobilenetv3_small_050")
    network.reset_classifier(0)  # type: ignore[operator]
    return network, loaded


def of_xcit(folder: Path) -> tuple[Forward, Loaded]:
    """The names of its authors, which DINO's XCiTs have: timm's `checkpoint_filter_fn` reads them."""
    network: Any = varied(timm.create_model("xcit_nano_12_p16_224", num_classes=0))
    names = {}
    for name, tensor in network.state_dict().items():
        if ".attn.q." in name and name.startswith("cls_attn_blocks."):
            parts = [network.state_dict()[name.replace(".q.", f".{part}.")] for part in "qkv"]
            names[name.replace(".q.", ".qkv.")] = torch.cat(parts)
        elif not (name.startswith("cls_attn_blocks.") and (".attn.k." in name or ".attn.v." in name)):
            names[name.replace("pos_embed.", "pos_embeder.")] = tensor
    again = timm.create_model("xcit_nano_12_p16_224", num_classes=0)
    again.load_state_dict(timm.models.xcit.checkpoint_filter_fn(dict(names), again))
    torch.save({"teacher": {f"backbone.{name}": one for name, one in names.items()}}, folder / "xcit.pth")
    loaded = load_network(open_weights(folder / "xcit.pth"))
    assert loaded.arch == "timm:xcit_nano_12_p16_224"
    return again.eval(), loaded  # type: ignore[return-value]


def of_lightning(folder: Path) -> tuple[Forward, Loaded]:
    """lightly's BYOL as its examples write it, saved by Lightning's trainer."""
    lightning = pytest.importorskip("pytorch_lightning")
    heads = pytest.importorskip("lightly.models.modules.heads")

    class BYOL(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, learning_rate: float = 0.06) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.backbone = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])
            self.projection_head = heads.BYOLProjectionHead(512, 16, 8)
            self.backbone_momentum = nn.Sequential(*list(torchvision.models.resnet18().children())[:-1])

        def training_step(self, batch: Tensor, index: int) -> Tensor:
            return self.backbone(batch).mean()  # type: ignore[no-any-return]

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.0)

    model = BYOL()
    trainer = lightning.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=folder,
    )  # fmt: skip
    trainer.fit(model, torch.utils.data.DataLoader(torch.randn(2, 3, 32, 32), batch_size=2))
    trainer.save_checkpoint(folder / "byol.ckpt")
    recognized = open_weights(folder / "byol.ckpt")
    assert [one.name for one in recognized.candidates] == ["backbone", "backbone_momentum"]
    assert recognized.settings["learning_rate"] == 0.06
    model.eval()
    return lambda x: model.backbone(x).flatten(1), load_network(recognized, arch="resnet18")


def saved(network: Any, folder: Path) -> Any:
    varied(network).save_pretrained(folder)
    return network


LIBRARIES = [
    of_vit, of_vit_mae, of_dinov2_with_registers, of_dinov3, of_resnet, of_convnext, of_small_convnext,
    of_torchvision_resnet, of_timm, of_xcit, of_lightning,
]  # fmt: skip


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda one: one.__name__)
def test_features_equal_the_librarys_own(library: Callable[[Path], tuple[Forward, Loaded]], tmp_path: Path) -> None:
    torch.manual_seed(0)
    forward, loaded = library(tmp_path)
    for px in (28, 84) if loaded.backbone.patch_px == 14 else (32, 80):
        images = torch.randn(2, 3, px, px)
        with torch.no_grad():
            expected = forward(images)
            tolerance = 1e-5 * max(1.0, float(expected.abs().max()))
            torch.testing.assert_close(loaded.backbone(images), expected, rtol=0, atol=tolerance)
        assert expected.std() > 1e-3


def test_the_center_crop_is_transformers_own_at_odd_margins(tmp_path: Path) -> None:
    """Images of the size that they would be resized to, so that pixels are equal."""
    saved(transformers.ViTModel(transformers.ViTConfig(**SIZES, **SQUARE)), tmp_path)
    processor = transformers.BitImageProcessor(
        size={"shortest_edge": 40}, crop_size={"height": 32, "width": 32}, do_center_crop=True
    )
    processor.save_pretrained(tmp_path)
    seen = load_network(open_weights(tmp_path), arch="deit_s16", settings=VIT).preprocessing
    drawn = np.random.default_rng(0)
    for size in ((40, 40), (40, 43), (40, 45), (47, 40)):
        image = Image.fromarray(drawn.integers(0, 256, (*size, 3), dtype=np.uint8))
        expected = processor(image, return_tensors="pt")["pixel_values"]
        given = seen.normalized(torch.from_numpy(seen.crop(False)(image).copy())[None])
        torch.testing.assert_close(given, expected, rtol=0, atol=1e-5)


def test_layers_that_differ_without_a_trace_in_the_tensors_are_refused(tmp_path: Path) -> None:
    saved(transformers.ViTModel(transformers.ViTConfig(**SIZES, **SQUARE, hidden_act="relu")), tmp_path)
    with pytest.raises(Exception, match="activation 'relu'"):
        load_network(open_weights(tmp_path), arch="deit_s16", settings=VIT)


def test_torchvisions_transformer_in_its_own_names(tmp_path: Path) -> None:
    network = torchvision.models.VisionTransformer(32, 16, 2, 2, 64, 256, num_classes=3)
    varied(network)
    torch.save(network.state_dict(), tmp_path / "vit.pth")
    loaded = load_network(open_weights(tmp_path / "vit.pth"), arch="deit_s16", settings=VIT)
    network.heads = nn.Identity()
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.backbone(images), network(images), rtol=0, atol=1e-5)


def test_our_own_runs_are_a_format_too(tmp_path: Path) -> None:
    from ssl_bench.weights.tensor_file import save_weights

    network = vit()
    save_weights(tmp_path / "weights.safetensors", network.state_dict(), {"run_id": "dino-1", "backbone": "deit_s16"})
    recognized = open_weights(tmp_path / "weights.safetensors")
    assert recognized.words == "sslbench, run dino-1"
    loaded = load_network(recognized, arch="deit_s16", settings=VIT)
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(loaded.backbone(images), network(images), rtol=0, atol=1e-6)


def test_half_precision_is_read_as_fp32_and_said(tmp_path: Path) -> None:
    network = resnet()
    torch.save(
        {n: t.half() if t.is_floating_point() else t for n, t in network.state_dict().items()}, tmp_path / "h.pt"
    )
    loaded = load_network(open_weights(tmp_path / "h.pt"), arch="resnet18", settings={**RESNET})
    assert "tensors stored as float16, computed in fp32" in loaded.notes[0]
    assert next(loaded.backbone.parameters()).dtype == torch.float32
