"""`sslbench export`: a network written for a library, read back by that library and compared before it is kept."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

import ssl_bench
from ssl_bench.errors import NotExpressible, UserError
from ssl_bench.export.readme import readme
from ssl_bench.export.source import Source, at_size, of_file, of_run
from ssl_bench.export.targets import Compute, Target, Written, target_called
from ssl_bench.runs.folder import find_run
from ssl_bench.system.files import new_folder
from ssl_bench.weights.exported import MANIFEST, Exported
from ssl_bench.weights.named.finding import is_name
from ssl_bench.weights.tensor_file import digest
from ssl_bench.weights.whole import norm_eps

TOLERANCE = 1e-5
"""Largest difference of a feature, as a share of the largest feature: float32, sums in another order."""
MORE_PX = 32
"""How much larger the second size is at which a network without patches is compared; with patches: two of them."""


@dataclass(frozen=True)
class ExportRequest:
    """What is to be exported, as a user gives it."""

    source: str
    """A run, a file or folder of weights, or a published name."""
    target: str
    out: Path | None = None
    network: str | None = None
    arch: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the backbone, for a file."""
    image_px: int | None = None
    """None: the size that the network was trained or is evaluated at."""
    accept_mismatch: bool = False


def export(
    request: ExportRequest, results: Path, say: Callable[[str], None] = lambda line: None
) -> tuple[Path, Exported, Written]:
    """Write the folder and return it with what stands in its `sslbench.json`, and how it is loaded.

    Raises `UserError` before anything is written where the target cannot express the network, and leaves nothing where
    what was written gives other features.
    """
    target = target_called(request.target)
    source = at_size(_source(request, results), request.image_px)
    out = request.out or Path(f"{_as_file_name(source)}-{request.target}")
    if out.suffix == Path(target.file).suffix:
        raise UserError(f"--out is a folder, into which {target.file} is written: e.g. --out {out.with_suffix('')}")
    for note in source.notes:
        say(note)
    say(f"{source.arch} for {request.target}; what is written is loaded by it, and features are compared")
    return out, *write_export(source, request.target, out)


def write_export(source: Source, name: str, out: Path) -> tuple[Exported, Written]:
    """One network for the target called `name`; errors as `export`."""
    target = target_called(name)
    if not source.tensors:
        raise NotExpressible(f"{source.arch} cannot be exported: it has no weights")
    with new_folder(out) as part:
        exported = _described(source, name, target)
        try:
            written = target.write(source, part, exported.model_dump_json())
            checked = compare(source, written.load())
        except NotExpressible as error:
            raise NotExpressible(
                f"{source.arch} cannot be exported to {name}: {error}. What takes it: {_others(source, name)}"
            ) from error
        exported = exported.model_copy(update={"sha256": digest(part / target.file), "checked": checked})
        (part / MANIFEST).write_text(exported.model_dump_json(indent=2) + "\n", "utf-8")
        (part / "README.md").write_text(readme(exported, source, written), "utf-8")
    return exported, written


@torch.no_grad()
def compare(source: Source, computed: Compute) -> dict[int, float]:
    """Image size -> largest difference of features, as a share of the largest: at the network's size, and at a larger
    one unless either side refuses it. Raises `NotExpressible` where features differ by more than `TOLERANCE`."""
    checked: dict[int, float] = {}
    more = 2 * source.backbone.patch_px if source.backbone.patch_px else MORE_PX
    for side in (source.image_px, source.image_px + more):
        images = torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(side))
        try:
            expected, given = source.backbone(images), computed(images)
        except Exception as error:  # a size for which neither the network nor the library was made
            if side == source.image_px:
                raise NotExpressible(f"it fails when it is read back ({str(error).strip().splitlines()[0]})") from error
            continue
        if given.shape != expected.shape:
            raise NotExpressible(f"its features there are {tuple(given.shape)}, here {tuple(expected.shape)}")
        checked[side] = float((given - expected).abs().max() / expected.abs().max())
        if not checked[side] <= TOLERANCE:
            raise NotExpressible(
                f"features of images of {side} px differ by {checked[side]:.1e} of the largest: its layers compute "
                "something else there"
            )
    return checked


def _source(request: ExportRequest, results: Path) -> Source:
    path = Path(request.source).expanduser()
    is_run = (path / "record.json").exists() or path.name == "record.json"
    if is_name(request.source) or (path.exists() and not is_run):
        return of_file(request.source, request.arch, request.network, request.settings, request.accept_mismatch)
    given = [
        option
        for option, value in (
            ("--arch", request.arch), ("--set", request.settings), ("--accept-mismatch", request.accept_mismatch),
        )
        if value
    ]  # fmt: skip
    if given:
        raise UserError(f"{', '.join(given)} are for files of weights, and {request.source} is none: leave them out")
    return of_run(find_run(request.source, results), request.network)


def _as_file_name(source: Source) -> str:
    """The run's id, a published name with ":" and "/" replaced, or a file's name without its ending."""
    if is_name(source.name):
        return "".join(c if c.isalnum() or c in "._-" else "_" for c in source.name)
    return Path(source.name).stem if source.sha256 else source.name


def _described(source: Source, name: str, target: Target) -> Exported:
    return Exported(
        file=target.file,
        target=name,
        source=source.name,
        source_sha256=source.sha256,
        digest=source.digest,
        method=source.method,
        network=source.network,
        backbone=source.plugin,
        settings=source.settings,
        image_px=source.backbone.image_px,
        norm_eps=norm_eps(source.backbone),
        preprocessing=source.preprocessing,
        versions={
            "sslbench": ssl_bench.__version__,
            "torch": torch.__version__,
            **{package: importlib.metadata.version(package) for package in ("timm", *target.packages)},
        },
    )


def _others(source: Source, refused: str) -> str:
    """Targets that take it, in words."""
    names = ["onnx", "safetensors"]
    with suppress(NotExpressible):
        source.backbone.timm_model()
        names.insert(0, "timm")
    return ", ".join(f"--to {name}" for name in names if name != refused)
