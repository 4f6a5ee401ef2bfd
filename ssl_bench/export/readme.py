"""The README beside exported weights: what they are, how they are loaded, how images are prepared."""

from __future__ import annotations

from ssl_bench.export.source import Source
from ssl_bench.export.targets import Written
from ssl_bench.weights.exported import Exported


def readme(exported: Exported, source: Source, written: Written) -> str:
    """Markdown; its first block of Python runs in the folder and turns `images` into `features`."""
    seen = exported.preprocessing
    from_where = f"run `{exported.source}`, recipe {exported.digest[:12]}"
    if exported.source_sha256:
        from_where = f"file `{exported.source}`, SHA-256 {exported.source_sha256}"
    resize = f"both sides to {seen.resize_px}" if seen.squash else f"the shorter side to {seen.resize_px}"
    size = [seen.resize_px] * 2 if seen.squash else seen.resize_px
    facts = {
        "from": from_where,
        "method": exported.method or "not known",
        "network": exported.network or "the only one",
        "architecture": f"{source.arch}, {source.backbone.feature_dim} features",
        "weights": f"`{exported.file}`, SHA-256 {exported.sha256}",
        "checked": "; ".join(
            f"{side} px, largest difference {share:.1e} of the largest feature"
            for side, share in exported.checked.items()
        ),
        "made with": ", ".join(f"{name} {version}" for name, version in exported.versions.items()),
    }
    rows = "\n".join(f"| {name} | {text} |" for name, text in facts.items())
    return f"""# {source.arch}{f", trained by {exported.method}" if exported.method else ""}

Exported by sslbench for {exported.target}. `sslbench inspect` and `sslbench eval` read this folder, too.

| | |
|---|---|
{rows}

## Features

`images` is a batch (batch, 3, height, width), float32, prepared as below. {sizes(exported)}

```python
{written.code}
```

## Preprocessing

RGB, {resize} px ({seen.interpolation}), center crop of {seen.crop_px} px, channels in 0..1, then
(x - mean) / std with mean {list(seen.mean)} and std {list(seen.std)}. In torchvision:

```python
import torch
from torchvision.transforms import v2 as transforms

prepare = transforms.Compose(
    [
        transforms.Resize({size}, transforms.InterpolationMode.{seen.interpolation.upper()}),
        transforms.CenterCrop({seen.crop_px}),
        transforms.PILToTensor(),
        transforms.ToDtype(torch.float32, scale=True),
        transforms.Normalize({list(seen.mean)}, {list(seen.std)}),
    ]
)
```
"""


def sizes(exported: Exported) -> str:
    """Which sizes of images it takes, in a sentence."""
    side = exported.preprocessing.crop_px
    if len(exported.checked) > 1:
        return f"It takes images of other sizes than {side} px, too, with the same features as here."
    return f"It takes images of {side} px; for another size export again with --image-px."
