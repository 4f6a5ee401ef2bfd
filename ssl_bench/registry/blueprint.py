"""A network's facts before it is built: the architecture on torch's meta device, which has shapes and no values."""

from __future__ import annotations

from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ssl_bench.backbone import Backbone


def blueprint(kind: type[Backbone], config: Any, image_px: int) -> Backbone | None:
    """The architecture without weights: nothing is drawn or loaded, and no memory is taken.

    None where it cannot be built so, e.g. by a constructor that reads a tensor's values.
    """
    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]), _NothingDrawn():
            return kind(kind.without_pretrained(config), image_px=image_px)
    except Exception:  # the real build reports what is wrong
        return None


class _NothingDrawn(TorchFunctionMode):
    """Leaves out the operations that draw initial weights: on the meta device they only take time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in _DRAWS and args and getattr(args[0], "is_meta", False):
            return args[0]
        return func(*args, **(kwargs or {}))


_DRAWS = frozenset({"normal_", "uniform_", "trunc_normal_", "erfinv_", "clamp_", "mul_", "add_", "fill_", "zero_"})
