"""A network's tensors into a backbone: every one of them, with equal shapes and finite values, or not at all."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.weights.facts import Facts
from ssl_bench.weights.naming import COMPUTED
from ssl_bench.weights.recognize import Candidate

MLP_WEIGHT = re.compile(r".*\.mlp\.fc[12]\.weight")
SHOWN = 4
"""Names of tensors that a message lists of each kind."""


@dataclass(frozen=True)
class Differences:
    """What keeps tensors from being a whole backbone."""

    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    shapes: tuple[str, ...]
    """E.g. "pos_embed (1, 197, 384) instead of (1, 50, 384)"."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.left_over or self.shapes)

    def __len__(self) -> int:
        return len(self.missing) + len(self.left_over) + len(self.shapes)

    def __str__(self) -> str:
        parts = (("missing", self.missing), ("left over", self.left_over), ("of another shape", self.shapes))
        return "; ".join(f"{len(names)} {kind} ({_some(names)})" for kind, names in parts if names)


def wanted_names(state: Mapping[str, Tensor]) -> dict[str, str]:
    """Name without the backbone's own prefix (e.g. `network.`) -> name, of every tensor that a load must fill."""
    prefix = common_prefix(state)
    return {name.removeprefix(prefix): name for name in state if not COMPUTED.fullmatch(name)}


def common_prefix(state: Mapping[str, Tensor]) -> str:
    """The first part of all names that a load must fill, e.g. "network."; "" where they do not share one."""
    names = [name for name in state if not COMPUTED.fullmatch(name)]
    if not names or "." not in names[0]:
        return ""
    first = names[0].partition(".")[0] + "."
    return first if all(name.startswith(first) for name in names) else ""


