"""The checks of a backbone's further outputs: tokens, masks, attention, feature maps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ssl_bench.backbone import Backbone, Tokens
from ssl_bench.testing.backbone_bench import IMAGES, Subject
from ssl_bench.testing.outcomes import CheckFailed, require


@torch.no_grad()
def tokens_are_what_its_layers_see(subject: Subject) -> None:
    """`token_count` is the length of the sequences that pass the network's layers, at its own and at other sizes.

    Asked of the inputs (batch, tokens, dim) of every normalization and linear layer.
    """
    network, unit = subject.network, subject.network.patch_px
    if unit is None:
        return
    for height, width in ((subject.image_px, subject.image_px), (3 * unit, 5 * unit)):
        seen: set[int] = set()

        def look(_: torch.nn.Module, given: tuple[Tensor, ...], seen: set[int] = seen) -> None:
            if given and isinstance(given[0], Tensor) and given[0].ndim == 3:
                seen.add(given[0].shape[1])

        layers = [one for one in network.modules() if isinstance(one, torch.nn.LayerNorm | torch.nn.Linear)]
        hooks = [layer.register_forward_pre_hook(look) for layer in layers]
        try:
            network(subject.images(height, width))
        finally:
            for hook in hooks:
                hook.remove()
        if not seen:  # layers of other kinds
            return
        stated = network.token_count(height, width)
        require(
            stated in seen,
            f"token_count({height}, {width}) says {stated}, its layers see {sorted(seen)} tokens: name the tokens in "
            f"front of the patches in self.prefix_tokens (now {network.prefix_tokens}), and set self.patch_px",
        )


@torch.no_grad()
def maps_follow_rectangles(subject: Subject) -> None:
    """`patch_tokens` and `attention` of a rectangle have its rows and columns of patches, and each place its own."""
    network, unit = subject.network, subject.network.patch_px
    if unit is None:
        return
    for rows, columns in ((3, 5), (6, 2)):
        images = subject.images(rows * unit, columns * unit)
        for name in sorted(network.supports & {"patch_tokens", "attention"}):
            shape = tuple(getattr(network, name)(images).shape[2:])
            require(
                shape == (rows, columns),
                f"{name}() of {rows * unit} x {columns * unit} px images is {shape[0]} x {shape[1]}: give rows first, "
                "then columns",
            )


@torch.no_grad()
def supports_what_it_says(subject: Subject) -> None:
    """`patch_tokens` and `attention` work exactly where `supports` names them, with the contract's shapes."""
    network, images = subject.network, subject.images()
    calls: dict[str, Callable[[Tensor], Tensor]] = {
        "patch_tokens": network.patch_tokens,
        "attention": network.attention,
    }
    for name, call in calls.items():
        try:
            maps = call(images)
        except NotImplementedError:
            require(name not in network.supports, f"supports names {name!r}, but {name}() is not written")
            continue
        require(
            name in network.supports,
            f"{name}() works but supports does not name it: supports = frozenset({{{name!r}, ...}})",
        )
        side = None if network.patch_px is None else subject.image_px // network.patch_px
        require(
            maps.ndim == 4 and len(maps) == IMAGES and (side is None or tuple(maps.shape[2:]) == (side, side)),
            f"{name}() gives {tuple(maps.shape)}: (batch, dim or heads, rows, columns) with {side} rows and columns",
        )
        require(bool(torch.isfinite(maps).all()), f"{name}() gives NaN or infinity")
        if name == "attention":
            sums = maps.sum(dim=(2, 3))
            require(
                float(maps.min()) >= 0 and float(sums.max()) <= 1 + 1e-4,
                f"attention() sums to {float(sums.max()):.3f} a head: give softmax weights of the patches, >= 0, <= 1",
            )


@torch.no_grad()
def tokens_come_in_one_pass(subject: Subject) -> None:
    """`tokens` gives class token, patches and registers after the last norm, and `patch_tokens` the same patches."""
    network = subject.network
    if "patch_tokens" not in network.supports:
        return
    unit = network.patch_px or subject.image_px
    images = subject.images(2 * unit, 3 * unit)
    try:
        tokens = network.tokens(images)
    except NotImplementedError:
        raise CheckFailed(
            "supports names 'patch_tokens', but tokens() is not written: write tokens(self, images, *, mask=None, "
            "mask_token=None, keep=None) -> Tokens; patch_tokens() is then derived from it and can be removed"
        ) from None
    require(isinstance(tokens, Tokens), f"tokens() gives a {type(tokens).__name__}: return ssl_bench.backbone.Tokens")
    require(tokens.grid == (2, 3), f"tokens() of 2 x 3 patches says grid {tokens.grid}: give (rows, columns)")
    dim = tokens.patches.shape[-1]
    has_cls = "CLS" in network.prefix_tokens
    registers = len(network.prefix_tokens) - has_cls
    wanted: dict[str, tuple[int, ...]] = {"patches": (IMAGES, 6, dim), "registers": (IMAGES, registers, dim)}
    if has_cls:
        wanted["cls"] = (IMAGES, dim)
    for name, shape in wanted.items():
        given = getattr(tokens, name)
        found = None if given is None else tuple(given.shape)
        require(found == shape, f"tokens().{name} has shape {found}, not {shape}, with tokens {network.prefix_tokens}")
    require(has_cls or tokens.cls is None, "tokens().cls is given, but prefix_tokens names no CLS")
    as_map = tokens.patches.transpose(1, 2).reshape(IMAGES, -1, *tokens.grid)
    require(
        torch.allclose(network.patch_tokens(images), as_map, rtol=1e-3, atol=1e-4),
        "patch_tokens() and tokens().patches differ: leave patch_tokens() to the base class",
    )


