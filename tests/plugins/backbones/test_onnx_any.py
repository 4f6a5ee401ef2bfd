"""ONNX files as backbones: features equal to NumPy's, and one message for each file that gives none."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ssl_bench.errors import UserError
from ssl_bench.evaluation.network_fingerprint import network_fingerprint
from ssl_bench.export.exporting import write_export
from ssl_bench.weights.loading import load_network, open_weights
from ssl_bench_plugins.backbones.onnx_any import OnnxAny, OnnxSettings, fingerprint
from tests.conftest import Command
from tests.export.networks import source
from tests.toy import write_image_folder

WEIGHT = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
KNN = ("--with", "knn", "--set", "evaluators.knn.neighbors=[1]", "--set", "evaluators.knn.reported=1")


def save(
    path: Path,
    nodes: Sequence[tuple[str, list[str], list[str], dict[str, Any]]],
    outputs: Sequence[str],
    shape: Sequence[Any] = ("batch", 3, "height", "width"),
    kind: int = TensorProto.FLOAT,
    inputs: Sequence[str] = ("images",),
) -> Path:
    """A graph of `nodes` (operator, inputs, outputs, attributes) with the matrix `weight`."""
    graph = helper.make_graph(
        [helper.make_node(op, given, made, **attributes) for op, given, made, attributes in nodes],
        "graph",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [numpy_helper.from_array(WEIGHT.astype(helper.tensor_dtype_to_np_dtype(kind)), "weight")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path)
    return path


POOLED = [
    ("GlobalAveragePool", ["images"], ["map"], {}),
    ("Flatten", ["map"], ["means"], {}),
    ("MatMul", ["means", "weight"], ["features"], {}),
]
TOKENS = [
    ("Flatten", ["images"], ["flat"], {"axis": 2}),
    ("Flatten", ["images"], ["unused"], {}),
    ("Transpose", ["images"], ["last"], {"perm": [0, 2, 3, 1]}),
    ("ReduceMean", ["last"], ["columns"], {"axes": [1], "keepdims": 0}),
    ("MatMul", ["columns", "weight"], ["tokens"], {}),
]


def built(path: Path, image_px: int = 8, **settings: Any) -> OnnxAny:
    config = OnnxAny.fill(OnnxSettings(name=str(path), **settings), image_px, {})
    return OnnxAny(config, image_px=image_px)


def pooled(images: NDArray[np.float32]) -> NDArray[np.float32]:
    return images.mean(axis=(2, 3)) @ WEIGHT


def equal(given: torch.Tensor, expected: NDArray[Any], atol: float = 1e-6) -> None:
    np.testing.assert_allclose(given.numpy(), expected, rtol=0, atol=atol)


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (("batch", 3, "height", "width"), (8, 12)),
        (("batch", 3, 8, 8), (8,)),
        ((2, 3, 8, 8), (8,)),
        ((1, 3, "height", "width"), (8, 12)),
        (("batch", 8, 8, 3), (8,)),
    ],
    ids=["dynamic", "one size", "two images", "one image", "channels last"],
)
def test_features_of_any_number_of_images_of_the_sizes_that_the_file_takes(
    shape: tuple[Any, ...], sizes: tuple[int, ...], tmp_path: Path
) -> None:
    nodes = list(POOLED)
    if shape[3] == 3:
        nodes = [("Transpose", ["images"], ["first"], {"perm": [0, 3, 1, 2]}),
                 ("GlobalAveragePool", ["first"], ["map"], {}), *POOLED[1:]]  # fmt: skip
    network = built(save(tmp_path / "net.onnx", nodes, ["features"], shape))
    assert network.feature_dim == 5
    assert network.parameter_count == 15
    assert not list(network.parameters())
    for side in sizes:
        for count in (1, 2, 3, 5):
            images = torch.randn(count, 3, side, side)
            equal(network(images), pooled(images.numpy()))
            equal(copy.deepcopy(network)(images), pooled(images.numpy()))
    if len(sizes) == 1:
        assert OnnxAny.only_px_for(network.config) == 8
        with pytest.raises(UserError, match=r"takes images of 8 px, not 12: --set data.image_px=8"):
            network(torch.randn(1, 3, 12, 12))
        with pytest.raises(UserError, match="takes images of 8 px, not 12"):
            built(tmp_path / "net.onnx", 12)


def test_half_precision_is_computed_as_the_file_says(tmp_path: Path) -> None:
    network = built(save(tmp_path / "net.onnx", POOLED, ["features"], kind=TensorProto.FLOAT16))
    images = torch.randn(3, 3, 8, 8)
    equal(network(images), pooled(images.numpy()), atol=5e-3)
    assert network(images).dtype == torch.float32


def test_tokens_become_one_vector_as_a_setting_says(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", TOKENS, ["tokens"])
    images = torch.randn(2, 3, 8, 8)
    tokens = images.numpy().transpose(0, 2, 3, 1).mean(axis=1) @ WEIGHT
    equal(built(path, pool="cls")(images), tokens[:, 0])
    equal(built(path, pool="mean")(images), tokens.mean(axis=1))
    with pytest.raises(UserError, match=r"has tokens, its shape is \(1, 8, 5\).*--set backbone.pool=cls"):
        built(path)
    maps = save(tmp_path / "maps.onnx", [("Identity", ["images"], ["maps"], {})], ["maps"])
    equal(built(maps, pool="mean")(images), images.mean(dim=(2, 3)).numpy())
    with pytest.raises(UserError, match="has no class token"):
        built(maps, pool="cls")


def test_one_of_several_outputs_is_chosen_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "net.onnx", POOLED, ["means", "features"])
    images = torch.randn(2, 3, 8, 8)
    equal(built(path, output="means")(images), images.numpy().mean(axis=(2, 3)))
    equal(built(path, output="features")(images), pooled(images.numpy()))
    with pytest.raises(UserError, match=r"has several outputs: means .*, features .*--set backbone.output=means"):
        built(path)
    with pytest.raises(UserError, match="has no output 'feature'"):
        built(path, output="feature")


BAD = [
    ({"shape": ("batch", 1, 8, 8)}, "takes images of 1 channels"),
    ({"shape": ("batch", 12)}, r"images are \(batch, 3, height, width\)"),
    ({"kind": TensorProto.INT64}, r"takes tensor\(int64\)"),
    ({"inputs": ("images", "mask")}, r"takes 2 inputs \(images .*, mask"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_files_that_take_no_images_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    nodes = [("Identity", ["images"], ["features"], {})]
    path = save(tmp_path / "net.onnx", nodes, ["features"], **changes)
    with pytest.raises(UserError, match=message):
        built(path)


def test_files_that_are_none(tmp_path: Path, sslbench: Command) -> None:
    save(tmp_path / "whole.onnx", POOLED, ["features"])
    (tmp_path / "half.onnx").write_bytes((tmp_path / "whole.onnx").read_bytes()[:150])
    (tmp_path / "text.onnx").write_text("version https://git-lfs")
    (tmp_path / "empty.onnx").write_bytes(b"")
    for name in ("half", "text", "empty", "missing"):
        for words in (
            ("eval", f"{name}.onnx"),
            ("run", "random", "--arch", f"onnx:{name}.onnx"),
            ("inspect", f"{name}.onnx"),
        ):
            status, _, err = sslbench(*words)
            assert status == 2, (name, words)
            assert "Traceback" not in err
            assert f"{name}.onnx" in err


def test_the_fingerprint_covers_weights_in_files_of_their_own(tmp_path: Path) -> None:
    save(tmp_path / "net.onnx", POOLED, ["features"])
    model = onnx.load(tmp_path / "net.onnx")
    onnx.save(model, tmp_path / "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    images = torch.randn(2, 3, 8, 8)
    network = built(tmp_path / "apart.onnx")
    equal(network(images), pooled(images.numpy()))
    before = fingerprint(tmp_path / "apart.onnx")
    data = (tmp_path / "apart.data").read_bytes()
    (tmp_path / "apart.data").write_bytes(data[:-4] + b"\0\0\0\0")
    assert fingerprint(tmp_path / "apart.onnx") != before
    with pytest.raises(UserError, match="is not the file that was evaluated"):
        OnnxAny(network.config, image_px=8)
    (tmp_path / "apart.data").unlink()
    with pytest.raises(UserError, match=r"apart.data"):
        built(tmp_path / "apart.onnx")


def test_eval_records_the_file_and_run_refuses_to_train_it(tmp_path: Path, sslbench: Command) -> None:
    data = write_image_folder(tmp_path / "tints", train=6, test=3, px=12)
    save(tmp_path / "net.onnx", POOLED, ["features"], ("batch", 3, 8, 8))
    status, out, err = sslbench("eval", "net.onnx", "--data", data, *KNN, "--as", "simclr", "--json")
    assert status == 0, err
    [one] = json.loads(out)["runs"]
    record = one["record"]
    assert record["weights"]["file"] == "net.onnx"
    assert record["weights"]["sha256"] == fingerprint(tmp_path / "net.onnx")
    assert record["weights"]["container"] == "ONNX"
    assert record["backbone"]["name"] == "onnx:net.onnx"
    assert record["backbone"]["parameters"] == 15
    assert record["evaluations"][0]["image_px"] == 8
    status, out, err = sslbench("eval", "--arch", "onnx:net.onnx", "--data", data, *KNN, "--as", "simclr")
    assert status == 0, err
    assert "done before" in out
    (tmp_path / "moved").mkdir()
    (tmp_path / "net.onnx").rename(tmp_path / "moved" / "net.onnx")
    status, out, err = sslbench("eval", "moved/net.onnx", "--data", data, *KNN, "--as", "simclr")
    assert (status, "done before" in out) == (0, True), err
    for words, message in (
        (("run", "simclr", "--arch", "onnx:moved/net.onnx", "--data", data), "cannot be trained"),
        (
            ("run", "random", "--arch", "onnx:moved/net.onnx", "--data", data, "--batch-size", "4"),
            "takes images of 8 px",
        ),
        (("run", "simclr", "--arch", "resnet18", "--init", "moved/net.onnx"), "nothing can be trained"),
        (("eval", "moved/net.onnx", "--baseline", "--data", data), "--baseline"),
        (("eval", "moved/net.onnx", "--with", "davis", "--data", data), "an ONNX file gives features alone"),
        (("eval", "moved/net.onnx", "--arch", "resnet18", "--data", data), "--arch resnet18"),
        (("export", "moved/net.onnx", "--to", "timm"), "is an ONNX graph"),
    ):
        status, _, err = sslbench(*words)
        assert status == 2, words
        assert message in err, (words, err)
        assert "Traceback" not in err
    words = ("--data", data, "--set", "data.image_px=8", "--run-id", "r", "--batch-size", "4", *KNN)
    status, out, err = sslbench("run", "random", "--arch", "onnx:moved/net.onnx", *words)
    assert status == 0, err
    status, out, err = sslbench("inspect", "moved/net.onnx")
    assert status == 0, err
    assert "images (batch, 3, 8, 8)" in out
    assert "features" in out


def test_an_exported_graph_is_read_back_with_its_preprocessing(tmp_path: Path) -> None:
    network = source("deit_ti16", 32)
    write_export(network, "onnx", tmp_path / "out")
    images = torch.randn(3, 3, 32, 32)
    for path in (tmp_path / "out", tmp_path / "out" / "model.onnx"):
        loaded = load_network(open_weights(path))
        assert loaded.preprocessing == network.preprocessing
        assert loaded.recognized.method == "dino"
        with torch.no_grad():
            expected = network.backbone(images)
        torch.testing.assert_close(loaded.backbone(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


def test_features_can_be_kept_and_another_file_output_or_pool_is_another_network(tmp_path: Path) -> None:
    one = save(tmp_path / "a.onnx", POOLED, ["features", "means"])
    same = save(tmp_path / "b.onnx", POOLED, ["features", "means"])
    other = save(tmp_path / "c.onnx", [*POOLED, ("Neg", ["means"], ["negative"], {})], ["features", "means"])
    network = built(one, output="features")
    known = network_fingerprint(network)
    assert network_fingerprint(copy.deepcopy(network)) == known
    others = built(other, output="features"), built(one, output="means"), built(same, output="features", pool="mean")
    assert known not in {network_fingerprint(each) for each in others}
