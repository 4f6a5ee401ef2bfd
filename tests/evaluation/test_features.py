"""FeatureStore: order, precision, modes, words of the transform, refusals."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from ssl_bench.backbone import Backbone
from ssl_bench.blocks.views import IMAGENET_MEAN, IMAGENET_STD
from ssl_bench.errors import UserError
from ssl_bench.evaluation.features import FeatureStore, _Cropped, device_with_room
from tests.toy import ToyBackbone, ToyDataset


class Pixels(ToyBackbone):
    """Each image's mean color; counts its forward passes."""

    passes = 0

    def forward(self, images: Tensor) -> Tensor:
        self.passes += 1
        return images.mean(dim=(2, 3))


class WithProbe(Pixels):
    def probe_features(self, images: Tensor) -> Tensor:
        return torch.cat([self(images), images.amax(dim=(2, 3))], dim=1)


class Constant(Pixels):
    value = 1.0

    def forward(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 3), self.value)


class Photos:
    """Images of several sizes."""

    labels = (0, 1, 2)

    def __len__(self) -> int:
        return 3

    def image(self, index: int) -> Image.Image:
        pixels = np.random.default_rng(index).integers(0, 255, (50 + 7 * index, 80 - 9 * index, 3))
        return Image.fromarray(pixels.astype(np.uint8))


def store(backbone: Backbone, dataset: ToyDataset | None = None, **changes: Any) -> FeatureStore:
    settings: dict[str, Any] = {
        "image_px": 8, "device": torch.device("cpu"), "autocast_dtype": None, "batch_size": 5, "workers": 0
    }  # fmt: skip
    return FeatureStore(backbone, dataset or ToyDataset(), **(settings | changes))


def test_features_are_those_of_each_image_in_the_order_of_the_split() -> None:
    dataset = ToyDataset(count=12)
    found = store(Pixels(), dataset)("train")
    assert found.vectors.shape == (12, 3)
    assert found.vectors.dtype == torch.float32
    assert found.labels.tolist() == dataset.train.labels
    for index in range(12):
        pixels = np.asarray(dataset.train.image(index), dtype=np.float64) / 255
        expected = (pixels.mean(axis=(0, 1)) - IMAGENET_MEAN) / np.array(IMAGENET_STD)
        assert np.allclose(found.vectors[index], expected, atol=1e-5)


def test_extraction_happens_once_for_a_split_and_kind() -> None:
    network, lines = WithProbe(), []
    features = store(network, say=lines.append)
    assert features("train") is features("train")
    assert features("train", "probe_features") is features("train", "probe_features")
    assert network.passes == 2 * 10
    assert features("test").vectors.shape == (12, 3)
    assert features("test", "probe_features").vectors.shape == (12, 6)
    assert len(lines) == 4
    assert lines[0].startswith("features of train: 48 images, 3 values each, ")


def test_a_backbone_without_features_of_its_own_for_the_probe_is_not_asked_twice() -> None:
    network = Pixels()
    features = store(network)
    assert features("train", "probe_features") is features("train")
    assert network.passes == 10


def test_eval_mode_inside_and_every_module_as_before_outside() -> None:
    network = ToyBackbone()
    network.train()
    network.layers[2].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    found = store(network)("train").vectors
    modes = [module.training for module in network.layers]
    assert network.training
    assert modes == [True, True, False, True, True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(store(network)("train").vectors, found), "dropout was active"


def test_modes_come_back_after_an_error() -> None:
    class Broken(Pixels):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("broken")

    network = Broken()
    network.train()
    with pytest.raises(RuntimeError, match="broken"):
        store(network)("train")
    assert network.training


def test_an_evaluator_may_ask_for_gradients() -> None:
    vectors = store(Pixels())("train").vectors
    assert not vectors.is_inference()
    weight = torch.ones(3, requires_grad=True)
    (vectors @ weight).sum().backward()
    assert torch.allclose(weight.grad, vectors.sum(dim=0), atol=1e-4)


def test_worker_processes_change_nothing() -> None:
    dataset = ToyDataset(count=48)
    alone, shared = (store(Pixels(), dataset, workers=workers)("train") for workers in (0, 2))
    assert torch.equal(alone.vectors, shared.vectors)


def test_images_reach_spawned_workers_by_pickling() -> None:
    features = store(Pixels())
    images = _Cropped(features.dataset.train, features.crop)
    again = pickle.loads(pickle.dumps(images))
    assert len(again) == 48
    assert torch.equal(again[7], images[7])


def test_autocast_is_used_and_the_result_is_float32() -> None:
    full, half = (store(ToyBackbone(), autocast_dtype=dtype) for dtype in (None, torch.bfloat16))
    half.backbone.load_state_dict(full.backbone.state_dict())
    exact, rounded = full("train").vectors, half("train").vectors
    assert rounded.dtype == torch.float32
    assert not torch.equal(exact, rounded)
    assert torch.allclose(exact, rounded, atol=0.05)


def test_words_and_pixels_of_the_transform() -> None:
    assert store(Pixels())("train").transform.text == "native 8 px"
    assert store(Pixels(), image_px=14)("train").transform.text == "resize 16 bicubic, center crop 14"
    dataset = ToyDataset()
    dataset.train = dataset.test = Photos()  # type: ignore[assignment]
    features = store(Pixels(), dataset, image_px=28)
    assert features.protocol.text == "resize 32 bicubic, center crop 28"
    assert store(Pixels(), dataset, image_px=224).protocol.text == "resize 256 bicubic, center crop 224"
    published = v2.Compose(
        [
            v2.Resize(32, interpolation=v2.InterpolationMode.BICUBIC), v2.CenterCrop(28), v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )  # fmt: skip
    for index in range(3):
        image = dataset.train.image(index)
        levels = torch.from_numpy(features.crop(image).copy())
        assert torch.allclose(features.preprocessing.normalized(levels[None])[0], published(image), atol=1e-5)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("odd", [0, 1, 4])
def test_one_image_of_another_size_means_that_all_are_resized(split: str, odd: int) -> None:
    dataset = ToyDataset(count=5)
    squares = getattr(dataset, split)

    class Odd(Photos):
        labels = squares.labels

        def __len__(self) -> int:
            return len(squares)

        def image(self, index: int) -> Image.Image:
            return squares.image(index) if index != odd else super().image(index)

    assert store(Pixels(), ToyDataset(count=5))("train").transform.text == "native 8 px"
    setattr(dataset, split, Odd())
    features = store(Pixels(), dataset)
    for name in ("train", "test"):
        assert features(name).transform.text == "resize 9 bicubic, center crop 8"  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_refused(value: float) -> None:
    network = Constant()
    network.value = value
    with pytest.raises(UserError, match=r"features of the network are not finite: 48 of 48 train images"):
        store(network)("train")


def test_constant_features_are_refused() -> None:
    with pytest.raises(UserError, match="are constant: all 12 test images give the same vector"):
        store(Constant())("test")


def test_a_network_on_the_cpu_is_evaluated_there() -> None:
    assert device_with_room(ToyBackbone(), 10**15) == torch.device("cpu")
    assert device_with_room(torch.nn.Identity(), 1) == torch.device("cpu")