def masked_patches_are_not_seen(subject: Subject) -> None:
    """With `mask`, no pixel under it reaches a token; the mask token does, and gets a gradient."""
    network = subject.network
    mask = torch.zeros(IMAGES, _patches(network, subject), dtype=torch.bool)
    mask[:, 1::2] = True
    _require_refused_unless_supported(network, subject, mask=mask, mask_token=torch.zeros(1))
    if "masking" not in network.supports:
        return
    images, dim = subject.images(), network.tokens(subject.images()).patches.shape[-1]
    mask_token = torch.linspace(-1, 1, dim).requires_grad_()
    seen = network.tokens(images, mask=mask, mask_token=mask_token)
    (gradient,) = torch.autograd.grad(seen.patches.square().sum(), mask_token, allow_unused=True)
    require(
        gradient is not None and bool(gradient.any()),
        "no gradient reaches mask_token: put it in with ssl_bench.blocks.patch_selection.replace_masked",
    )
    with torch.no_grad():
        changed = network.tokens(_repainted(images, mask, network), mask=mask, mask_token=mask_token)
        _require_alike(
            seen, changed, "pixels under the mask reach the tokens: replace the embeddings of masked patches"
        )
        none = network.tokens(images, mask=torch.zeros_like(mask), mask_token=mask_token)
        _require_alike(network.tokens(images), none, "a mask of no patch changes the tokens")


@torch.no_grad()
def only_kept_patches_are_seen(subject: Subject) -> None:
    """With `keep`, no other patch reaches a token, and patches come back in its order."""
    network = subject.network
    count = _patches(network, subject)
    everything = torch.arange(count).expand(IMAGES, -1)
    _require_refused_unless_supported(network, subject, keep=everything)
    if "masking" not in network.supports:
        return
    images = subject.images()
    _require_alike(network.tokens(images), network.tokens(images, keep=everything), "keeping all patches changes them")
    keep = torch.stack([torch.randperm(count, generator=torch.Generator().manual_seed(i)) for i in range(IMAGES)])
    keep = keep[:, : max(2, count // 2)]
    tokens = network.tokens(images, keep=keep)
    require(
        tokens.patches.shape[1] == keep.shape[1],
        f"{keep.shape[1]} of {count} patches are kept and tokens().patches has {tokens.patches.shape[1]}",
    )
    left_out = torch.ones(IMAGES, count, dtype=torch.bool).scatter(1, keep, False)
    repainted = network.tokens(_repainted(images, left_out, network), keep=keep)
    _require_alike(tokens, repainted, "patches that are not kept reach the tokens: leave them out before the blocks")
    turned = network.tokens(images, keep=keep.flip(1))
    turned = turned._replace(patches=turned.patches.flip(1))
    _require_alike(
        tokens, turned, "another order of the same kept patches changes them: a position goes with its patch"
    )


@torch.no_grad()
def feature_maps_go_from_fine_to_coarse(subject: Subject) -> None:
    """`feature_maps` gives one (batch, channels, rows, columns) per stage, finest first, where `supports` names it."""
    network, side = subject.network, subject.image_px
    try:
        maps = network.feature_maps(subject.images(side, 2 * side))
    except NotImplementedError:
        require("feature_maps" not in network.supports, "supports names 'feature_maps', but it is not written")
        return
    require("feature_maps" in network.supports, "feature_maps() works but supports does not name it")
    shapes = [tuple(one.shape) for one in maps]
    require(
        bool(shapes) and all(len(shape) == 4 and shape[0] == IMAGES for shape in shapes),
        f"feature_maps() gives {shapes}: one (batch, channels, rows, columns) per stage",
    )
    require(
        all(abs(columns - 2 * rows) <= 1 for _, _, rows, columns in shapes),
        f"feature_maps() of {side} x {2 * side} px gives {shapes}: rows first, then twice as many columns",
    )
    sizes = [rows * columns for _, _, rows, columns in shapes]
    require(sizes == sorted(sizes, reverse=True), f"feature_maps() gives {shapes}: the finest first")
    for number, one in enumerate(maps):
        require(bool(torch.isfinite(one).all()), f"feature_maps()[{number}] has NaN or infinity")
        require(not bool((one == one[0]).all()), f"feature_maps()[{number}] is the same for every image")


def _patches(network: Backbone, subject: Subject) -> int:
    return 1 if network.patch_px is None else (subject.image_px // network.patch_px) ** 2


def _require_refused_unless_supported(network: Backbone, subject: Subject, **selection: Tensor) -> None:
    """A network without "masking" must not silently ignore `mask` or `keep`."""
    if "masking" in network.supports:
        return
    try:
        network.tokens(subject.images(), **selection)
    except (NotImplementedError, TypeError, ValueError):
        return
    raise CheckFailed(
        f"tokens() takes {', '.join(selection)}, but supports does not name 'masking': name it, or raise "
        "NotImplementedError"
    )


def _repainted(images: Tensor, patches: Tensor, network: Backbone) -> Tensor:
    """The images with other pixels in the `patches` (batch, patches) that are True."""
    unit = network.patch_px or 1
    rows = images.shape[-2] // unit
    where = patches.view(len(images), 1, rows, -1).repeat_interleave(unit, 2).repeat_interleave(unit, 3)
    return torch.where(where, 1 - images, images)


def _require_alike(one: Tokens, other: Tokens, problem: str) -> None:
    for name in ("cls", "patches", "registers"):
        first, second = getattr(one, name), getattr(other, name)
        if first is not None:
            require(torch.allclose(first, second, rtol=1e-3, atol=1e-4), f"{problem} (tokens().{name})")
