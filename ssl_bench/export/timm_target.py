"""timm: the folder of its Hugging Face format, which `timm.create_model("local-dir:FOLDER")` reads.

Source: timm 1.0, `timm/models/_hub.py`, save_config_for_hf and load_model_config_from_path.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import timm
from safetensors.torch import save_file

from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import NotExpressible
from ssl_bench.export.source import Source
from ssl_bench.export.targets import Compute, Target, Written
from ssl_bench.weights.exported import HEADER
from ssl_bench.weights.tensor_file import detached
from ssl_bench.weights.whole import norm_eps

FILE = "model.safetensors"


def write(source: Source, folder: Path, header: str) -> Written:
    """Weights and `config.json` with timm's name, arguments and preprocessing."""
    form = source.backbone.timm_model()
    network: Any = timm.create_model(form.name, num_classes=0, **form.arguments)
    try:
        network.load_state_dict(source.tensors)
    except RuntimeError as error:
        raise NotExpressible(f"timm's {form.name} has other tensors ({str(error).splitlines()[1].strip()})") from error
    if norm_eps(network) != norm_eps(source.backbone):
        raise NotExpressible(
            f"its norms have epsilon {norm_eps(source.backbone)[0]:g}, timm's {form.name} has {norm_eps(network)[0]:g}"
        )
    save_file(detached(network.state_dict()), folder / FILE, metadata={"format": "pt", HEADER: header})
    config = {
        "architecture": form.name,
        "num_classes": 0,
        "num_features": source.backbone.feature_dim,
        "model_args": form.arguments,
        "pretrained_cfg": {
            **_seen(source.preprocessing),
            "num_classes": 0,
            "fixed_input_size": "img_size" in form.arguments and "dynamic_img_size" not in form.arguments,
            "first_conv": network.pretrained_cfg.get("first_conv"),
            "classifier": network.pretrained_cfg.get("classifier"),
        },
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    given = "".join(f", {name}={value!r}" for name, value in form.arguments.items())
    code = f"""import timm

model = timm.create_model("local-dir:.", pretrained=True).eval()
features = model(images)

# or, without config.json:
model = timm.create_model({form.name!r}, num_classes=0, checkpoint_path={FILE!r}{given})"""

    def load() -> Compute:
        path = str(folder / FILE)
        loaded: Any = timm.create_model(form.name, num_classes=0, checkpoint_path=path, **form.arguments)
        return loaded.eval()  # type: ignore[no-any-return]

    return Written(code, load)


def _seen(seen: Preprocessing) -> dict[str, Any]:
    """As `timm.data.create_transform` reads it: the shorter side is resized to floor(crop / crop_pct)."""
    share = seen.crop_px / seen.resize_px
    if int(seen.crop_px / share) != seen.resize_px:
        share = seen.crop_px / (seen.resize_px + 0.5)
    return {
        "input_size": [3, seen.crop_px, seen.crop_px],
        "interpolation": seen.interpolation,
        "crop_pct": share,
        "crop_mode": "squash" if seen.squash else "center",
        "mean": list(seen.mean),
        "std": list(seen.std),
    }


TARGET = Target(FILE, write)
