"""`machine.compile`: the method's networks compiled by torch.compile, and why that does not work on some machines."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil

import torch

from ssl_bench.backbone import Backbone
from ssl_bench.errors import UserError
from ssl_bench.method import Method

BACKEND = "inductor"
"""torch's own: C++ on a CPU, Triton on a card."""
TRITON_NEEDS = (7, 0)
"""Compute capability (torch/_inductor: "supported on CUDA capability >= 7.0")."""


def why_not_compiled(device: torch.device) -> str:
    """Why torch.compile does not work on this device; "" where it does."""
    if device.type == "cuda":
        capability = torch.cuda.get_device_capability(device)
        if capability < TRITON_NEEDS:
            name, (major, minor) = torch.cuda.get_device_name(device), capability
            return f"{name} has compute capability {major}.{minor}, and Triton, which compiles for it, needs 7.0"
        return "" if importlib.util.find_spec("triton") else "the package triton is not installed"
    if device.type == "cpu":
        compilers = ("cl",) if platform.system() == "Windows" else (os.environ.get("CXX") or "g++", "clang++", "c++")
        return "" if any(map(shutil.which, compilers)) else "there is no C++ compiler (g++ or clang++) on the PATH"
    return f"torch.compile is not tried on {device.type}"


def compile_networks(method: Method, device: torch.device) -> None:
    """Let the backbones of a method be compiled when they are first called; names of their weights stay.

    Raises `UserError` where that cannot work.
    """
    if reason := why_not_compiled(device):
        raise UserError(f"machine.compile = true: {reason}. Leave it out: the result is the same, up to rounding")
    for module in method.modules():
        if isinstance(module, Backbone):
            module.compile(backend=BACKEND)
