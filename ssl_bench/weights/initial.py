"""Initial weights of a run (`--init`): from a finished run, a file or a published name; identified by the tensors
themselves, loaded whole into a backbone or refused."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ssl_bench import registry
from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.records.reading import read_record
from ssl_bench.records.recipe import Recipe
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import Settings, parse_assignments, parse_settings, section_of
from ssl_bench.system.hints import resume_command, shell_quoted
from ssl_bench.weights.architectures import DEFAULT_PX
from ssl_bench.weights.facts import Undecided, facts_of
from ssl_bench.weights.kept import WEIGHTS_FILE, kept_weights
from ssl_bench.weights.known import known_backbone
from ssl_bench.weights.loading import open_weights
from ssl_bench.weights.named.finding import is_name
from ssl_bench.weights.onnx_file import is_onnx
from ssl_bench.weights.reading import CONFIG, read_weights
from ssl_bench.weights.whole import compared, heads_of, in_own_names, require_plain_numbers

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
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the backbone, which the file says and the tensors do not, e.g. {"stem_padding": 2}."""
    undecided: Undecided | None = None
    """What neither says."""
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


def start_from(backbone: Backbone, initial: InitialState, arch: str) -> None:
    """Load initial weights into a new backbone, all of them, and name them in `backbone.pretrained`."""
    weights = require_fit(backbone, initial, arch)
    backbone.load_state_dict(weights)
    given = in_own_names(weights, initial.weights)
    resampled = [
        f"{name} resampled from {tuple(tensor.shape)} to {tuple(weights[name].shape)}"
        for name, tensor in given.items()
        if name in weights and weights[name].shape != tensor.shape
    ]
    backbone.pretrained = ", ".join([initial.words, *resampled])


def require_fit(backbone: Backbone, initial: InitialState, arch: str) -> dict[str, Tensor]:
    """The weights as they load into `backbone`, which may be on the meta device.

    Raises `UserError` for those of another architecture.
    """
    state = backbone.state_dict()
    given = in_own_names(state, initial.weights)
    for name, tensor in given.items():
        if name in state and not name.endswith("num_batches_tracked"):  # which `in_own_names` fills in
            try:
                require_plain_numbers(name, tensor, state[name])
            except UserError as error:
                raise UserError(f"the initial weights {initial.source} cannot be loaded into {arch}: {error}") from None
    weights = backbone.fit_weights(given)
    differences = compared(weights, state)
    if differences:
        nearest = _nearest(initial.weights, backbone.image_px)
        advice = f" The nearest architecture is {nearest}" if nearest not in ("", f"--arch {arch}") else ""
        advice = f" They are those of {initial.arch}" if initial.arch else advice
        advice = _other_stem(backbone, given) or advice
        raise UserError(f"the initial weights {initial.source} do not fit {arch}: {differences}.{advice}")
    heads = heads_of(backbone)
    if initial.heads is not None and heads is not None and heads != initial.heads:
        can_be_set = "heads" in type(backbone).Config.model_fields
        advice = f"Say --set backbone.heads={initial.heads}" if can_be_set else "Choose an architecture with as many"
        raise UserError(
            f"the initial weights {initial.source} are of a network with {initial.heads} heads, and {arch} has "
            f"{heads}: the shapes agree, but the features would differ. Evidence: {initial.heads_evidence}. {advice}"
        )
    return weights


def require_settings(initial: InitialState, config: Settings, arch: str) -> None:
    """Raises `UserError` where settings are not those of the weights, or leave open what the weights do."""
    fields = type(config).model_fields
    undecided = initial.undecided
    if undecided is not None and undecided.setting in fields and getattr(config, undecided.setting) is None:
        raise undecided.refusal(str(initial.source))
    for name, value in initial.settings.items():
        if name in fields and getattr(config, name) is None:
            raise UserError(
                f"the initial weights {initial.source} are of a network with backbone.{name} = {value}, and {arch} has "
                f"another: the shapes agree, but the features would differ. Say --set backbone.{name}={value}"
            )


def _other_stem(backbone: Backbone, given: Mapping[str, Tensor]) -> str:
    """What to set where the weights are of a residual network with the other stem; "" anywhere else."""
    name = f"{OWN_PREFIX}conv1.weight"
    own, theirs = backbone.state_dict().get(name), given.get(name)
    if "stem" not in type(backbone).Config.model_fields or own is None or theirs is None or own.ndim != theirs.ndim:
        return ""
    if own.shape[2:] == theirs.shape[2:]:
        return ""
    stem = "cifar" if theirs.shape[-1] == 3 else "imagenet"
    return (
        f" The weights have the stem of {stem}, {theirs.shape[-1]}x{theirs.shape[-1]}, and for images of "
        f"{backbone.image_px} px this network has the other one: give --set backbone.stem={stem}"
    )


def _nearest(weights: Mapping[str, Tensor], image_px: int) -> str:
    """The registered architecture that shares most tensors, by name and shape, as it is typed; "" where none does."""
    shared: dict[str, float] = {}
    for name in registry.names("backbone"):
        with suppress(Exception):  # a broken plugin of others
            state = known_backbone(name).shapes({}, image_px) or {}
            given = in_own_names(state, weights)
            found = sum(one in given and given[one].shape == tensor.shape for one, tensor in state.items())
            shared[name] = found / max(1, len(state))
    best = max(shared, key=lambda name: shared[name], default="")
    return f"--arch {best}" if best and shared[best] > 0 else ""


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
    fingerprint, heads = (
        fingerprint_of(weights),
        _heads(recipe.backbone.name, recipe.backbone.settings, recipe.data.image_px),
    )
    return InitialState(folder, weights, fingerprint, network, arch_as_typed(recipe), heads, "the run's recipe")


def _heads(plugin: str, settings: Mapping[str, Any], image_px: int) -> int | None:
    """Attention heads of an architecture; None where it has none, or its plugin is not installed here."""
    try:
        kind = registry.backbone(plugin)
        config = parse_settings(kind.Config, dict(settings), "backbone", plugin)
    except UserError:
        return None
    network = blueprint(kind, config, image_px)
    return None if network is None else heads_of(network)


def _heads_of_typed(arch: str) -> int | None:
    """Attention heads of an architecture as `arch_as_typed` writes it; None for any other text."""
    options = shlex.split(arch)
    given = dict(zip(options[::2], options[1::2], strict=False)) if len(options) % 2 == 0 else {}
    plugin, colon, name = given.get("--arch", "").partition(":")
    try:
        values = parse_assignments(options[3::2])
    except UserError:
        return None
    settings = section_of(values, "backbone") | ({"name": name} if colon else {})
    return _heads(plugin, settings, DEFAULT_PX) if plugin else None


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
        network, arch = (stored.metadata.get(name, "") for name in ("network", "arch"))
        evidence = f"the file's header: {arch}"
        return InitialState(path, weights, fingerprint_of(weights), network, arch, _heads_of_typed(arch), evidence)
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
        facts.heads_evidence, facts.settings, facts.undecided, located.pinned,
    )  # fmt: skip
