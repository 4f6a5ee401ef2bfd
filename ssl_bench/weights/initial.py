"""Initial weights of a run (`--init`): from a finished run or a file, identified by the tensors themselves."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ssl_bench import registry
from ssl_bench.errors import UserError
from ssl_bench.records.recipe import Recipe
from ssl_bench.records.record import read_record
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import parse_settings
from ssl_bench.system.hints import resume_command, shell_quoted
from ssl_bench.weights.facts import facts_of
from ssl_bench.weights.kept import WEIGHTS_FILE, kept_weights
from ssl_bench.weights.loading import open_weights
from ssl_bench.weights.named.finding import is_name
from ssl_bench.weights.onnx_file import is_onnx
from ssl_bench.weights.reading import CONFIG, read_weights
from ssl_bench.weights.whole import heads_of

OWN_PREFIX = "network."
"""In front of every name in the files of our own backbones."""


@dataclass(frozen=True)
class InitialState:
    """Weights that every backbone of a method starts from."""

    source: Path
    """Absolute: the run's folder, or the file."""
    weights: Mapping[str, Tensor]
    fingerprint: str
    """Of the tensors, see `fingerprint_of`."""
    network: str = ""
    """Which network of its method they are of, e.g. "teacher"; "" where nothing says so."""
    arch: str = ""
    """What builds that network, as it is typed, e.g. "--arch deit_s16"; "" where nothing says so."""
    heads: int | None = None
    """Attention heads, where the file says how many; shapes do not."""
    heads_evidence: str = ""
    name: str = ""
    """The published name that they were asked for by, with the commit; "" for a path."""

    @property
    def words(self) -> str:
        """What they are, for messages and records, e.g. "dino-deit_s16-shapes-s0-3f9c (teacher), sha256 0f3a..."."""
        network = f" ({self.network})" if self.network else ""
        return f"{self.name or self.source.name}{network}, sha256 {self.fingerprint[:12]}"


def initial_state(source: Path, network: str | None = None) -> InitialState:
    """The weights that `source`, a finished run's folder, a file or a published name, holds of a backbone.

    `network` asks for one by its name in the method; a run keeps the one that it evaluates. Raises `UserError` where
    there are none, for damaged files, for values that are not finite, and for another network.
    """
    named = is_name(str(source))
    source = source if named else source.expanduser().absolute()
    if named:
        state = _of_others(source, network)
    elif source.is_dir():
        state = _of_others(source, network) if (source / CONFIG).exists() else _of_run(source)
    else:
        state = _of_file(source, network)
    if network and state.network and network != state.network:
        raise UserError(
            f"{source} holds the network {state.network!r}, not {network!r}: leave initial.network out, or set it to "
            f"{state.network}"
        )
    odd = [name for name, tensor in state.weights.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if odd:
        raise UserError(
            f"{source} has NaN or infinity in {len(odd)} tensors, first in {odd[0]}: nothing can be trained from it"
        )
    return state


def fingerprint_of(weights: Mapping[str, Tensor]) -> str:
    """Hex SHA-256 over all tensors by name: name, type, shape and bytes. How a file holds them does not matter."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def arch_as_typed(recipe: Recipe) -> str:
    """What builds a run's backbone, e.g. "--arch deit_s16 --set backbone.depth=2"."""
    try:
        fields = registry.backbone(recipe.backbone.name).Config.model_fields
    except UserError:  # a plugin that is not installed here
        fields = {}
    given = [
        f" --set {shell_quoted(f'backbone.{name}={value}')}"
        for name, value in recipe.backbone.settings.items()
        if name in fields and name not in ("name", "weights") and value != fields[name].get_default()
    ]
    return f"--arch {recipe.arch}{''.join(given)}"


def _of_run(folder: Path) -> InitialState:
    if not (folder / "record.json").exists():
        if (folder / "run.json").exists():
            raise UserError(f"the run {folder.name} is not finished: end it first with {resume_command(folder)}")
        raise UserError(f"{folder} is no run's folder (record.json is missing). Give a finished run or a file")
    record = read_record(folder / "record.json")
    if record.status != "finished":
        raise UserError(f"the run {record.run_id} {record.status}: {record.status_reason}")
    if not record.steps:
        raise UserError(f"the run {record.run_id} trained nothing, so that it kept no weights: choose another run")
    weights = kept_weights(folder)
    network = next((one.network for one in record.evaluations if one.network), None) or ""
    recipe = Recipe.model_validate(record.recipe)
    fingerprint, heads = fingerprint_of(weights), _heads_of_run(recipe)
    return InitialState(folder, weights, fingerprint, network, arch_as_typed(recipe), heads, "the run's recipe")


def _heads_of_run(recipe: Recipe) -> int | None:
    try:
        kind = registry.backbone(recipe.backbone.name)
        config = parse_settings(kind.Config, recipe.backbone.settings, "backbone", recipe.backbone.name)
    except UserError:  # a plugin that is not installed here
        return None
    network = blueprint(kind, config, recipe.data.image_px)
    return None if network is None else heads_of(network)


def _of_file(path: Path, network: str | None) -> InitialState:
    if path.name == "record.json":
        return _of_run(path.parent)
    if path.name == WEIGHTS_FILE and (path.parent / "record.json").exists():
        return _of_run(path.parent)  # checked against its digest there
    if not path.exists():
        raise UserError(f"{path} is not there. Give --init a finished run or a file of weights")
    if is_onnx(path):
        raise UserError(f"{path} is an ONNX graph: nothing can be trained from it. Give weights of PyTorch")
    stored = read_weights(path)
    if stored.container == "safetensors" and all(name.startswith(OWN_PREFIX) for name in stored.content):
        weights = dict(stored.content)
        if not weights:
            raise UserError(f"{path} holds no tensors")
        described = stored.metadata
        return InitialState(
            path, weights, fingerprint_of(weights), described.get("network", ""), described.get("arch", "")
        )
    return _of_others(path, network)


def _of_others(path: Path, network: str | None) -> InitialState:
    """One network of a checkpoint made elsewhere, by timm's names, in fp32."""
    recognized = open_weights(path)
    candidate = recognized.choose(network)
    facts = facts_of(recognized, candidate)
    weights = {name: one.float() if one.is_floating_point() else one for name, one in candidate.tensors.items()}
    located = recognized.located
    arch = " ".join(
        (f"--arch {located.arch}", *(f"--set backbone.{name}={value}" for name, value in located.settings.items()))
    )
    return InitialState(
        path, weights, fingerprint_of(weights), candidate.name, arch if located.arch else "", facts.heads,
        facts.heads_evidence, located.pinned,
    )  # fmt: skip
