"""ONNX files among files of weights: a graph with its weights, which the backbone `onnx` runs as it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ssl_bench import registry
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import UserError
from ssl_bench.settings import parse_settings
from ssl_bench.weights.exported import exported_as
from ssl_bench.weights.facts import RESIZE_TO_CROP
from ssl_bench.weights.formats import EXPORTED, ONNX
from ssl_bench.weights.loaded import Loaded
from ssl_bench.weights.naming import Layout
from ssl_bench.weights.reading import Stored
from ssl_bench.weights.recognize import Candidate, Recognized

PLUGIN = "onnx"
"""Registered name of the backbone that runs them."""
ENDING = ".onnx"
DEFAULT_PX = 224


def is_onnx(path: Path) -> bool:
    """Whether a path names an ONNX file; of a folder that `sslbench export` wrote, whether it holds one."""
    return graph_at(path) is not None


def graph_at(path: Path) -> Path | None:
    """The ONNX file that a path means."""
    path = path.expanduser()
    if path.suffix.lower() == ENDING and not path.is_dir():
        return path
    exported = path / "model.onnx"
    return exported if exported.is_file() and not (path / "config.json").exists() else None


def recognize_onnx(path: Path) -> Recognized:
    """What an ONNX file is, in place of tensors by name. Raises `UserError` for a file that is none."""
    file = graph_at(path)
    assert file is not None
    kind = registry.backbone(PLUGIN)
    filled: Any = kind.fill(parse_settings(kind.Config, {"name": str(file)}, "backbone", PLUGIN), DEFAULT_PX, {})
    import onnx

    model = onnx.load(file, load_external_data=False)
    properties = {one.key: one.value for one in model.metadata_props}
    exported = exported_as(file, filled.sha256, properties)
    stored = Stored(path.expanduser(), "ONNX", {}, filled.sha256, metadata=properties, exported=exported)
    count = len(model.graph.initializer)
    producer = " ".join(part for part in (model.producer_name, model.producer_version) if part)
    words = f"ONNX graph, {', '.join(_signature(one) for one in model.graph.input)} -> "
    words += ", ".join(_signature(one) for one in model.graph.output) + (f", made by {producer}" if producer else "")
    form = ONNX
    if exported is not None:
        form = replace(EXPORTED, method=exported.method)
        words = f"exported by sslbench for {exported.target} from {exported.source}; {words}"
    graph = Candidate("graph", "", Layout("ONNX", ("",), family=""), {}, ())
    return Recognized(stored, form, words, (graph,), (), {"initializers": count})


def load_onnx(recognized: Recognized, arch: str | None, key: str | None, settings: Mapping[str, Any]) -> Loaded:
    """The graph as a network. Raises `UserError` for another architecture, and for a graph that gives no features."""
    stored = recognized.stored
    if arch is not None and arch.partition(":")[0] != PLUGIN:
        raise UserError(f"{recognized.shown} is an ONNX graph, which is run as it is: leave --arch {arch} out")
    candidate = recognized.choose(key)
    kind = registry.backbone(PLUGIN)
    given = {"name": str(graph_at(stored.path)), **settings}
    config = parse_settings(kind.Config, given, "backbone", PLUGIN)
    side = kind.only_px_for(config)
    seen = stored.exported.preprocessing if stored.exported is not None else None
    if seen is None:
        crop_px = side or DEFAULT_PX
        seen = Preprocessing(
            crop_px=crop_px,
            resize_px=round(crop_px * RESIZE_TO_CROP),
            source="assumed: mean and std of ImageNet, 256/224",
        )
    config = kind.fill(config, seen.crop_px, {})
    backbone = kind(config, image_px=seen.crop_px)
    backbone.mean, backbone.std = seen.mean, seen.std
    used = int(recognized.settings["initializers"])
    return Loaded(backbone.eval(), PLUGIN, config, recognized, candidate, used, (), seen)


def _signature(value: Any) -> str:
    """E.g. "images (batch, 3, 224, 224)"."""
    sides = [side.dim_param or (str(side.dim_value) if side.HasField("dim_value") else "?")
             for side in value.type.tensor_type.shape.dim]  # fmt: skip
    return f"{value.name} ({', '.join(sides)})"
