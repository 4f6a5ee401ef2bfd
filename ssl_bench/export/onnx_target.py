"""ONNX: a graph of the features, with any number of images, and of any size where the network is convolutional."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from ssl_bench.errors import NotExpressible
from ssl_bench.export.source import Source
from ssl_bench.export.targets import Compute, Target, Written
from ssl_bench.weights.exported import HEADER

FILE = "model.onnx"
IMAGES, FEATURES = "images", "features"
OPSET = 17
"""Of ONNX 1.12: runtimes of 2022 and later read it."""


def write(source: Source, folder: Path, header: str) -> Written:
    """The graph, with the header among its properties."""
    import onnx

    path = folder / FILE
    _trace(source, path)
    model = onnx.load(path, load_external_data=False)
    onnx.helper.set_model_props(model, {HEADER: header})
    onnx.save(model, path)
    code = f"""import onnxruntime

session = onnxruntime.InferenceSession({FILE!r}, providers=["CPUExecutionProvider"])
[features] = session.run(None, {{{IMAGES!r}: images}})  # a NumPy array, float32"""

    def load() -> Compute:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # a size that it does not take is no error here
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda images: torch.from_numpy(session.run(None, {IMAGES: images.numpy()})[0])

    return Written(code, load)


def _trace(source: Source, path: Path) -> None:
    """By torch's exporter that traces: at 2 images it takes a twentieth of the time of the one that compiles."""
    images = torch.zeros(2, 3, source.image_px, source.image_px)
    free = {0: "batch"} if source.backbone.kind == "vit" else {0: "batch", 2: "height", 3: "width"}
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing and of this exporter's age
            torch.onnx.export(
                source.backbone, (images,), path, input_names=[IMAGES], output_names=[FEATURES],
                dynamic_axes={IMAGES: free, FEATURES: {0: "batch"}}, opset_version=OPSET, dynamo=False,
            )  # fmt: skip
    except Exception as error:  # whatever an operator without a translation makes it raise
        raise NotExpressible(f"ONNX's exporter fails on it ({str(error).strip().splitlines()[0]})") from error


TARGET = Target(FILE, write, packages=("onnx", "onnxruntime"), extra="onnx")
