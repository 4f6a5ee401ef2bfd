"""The precisions of training: what autocast is given, and the loss scaling that fp16 needs.

fp16 has no numbers below 6e-8, where many gradients lie. The loss is multiplied by a scale before the backward pass,
and gradients are divided by it after (Micikevicius et al. 2018, arXiv 1710.03740, section 3.2), by
torch.amp.GradScaler: the scale is halved whenever a gradient overflows, and doubled after 2,000 steps without.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ssl_bench.training.collapse_doctor import RunFailed

AUTOCAST_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
"""By the name of a precision."""
MOST_OVERFLOWS = 25
"""Steps in a row that may overflow: 2**-25 of the scale cannot be what a network needs."""


@dataclass
class ScalingState:
    """What a resumed run needs of the loss scaling."""

    scale: float = 2.0**16
    """GradScaler's initial one."""
    steps_without_overflow: int = 0
    """Since the scale last changed."""
    overflows_in_a_row: int = 0
    skipped_steps: int = 0
    """Steps of the run that overflowed: neither the optimizer nor `Method.update` moved anything."""


class LossScaling:
    """Loss scaling of a run in fp16; at any other precision nothing is scaled or skipped.

    A step whose gradients are not all finite is skipped: weights, optimizer, teacher, queue and center stay. The loop
    puts running statistics of batch norm back, which GradScaler alone leaves as the forward pass moved them.
    """

    def __init__(self, device: torch.device, dtype: torch.dtype | None, state: ScalingState) -> None:
        self.enabled, self.state = dtype == torch.float16, state
        self._scaler = torch.amp.GradScaler(device.type, enabled=self.enabled, init_scale=state.scale)
        if self.enabled:
            known = self._scaler.state_dict()
            self._scaler.load_state_dict({**known, "_growth_tracker": state.steps_without_overflow})

    def scale(self, loss: Tensor) -> Tensor:
        """The loss for the backward pass."""
        scaled: Tensor = self._scaler.scale(loss)
        return scaled

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Divide the gradients by the scale, and note whether one overflowed; before anything looks at them."""
        self._scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> bool:
        """The optimizer's step unless a gradient overflowed; returns whether it was done.

        Raises `RunFailed` when `MOST_OVERFLOWS` steps in a row overflow.
        """
        self._scaler.step(optimizer)
        if not self.enabled:
            return True
        used = self.state.scale
        self._scaler.update()
        now = self._scaler.state_dict()
        self.state.scale, self.state.steps_without_overflow = now["scale"], now["_growth_tracker"]
        if self.state.scale >= used:
            self.state.overflows_in_a_row = 0
            return True
        self.state.overflows_in_a_row += 1
        self.state.skipped_steps += 1
        if self.state.overflows_in_a_row >= MOST_OVERFLOWS:
            raise RunFailed(
                f"the gradients overflow in fp16 at {MOST_OVERFLOWS} steps in a row, although the loss scale fell to "
                f"{self.state.scale:.3g}: numbers above 65,504 arise in the network itself. Train it with "
                "--set training.precision=fp32, or bf16 where the device computes it"
            )
        return False
