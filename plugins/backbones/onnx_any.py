"""Any network as an ONNX file: `--arch onnx:FILE`, for what has no PyTorch code. It is evaluated, not trained.

Source: https://onnx.ai/onnx/repo-docs/IR.html; run by onnxruntime (extra `onnx`).

The graph takes one batch of images, (batch, 3, height, width) or (batch, height, width, 3), and gives features. Where
it was made for one size or one number of images, it gets that. Its file is identified by the SHA-256 of its content,
files with its weights beside it included.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ssl_bench.backbone import Backbone, Kind
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import UserError
from ssl_bench.settings import GivenPath, Settings, setting

NO_MORE = "an ONNX file gives features alone"
FLOATS: dict[str, Any] = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
"""Types of images that are handed over, after normalization."""
EXPORTED = "sslbench"
"""The property in which `sslbench export` keeps what it knows of the network."""


class OnnxSettings(Settings):
    """Which file, and what of its outputs are the features."""

    name: str = setting(..., "The file; recorded without its folder.")
    path: GivenPath | None = setting(None, "Where the file lies; null: where the name says.")
    sha256: str | None = setting(None, "SHA-256 that the file must have; null: any, and recorded.")
    output: str | None = setting(None, "Which output; null: the only one.")
    pool: Literal["cls", "mean"] | None = setting(
        None, "Of an output with tokens or positions: the first token, or the mean over all; null: it has none."
    )


class OnnxAny(Backbone):
    """Any network as an ONNX file, run by onnxruntime."""

    Config = OnnxSettings
    kind: Kind = "convnet"
    trainable = False
    supports = frozenset()
    why_not = dict.fromkeys(("attention", "patch_tokens", "masking", "feature_maps"), NO_MORE)

    def __init__(self, config: OnnxSettings, *, image_px: int, drop_path: float = 0.0) -> None:
        super().__init__(config, image_px=image_px, drop_path=drop_path)
        self.config, path = config, Path(config.path or config.name)
        if config.sha256 is not None and fingerprint(path) != config.sha256:
            raise UserError(f"{path} is not the file that was evaluated: its SHA-256 is no longer {config.sha256[:12]}")
        self.patch_px, self.image_px = None, image_px
        self._graph: Graph = Graph(path)
        self._output = self._chosen(config.output)
        self._pool = config.pool
        self._graph.check_side(image_px)
        self.feature_dim = int(self(torch.zeros(1, 3, image_px, image_px)).shape[1])
        self.preprocessing = self._graph.preprocessing

    @classmethod
    def fill(cls, config: OnnxSettings, image_px: int, defaults: Mapping[str, Any]) -> OnnxSettings:
        """The file's name, place and SHA-256. Raises `UserError` where it is missing."""
        given = OnnxSettings(name=config.name, path=config.path or config.name).path
        assert given is not None
        path = Path(given)
        return config.model_copy(
            update={"name": path.name, "path": str(path), "sha256": config.sha256 or fingerprint(path)}
        )

    @classmethod
    def only_px_for(cls, config: OnnxSettings) -> int | None:
        """The side of the images that the file was made for, where it takes one only."""
        sides = Graph(Path(config.path or config.name)).sides
        return sides[0] if sides else None

    @property
    def parameter_count(self) -> int:
        """Numbers that the file holds as weights."""
        return self._graph.parameters

    def forward(self, images: Tensor) -> Tensor:
        """(batch, 3, height, width) -> (batch, dim). Raises `UserError` where the file cannot give that."""
        self._graph.check_side(images.shape[-1])
        given = self._graph.run(images.detach().cpu().float().numpy(), self._output)
        features = torch.from_numpy(self._pooled(given, len(images))).float()
        return features.to(images.device)

    def _chosen(self, wanted: str | None) -> str:
        names = self._graph.outputs
        if wanted is None and len(names) == 1:
            return next(iter(names))
        if wanted in names:
            return str(wanted)
        listed = ", ".join(f"{name} {shape}" for name, shape in names.items())
        first = "has several outputs" if wanted is None else f"has no output {wanted!r}"
        raise UserError(
            f"{self._graph.path} {first}: {listed}. Choose one, e.g. --set backbone.output={next(iter(names))}"
        )

    def _pooled(self, given: NDArray[Any], images: int) -> NDArray[Any]:
        """(batch, dim) of what the output holds: a vector, tokens (batch, tokens, dim) or maps."""
        if given.ndim < 2 or len(given) != images:
            raise UserError(
                f"{self._graph.path}: the output {self._output} has the shape {given.shape} for {images} images; "
                "features are (images, dim). Another output? --set backbone.output=NAME"
            )
        if given.ndim == 2 or math.prod(given.shape[1:]) == max(given.shape[1:]):  # pooled maps of 1 x 1
            return given.reshape(images, -1)
        if self._pool is None:
            kind = "tokens" if given.ndim == 3 else "positions"
            first = "--set backbone.pool=cls (the first token) or " if given.ndim == 3 else ""
            raise UserError(
                f"{self._graph.path}: the output {self._output} has {kind}, its shape is {given.shape}. Say how they "
                f"become one vector: {first}--set backbone.pool=mean"
            )
        if given.ndim == 3:
            return given[:, 0] if self._pool == "cls" else given.mean(axis=1)
        if given.ndim != 4 or self._pool == "cls":
            raise UserError(
                f"{self._graph.path}: the output {self._output} has the shape {given.shape}, which has no class token: "
                "--set backbone.pool=mean, or another output with --set backbone.output=NAME"
            )
        maps: NDArray[Any] = given.mean(axis=(1, 2) if self._graph.channels_last else (2, 3))
        return maps