def in_own_names(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors by timm's names under the names of a backbone's state dict; those that it does not know keep theirs.

    Counters of batch norm that a file lacks are added: they are not used in evaluation.
    """
    if any(name in state for name in tensors):
        return dict(tensors)
    wanted = wanted_names(state)
    given = {wanted.get(name, name): tensor for name, tensor in _for_target(wanted, state, tensors).items()}
    counters = {name: torch.zeros_like(one) for name, one in state.items() if name.endswith("num_batches_tracked")}
    return {**counters, **given}


def differences(state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]) -> Differences:
    """Between a backbone's state dict (also on the meta device) and tensors by timm's names."""
    wanted = wanted_names(state)
    return compared(_for_target(wanted, state, tensors), {name: state[full] for name, full in wanted.items()})


def compared(given: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> Differences:
    """Between tensors and those that are wanted, both under the same names."""
    return Differences(
        missing=tuple(name for name in wanted if name not in given),
        left_over=tuple(name for name in given if name not in wanted),
        shapes=tuple(
            f"{name} {tuple(given[name].shape)} instead of {tuple(tensor.shape)}"
            for name, tensor in wanted.items()
            if name in given and given[name].shape != tensor.shape
        ),
    )


@torch.no_grad()
def load_whole(backbone: Backbone, candidate: Candidate) -> tuple[int, tuple[str, ...]]:
    """Fill the backbone; returns the number of tensors used, and what was changed in them in words.

    The caller has made sure that there are no `differences`. Raises `UserError` for values that are not finite, and for
    types that are not floating point where the network's are.
    """
    state = backbone.state_dict()
    wanted = wanted_names(state)
    given = _for_target(wanted, state, candidate.tensors)
    filled, types = {}, dict[torch.dtype, int]()
    for name, full in wanted.items():
        tensor, target = given[name], state[full]
        if tensor.is_sparse or tensor.is_quantized or tensor.is_complex() or tensor.device.type == "meta":
            raise UserError(f"{name} is stored as {tensor.dtype} ({tensor.layout}): save the weights in fp32 instead")
        if target.is_floating_point() and not tensor.is_floating_point():
            raise UserError(
                f"{name} is stored as {tensor.dtype}, as quantized weights are: save the weights in fp32 instead"
            )
        if tensor.is_floating_point():
            if not torch.isfinite(tensor.float()).all():
                raise UserError(f"{name} has NaN or infinity: training diverged, or the file is damaged")
            if tensor.dtype != target.dtype:
                types[tensor.dtype] = types.get(tensor.dtype, 0) + 1
        filled[full] = tensor.to(target.dtype)
    for name, tensor in state.items():
        if name.endswith("num_batches_tracked"):  # counts training steps, unused in evaluation
            filled[name] = torch.zeros_like(tensor)
        elif name not in filled:  # computed from the architecture
            filled[name] = tensor
    backbone.load_state_dict(filled)
    notes = [
        f"{count} tensors stored as {str(kind).removeprefix('torch.')}, computed in fp32"
        for kind, count in types.items()
    ]
    return len(wanted), tuple(notes)


def apply_facts(backbone: Backbone, facts: Facts) -> tuple[str, ...]:
    """Set what decides features besides tensors; returns it in words."""
    notes = []
    if facts.norm_eps is not None:
        kinds = (_BatchNorm,) if facts.norm_eps_of == "BatchNorm" else (nn.LayerNorm,)
        norms = [module for module in backbone.modules() if isinstance(module, kinds)]
        changed = [
            norm for norm in (norms[-1:] if facts.norm_eps_of == "last" else norms) if norm.eps != facts.norm_eps
        ]
        for norm in changed:
            norm.eps = facts.norm_eps
        if changed:
            notes.append(f"epsilon of {len(changed)} norms is {facts.norm_eps:g}, as the weights were made")
    if facts.same_padding:
        count = sum(_pad_as_tensorflow(module) for module in backbone.modules())
        if count:
            notes.append(f'{count} strided convolutions pad as TensorFlow\'s "SAME", as the weights were made')
    return tuple(notes)


def norm_eps(network: nn.Module) -> tuple[float, ...]:
    """Epsilon of every norm, in order; no tensor says it."""
    return tuple(module.eps for module in _norms(network))


def set_norm_eps(network: nn.Module, values: Sequence[float]) -> None:
    """The same for a network of the same norms."""
    for module, value in zip(_norms(network), values, strict=True):
        module.eps = value


def _norms(network: nn.Module) -> list[Any]:
    return [module for module in network.modules() if isinstance(getattr(module, "eps", None), float)]


def heads_of(backbone: nn.Module) -> int | None:
    """Attention heads of the first block; None for a network without attention."""
    counts = (getattr(module, "num_heads", None) for module in backbone.modules())
    return next((count for count in counts if isinstance(count, int)), None)


def _pad_as_tensorflow(module: nn.Module) -> bool:
    from timm.layers.conv2d_same import Conv2dSame

    if type(module) is not nn.Conv2d or module.stride == (1, 1):
        return False
    module.__class__ = Conv2dSame  # the same parameters; padding is computed from the image's size
    module.padding = (0, 0)
    return True


def _for_target(
    wanted: Mapping[str, str], state: Mapping[str, Tensor], tensors: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """What depends on the network that is filled: DINOv2's class token where positions leave it out, zero biases, and
    linear layers of an MLP that timm writes as convolutions of 1 x 1 (small ConvNeXts)."""
    given = dict(tensors)
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and MLP_WEIGHT.fullmatch(name) and name in wanted:
            shape = state[wanted[name]].shape
            if shape == (*tensor.shape, 1, 1):
                given[name] = tensor.reshape(shape)
    if "register_tokens" in given and "reg_token" in wanted:
        given["reg_token"] = given.pop("register_tokens")
        table = given.get("pos_embed")
        if table is not None and "cls_token" in given and table.ndim == 3:
            given["cls_token"] = given["cls_token"] + table[:, :1]  # timm adds positions to the patches alone
            given["pos_embed"] = table[:, 1:]
    if "pos_embed" in given and "pos_embed" in wanted and given["pos_embed"].ndim == 2:
        given["pos_embed"] = given["pos_embed"][None]
    for name in [one for one in given if one not in wanted and one.endswith(("q_bias", "v_bias"))]:
        if not given[name].any():  # DINOv3's distilled networks: timm has them without these biases
            del given[name]
    return given


def _some(names: Sequence[str] | Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
