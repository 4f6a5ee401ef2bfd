"""The published weights of timm and torchvision, by the names that these libraries give them."""

from __future__ import annotations

import dataclasses
from typing import Any

from ssl_bench.blocks.preprocessing import Preprocessing, from_timm
from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.weights.named import hub
from ssl_bench.weights.named.files import Remote, obtain
from ssl_bench.weights.named.located import Located

METHODS_OF_TAGS = {
    "dino": "dino", "mae": "mae", "lvd142m": "dinov2", "lvd1689m": "dinov3", "sat493m": "dinov3", "fcmae": "fcmae",
}  # fmt: skip
"""timm's tags of networks that were trained without labels -> method."""


def of_timm(name: str) -> Located:
    """`vit_small_patch16_224.dino`. Raises `UserError` for a name or tag that timm does not have."""
    import timm

    base, dot, tag = name.partition(".")
    if not timm.is_model(base):
        known = timm.list_models(pretrained=True)
        raise UserError(
            f"timm has no network called {base!r}.{did_you_mean(name, known)} All that have weights: "
            'python -c "import timm; print(timm.list_pretrained())"'
        )
    tags = [one for one in timm.list_pretrained(f"{base}.*") if one.partition(".")[0] == base]
    if not dot or name not in tags:
        has = f"It has {', '.join(f'timm:{one}' for one in tags)}" if tags else "timm has none of that network"
        what = f"pretrained weights called {name!r}" if dot else f"weights in {name!r}: a tag names them"
        raise UserError(f"timm has no {what}.{did_you_mean(name, tags) if dot else ''} {has}")
    config: Any = timm.get_pretrained_cfg(name)
    found = Located(
        name=f"timm:{name}",
        arch=f"timm:{base}",
        method=METHODS_OF_TAGS.get(tag, ""),
        preprocessing=from_timm(dataclasses.asdict(config)),
    )
    if config.hf_hub_id:
        path, commit = hub.repository(config.hf_hub_id, file=config.hf_hub_filename, asked=found.name)
        return dataclasses.replace(
            found, path=path, address=f"https://huggingface.co/{config.hf_hub_id}", revision=commit
        )
    if not config.url:
        raise UserError(f"timm names no address of the weights {name!r}: give a file of weights")
    remote = Remote(found.name, config.url, config.url.rpartition("/")[2], instead=f"--arch timm:{base}")
    return dataclasses.replace(found, path=obtain(remote), address=config.url)


def of_torchvision(name: str) -> Located:
    """`ResNet50_Weights.IMAGENET1K_V2`. Raises `UserError` for what torchvision does not have."""
    from torchvision import models

    kinds = {models.get_model_weights(one).__name__: one for one in models.list_models()}
    kind, dot, _ = name.partition(".")
    if kind in models.list_models():
        kind = models.get_model_weights(kind).__name__
    if kind not in kinds:
        raise UserError(
            f"torchvision has no weights called {name!r}.{did_you_mean(kind, kinds)} Give e.g. "
            "torchvision:ResNet50_Weights.IMAGENET1K_V2"
        )
    known = [f"{kind}.{one.name}" for one in models.get_model_weights(kinds[kind])]
    if name not in (*known, f"{kind}.DEFAULT"):
        raise UserError(
            f"torchvision has no weights called {name!r}.{did_you_mean(name, known) if dot else ''} It has "
            f"{', '.join(f'torchvision:{one}' for one in known)}"
        )
    weights: Any = models.get_weight(name)
    file = weights.url.rpartition("/")[2]
    digits = file.partition(".")[0].rpartition("-")[2]  # as torch.hub reads the checksum of a file's name
    remote = Remote(f"torchvision:{kind}.{weights.name}", weights.url, file, sha256=digits if len(digits) == 8 else "")
    return Located(
        name=remote.name,
        path=obtain(remote),
        address=weights.url,
        method="swag" if "SWAG" in weights.name else "supervised",
        preprocessing=_of_torchvision(weights.transforms()),
    )


def _of_torchvision(transform: Any) -> Preprocessing:
    """From torchvision's `ImageClassification`, which resizes, crops and normalizes."""
    if not hasattr(transform, "crop_size"):
        raise UserError("these weights of torchvision are not of a network that classifies images")
    return Preprocessing(
        crop_px=transform.crop_size[0],
        resize_px=transform.resize_size[0],
        interpolation="bilinear" if transform.interpolation.value == "bilinear" else "bicubic",
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        source="torchvision's transforms of the weights",
    )