class Graph:
    """One ONNX file: what it takes and gives. Copies share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        model = _model(path)
        weights = [one for one in model.graph.initializer if one.data_type in _FLOAT_TYPES]
        self.parameters: int = sum(math.prod(one.dims) for one in weights)
        self._session = _session(path)
        inputs = self._session.get_inputs()
        if len(inputs) != 1:
            listed = ", ".join(f"{one.name} {_shape(one.shape)}" for one in inputs)
            raise UserError(f"{path} takes {len(inputs)} inputs ({listed}), and a network of images takes one")
        self._input = inputs[0]
        shape = self._input.shape
        if len(shape) != 4 or self._input.type not in FLOATS:
            raise UserError(
                f"{path} takes {self._input.type} {_shape(shape)}: images are (batch, 3, height, width) or "
                f"(batch, height, width, 3) of {', '.join(FLOATS)}, normalized before"
            )
        self.channels_last = shape[3] == 3 and shape[1] != 3
        channels = shape[3 if self.channels_last else 1]
        if isinstance(channels, int) and channels != 3:
            raise UserError(f"{path} takes images of {channels} channels, {_shape(shape)}: RGB images have 3")
        height, width = shape[1:3] if self.channels_last else shape[2:]
        self.sides: tuple[int, ...] = tuple(side for side in (height, width) if isinstance(side, int))
        self.batch = shape[0] if isinstance(shape[0], int) else None
        self.outputs: dict[str, str] = {one.name: _shape(one.shape) for one in self._session.get_outputs()}
        self.preprocessing = _preprocessing(self._session.get_modelmeta().custom_metadata_map)

    @property
    def stands_for(self) -> str:
        """All that decides its outputs, so that features of it can be kept: the file's content, and who runs it."""
        import onnxruntime

        return f"{fingerprint(self.path)} run by onnxruntime {onnxruntime.__version__}"

    def __deepcopy__(self, memo: Any) -> Graph:
        return self

    def check_side(self, side: int) -> None:
        """Raises `UserError` for an image size that the file was not made for."""
        if any(side != own for own in self.sides):
            own = self.sides[0] if len(set(self.sides)) == 1 else " x ".join(map(str, self.sides))
            raise UserError(
                f"{self.path} takes images of {own} px, not {side}: --set data.image_px={self.sides[0]}, or "
                f"preprocessing.crop_px={self.sides[0]} for a set whose images are resized"
            )

    def run(self, images: NDArray[np.float32], output: str) -> NDArray[Any]:
        """The output for (batch, 3, height, width), in parts of the number of images that the file takes."""
        given = images.transpose(0, 2, 3, 1) if self.channels_last else images
        given = np.ascontiguousarray(given.astype(FLOATS[self._input.type]))
        if self.batch is None:
            return self._compute(given, output)
        parts = []
        for low in range(0, len(given), self.batch):
            part = given[low : low + self.batch]
            lacking = self.batch - len(part)
            if lacking:
                part = np.concatenate([part, np.zeros((lacking, *part.shape[1:]), part.dtype)])
            parts.append(self._compute(part, output)[: self.batch - lacking])
        return np.concatenate(parts)

    def _compute(self, images: NDArray[Any], output: str) -> NDArray[Any]:
        try:
            [found] = self._session.run([output], {self._input.name: images})
        except Exception as error:  # onnxruntime raises exceptions of its own
            raise UserError(
                f"{self.path} fails on {len(images)} images of the shape {images.shape[1:]} ({_first_line(error)})"
            ) from error
        return np.asarray(found)


def fingerprint(path: Path) -> str:
    """SHA-256 of the file; with weights in files of their own, over its digest and theirs. Raises `UserError`."""
    model = _model(path)
    others = {entry.value for one in model.graph.initializer for entry in one.external_data if entry.key == "location"}
    digests = [_sha256(path), *(_sha256(path.parent / name) for name in sorted(others))]
    return digests[0] if len(digests) == 1 else hashlib.sha256(" ".join(digests).encode()).hexdigest()


_FLOAT_TYPES = (1, 10, 11, 16)
"""float, float16, double and bfloat16 among ONNX's `TensorProto.DataType`."""


def _model(path: Path) -> Any:
    import onnx

    if not path.is_file():
        raise UserError(f"{path} does not exist: give an ONNX file, --arch onnx:FILE")
    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # protobuf raises exceptions of its own
        raise UserError(f"{path} is no ONNX file, or only part of one ({_first_line(error)})") from error
    if not model.graph.node:
        raise UserError(f"{path} is no ONNX file: it has no graph")
    return model


def _session(path: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # errors are raised, and told once
    try:
        return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises exceptions of its own
        raise UserError(f"onnxruntime cannot run {path} ({_first_line(error)})") from error


def _preprocessing(properties: Mapping[str, str]) -> Preprocessing | None:
    try:
        return Preprocessing.model_validate(json.loads(properties[EXPORTED])["preprocessing"])
    except (KeyError, TypeError, ValueError):
        return None


def _shape(shape: Any) -> str:
    return f"({', '.join(str(side) if side is not None else '?' for side in shape)})"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().partition("\n")[0] or type(error).__name__).rstrip(".")
