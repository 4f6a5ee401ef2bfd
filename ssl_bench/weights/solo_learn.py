"""What solo-learn's `args.json`, beside its Lightning checkpoint, says of a network that its tensors do not.

Read in github.com/vturrisi/solo-learn at commit 9187ea3 (nested settings) and tag 1.0.5 (flat ones): which network a
name is (solo/backbones/vit), the stem for CIFAR (solo/methods/base.py) and how images of a dataset are evaluated
(`prepare_transforms` of solo/data/classification_dataloader.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ssl_bench.blocks.preprocessing import Preprocessing

ARGS = "args.json"
CIFAR = ("cifar10", "cifar100")
CIFAR_MEAN, STL10_MEAN, SMALL_STD = (0.4914, 0.4822, 0.4465), (0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261)
CIFAR_STEM_PADDING = 2
TWELVE_HEADS = ("vit_tiny", "vit_small", "vit_base")
"""Of the methods with transformers of their own, MoCo v3 and MAE (vit_mocov3.py, vit_mae.py)."""
METHODS = {"mocov2plus": "mocov2", "deepclusterv2": "deepcluster_v2"}
"""Its names of methods that have another name here."""


@dataclass(frozen=True)
class SoloLearn:
    """One training of solo-learn."""

    method: str
    """By its name here."""
    backbone: str
    """E.g. "resnet18", "vit_small"."""
    dataset: str

    @property
    def heads(self) -> int | None:
        """Attention heads where they are not one for every 64 of the width."""
        return 12 if self.method in ("mocov3", "mae") and self.backbone in TWELVE_HEADS else None

    @property
    def stem_padding(self) -> int | None:
        """Of a residual network's 3 x 3 stem; None for the stem of ImageNet and for other networks."""
        return CIFAR_STEM_PADDING if self.dataset in CIFAR and self.backbone.startswith("resnet") else None

    def preprocessing(self, crop_px: int) -> Preprocessing:
        """As it evaluates; `crop_px` of datasets other than CIFAR and STL-10."""
        source = f"solo-learn's evaluation ({ARGS}: {self.dataset})"
        if self.dataset in CIFAR:
            return Preprocessing(
                crop_px=32, resize_px=32, interpolation="bilinear", mean=CIFAR_MEAN, std=SMALL_STD, source=source
            )
        if self.dataset == "stl10":
            return Preprocessing(
                crop_px=96, resize_px=96, squash=True, interpolation="bilinear", mean=STL10_MEAN, std=SMALL_STD,
                source=source,
            )  # fmt: skip
        return Preprocessing(
            crop_px=crop_px, resize_px=round(crop_px * 256 / 224), interpolation="bilinear", source=source
        )


def solo_learn_of(args: Mapping[str, Any]) -> SoloLearn | None:
    """From the content of `args.json`; None for a file of another program."""
    method, dataset = args.get("method"), _inside(args, "data", "dataset") or args.get("dataset")
    backbone = _inside(args, "backbone", "name") or args.get("backbone") or args.get("encoder")
    if not (isinstance(method, str) and isinstance(backbone, str) and isinstance(dataset, str)):
        return None
    return SoloLearn(METHODS.get(method, method), backbone, dataset)


def _inside(args: Mapping[str, Any], section: str, name: str) -> Any:
    values = args.get(section)
    return values.get(name) if isinstance(values, Mapping) else None
