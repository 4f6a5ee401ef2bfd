"""How much of a network's features on `shapes` the light of the images explains, and how much their class.

    python -m benchmarks.light_of_shapes RUN...                 # folders of runs on shapes, with their weights
    python -m benchmarks.light_of_shapes --even-light FOLDER    # the same images in one even light, as an image folder

The light is its brightness and the two slopes across the image, each linear and squared; the share is that of the
variance of all features together, by least squares on the first training images. Findings: results/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import normalize, to_dtype, to_image

from ssl_bench import registry
from ssl_bench.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, eval_mode
from ssl_bench.dataset import Dataset
from ssl_bench.datasets.shapes.render import CLASSES, draw, scene
from ssl_bench.runs.networks import trained_backbone, untrained_backbone

IMAGES = 4000
EVEN = (0.8, 0.0, 0.0)
"""Brightness, and its slopes along x and y."""
PX = 32


def explained(features: Tensor, causes: Tensor) -> float:
    """Share of the variance of features (n, dim) that a linear function of causes (n, k) explains."""
    centered = features - features.mean(0)
    given = torch.cat([causes, torch.ones(len(causes), 1)], dim=1)
    left = centered - given @ torch.linalg.lstsq(given, centered).solution
    return float(1 - left.square().sum() / centered.square().sum())


def light(seed: int, split: str, images: int) -> Tensor:
    """(n, 6) log brightness and relative slopes of the images' light, and their squares."""
    gains = np.array([scene(seed, split, index).light for index in range(images)])
    values = np.stack([np.log(gains[:, 0]), gains[:, 1] / gains[:, 0], gains[:, 2] / gains[:, 0]], axis=1)
    return torch.tensor(np.concatenate([values, values**2], axis=1), dtype=torch.float32)


def features_of(network: Backbone, dataset: Dataset, images: int) -> Tensor:
    """(n, dim) features of the first training images."""
    parts = []
    with eval_mode(network), torch.no_grad():
        for begin in range(0, images, 500):
            pictures = [dataset.train.image(index) for index in range(begin, min(begin + 500, images))]
            pixels = torch.stack([to_dtype(to_image(one), torch.float32, scale=True) for one in pictures])
            parts.append(network(normalize(pixels, IMAGENET_MEAN, IMAGENET_STD)))
    return torch.cat(parts)


def write_even(folder: Path, splits: Sequence[tuple[str, int]] = (("train", 8000), ("test", 2000))) -> None:
    """The images of `shapes`, drawn in one even light, as SPLIT/CLASS/NUMBER.png."""
    for split, images in splits:
        for index in range(images):
            image, _ = draw(replace(scene(0, split, index), light=EVEN), PX, PX)
            place = folder / split / CLASSES[index % len(CLASSES)].replace(" ", "_")
            place.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(place / f"{index:05d}.png")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, nargs="*", help="a run's folder, e.g. results/runs/mocov2-...")
    parser.add_argument("--even-light", type=Path, metavar="FOLDER", help="write the evenly lit images there")
    given = parser.parse_args(arguments)
    if given.even_light:
        write_even(given.even_light)
    kind = registry.dataset("shapes")
    dataset = kind(kind.Config(), None)
    labels = dataset.train.labels
    assert labels is not None, "shapes has labels"
    classes = functional.one_hot(torch.tensor(list(labels)[:IMAGES])).float()
    for folder in given.run:
        for name, load in (("untrained", untrained_backbone), ("trained", trained_backbone)):
            found = features_of(load(folder)[0], dataset, IMAGES)
            shares = explained(found, light(0, "train", IMAGES)), explained(found, classes)
            print(f"{folder.name} {name}: light {shares[0]:.2f}, class {shares[1]:.2f} of the variance")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
