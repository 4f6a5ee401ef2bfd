"""`sslbench export` as a user types it, and what it leaves on the disk."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import UserError
from ssl_bench.export.exporting import write_export
from ssl_bench.export.source import Source
from ssl_bench.runs.networks import trained_backbone
from tests.conftest import Command
from tests.export.networks import source
from tests.toy import write_image_folder
from tests.weights.networks import RESNET, resnet, tensors

DINO = ["method.out_dim=16", "method.hidden_dim=16", "method.bottleneck_dim=8", "method.local_views=1"]
TINY = ["backbone.depth=1", "backbone.dim=32", "backbone.patch_px=8", "backbone.heads=4"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of DINO on a small ViT."""
    import ssl_bench

    folder = tmp_path_factory.mktemp("runs")
    data = write_image_folder(folder / "tints", train=8, test=4, px=16)
    settings: dict[str, Any] = dict(pair.split("=") for pair in (*DINO, *TINY))  # type: ignore[arg-type]
    ssl_bench.run(
        "dino", "deit_ti16", data=data, epochs=1, batch_size=8, with_="knn", run_id="trained",
        settings={key: int(value) for key, value in settings.items()}, results=folder / "results",
    )  # fmt: skip
    return folder / "results"


def test_a_run_for_timm_and_back(sslbench: Command, results: Path, tmp_path: Path) -> None:
    status, out, err = sslbench("export", "train", "--to", "timm", "--results", results)
    assert (status, err) == (0, ""), err
    assert "16 px: features equal" in out
    folder = tmp_path / "trained-timm"
    expected, record = trained_backbone(results / "runs" / "trained")
    images = torch.randn(2, 3, 16, 16)
    network: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    torch.testing.assert_close(network(images), expected(images), rtol=0, atol=1e-5)
    about = (folder / "README.md").read_text()
    assert "run `trained`" in about
    assert record.digest[:12] in about
    assert "| method | dino |" in about
    assert "| network | teacher |" in about
    status, out, _ = sslbench("inspect", folder)
    assert status == 0
    assert "exported by sslbench for timm from trained" in out
    status, out, err = sslbench("export", "train", "--to", "timm", "--results", results)
    assert status == 2
    assert "trained-timm exists; nothing is overwritten" in err


def test_the_file_of_a_run_is_read_with_the_runs_number_of_heads(results: Path) -> None:
    from ssl_bench.weights.loading import load_network, open_weights

    expected, _ = trained_backbone(results / "runs" / "trained")
    images = torch.randn(2, 3, 16, 16)
    loaded = load_network(open_weights(results / "runs" / "trained" / "weights.safetensors"))
    with torch.no_grad():
        torch.testing.assert_close(loaded.backbone(images), expected(images), rtol=0, atol=1e-6)


def test_a_checkpoint_is_converted(sslbench: Command, tmp_path: Path) -> None:
    torch.save(tensors(resnet()), tmp_path / "w.pth")
    width = f"backbone.width={RESNET['width']}"
    words = ("export", "w.pth", "--to", "hf", "--arch", "resnet18", "--set", width, "--image-px", "64")
    status, out, err = sslbench(*words, "--json")
    assert status == 0, err
    told = json.loads(out)
    assert told["folder"] == "w-hf"
    assert told["exported"]["preprocessing"]["crop_px"] == 64
    assert "SHA-256" in (tmp_path / "w-hf" / "README.md").read_text()


BAD = [
    (["x", "--to", "keras"], "no target of an export is called 'keras'"),
    (["x", "--to", "tim"], "Did you mean 'timm'"),
    (["trained", "--to", "timm", "--network", "student"], "keeps the network that its method evaluates, 'teacher'"),
    (["trained", "--to", "timm", "--arch", "deit_s16"], "--arch are for files of weights"),
    (["trained", "--to", "timm", "--set", "method.lr=1"], "--set takes backbone"),
    (["trained", "--to", "onnx", "--out", "net.onnx"], "--out is a folder, into which model.onnx is written"),
    (["trained", "--to", "timm", "--image-px", "20"], "20"),
    (["nothing", "--to", "timm"], "no run is called 'nothing'"),
]


@pytest.mark.parametrize(("words", "message"), BAD)
def test_mistakes_get_one_message_and_leave_nothing(
    words: list[str], message: str, sslbench: Command, results: Path, tmp_path: Path
) -> None:
    status, _, err = sslbench("export", *words, "--results", results)
    assert status == 2
    assert message in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())


def test_a_stopped_export_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(network: Source, computed: object) -> dict[int, float]:
        raise KeyboardInterrupt

    monkeypatch.setattr("ssl_bench.export.exporting.compare", stopped)
    with pytest.raises(KeyboardInterrupt):
        write_export(source("resnet18", 32), "safetensors", tmp_path / "out")
    assert not list(tmp_path.iterdir())
    monkeypatch.setattr("ssl_bench.export.targets.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs onnx and onnxruntime, .*: pip install 'sslbench\[onnx\]'"):
        write_export(source("resnet18", 32), "onnx", tmp_path / "out")


@pytest.mark.parametrize("squash", [False, True])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_preprocessing_of_each_library_gives_the_same_pixels(
    interpolation: Any, squash: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = source("deit_s16", 48)
    seen = Preprocessing(
        crop_px=48, resize_px=60, interpolation=interpolation, squash=squash, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25)
    )
    network = Source(network.backbone, network.plugin, network.settings, seen, "run-1", "dino", "teacher")
    pixels = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    photo = Image.fromarray(pixels).resize((120, 90), Image.Resampling.BICUBIC)
    [expected] = seen.normalized(torch.from_numpy(np.array(seen.crop(native=False)(photo)))[None])

    write_export(network, "timm", tmp_path / "timm")
    model: Any = timm.create_model(f"local-dir:{tmp_path / 'timm'}", pretrained=True)
    config = timm.data.resolve_data_config({}, model=model)
    of_timm: Any = timm.data.create_transform(**config)
    write_export(network, "hf", tmp_path / "hf")
    transformers = pytest.importorskip("transformers")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf")
    write_export(network, "torchvision", tmp_path / "torchvision")
    code = re.findall(r"```python\n(.*?)```", (tmp_path / "torchvision" / "README.md").read_text(), re.DOTALL)[1]
    names: dict[str, Any] = {}
    exec(code, names)
    given = {
        "timm": of_timm(photo),
        "transformers": processor(photo, return_tensors="pt")["pixel_values"][0],
        "torchvision": names["prepare"](photo),
    }
    for library, one in given.items():
        difference = (one - expected).abs() * 0.2 * 255  # in steps of 8 bits, or a little more
        assert one.shape == expected.shape, library
        assert difference.mean() < 0.5, (library, difference.mean())
