"""Which cards a build of torch has kernels for; on a stand-in for torch.cuda."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ssl_bench.system import cards
from tests.fake_cuda import CUDA_12_6_WHEEL, DEFAULT_WHEEL, HOPPER, PASCAL, FakeCard, fake_cuda, fake_nvidia_smi

GTX_1050_TI = "NVIDIA GeForce GTX 1050 Ti, 560.35.03, 6.1"


@pytest.mark.parametrize(
    ("capability", "built_for", "runs"),
    [
        ((6, 1), DEFAULT_WHEEL, False),
        ((7, 0), DEFAULT_WHEEL, False),
        ((7, 5), DEFAULT_WHEEL, True),
        ((8, 9), DEFAULT_WHEEL, True),  # kernels of 8.6, the same major number
        ((8, 9), ("sm_90",), False),
        ((8, 0), ("sm_86",), False),  # of a higher minor number
        ((12, 1), DEFAULT_WHEEL, True),
        ((13, 0), DEFAULT_WHEEL, True),  # compiled from the PTX of 12.0
        ((12, 0), CUDA_12_6_WHEEL, False),
        ((6, 1), CUDA_12_6_WHEEL, True),
        ((3, 7), CUDA_12_6_WHEEL, False),
        ((9, 0), ("sm_90a",), True),
        ((9, 1), ("sm_90a", "compute_90a"), False),  # with a letter: for that card only
        ((9, 0), ("gfx942",), True),  # ROCm
        ((9, 0), (), True),
    ],
)
def test_which_cards_a_build_has_kernels_for(
    capability: tuple[int, int], built_for: tuple[str, ...], runs: bool
) -> None:
    assert cards.has_kernels(capability, built_for) is runs


@pytest.mark.parametrize(
    ("card", "built_for", "advice"),
    [
        (PASCAL, DEFAULT_WHEEL, cards.CUDA_12_6_LINE),
        (FakeCard("Tesla V100", (7, 0)), DEFAULT_WHEEL, cards.CUDA_12_6_LINE),
        (FakeCard("RTX 5090", (12, 0)), CUDA_12_6_WHEEL, cards.DEFAULT_LINE),
        (FakeCard("Tesla K80", (3, 7)), DEFAULT_WHEEL, "machine.device=cpu"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_an_unsupported_card_is_named_with_the_line_that_helps(
    card: FakeCard, built_for: tuple[str, ...], advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake_cuda(monkeypatch, HOPPER, card, built_for=built_for)
    reason = cards.why_unusable(1)
    assert card.name in reason
    assert f"compute capability {card.capability[0]}.{card.capability[1]}" in reason
    assert advice in reason
    assert (cards.why_unusable(0) == "") is cards.has_kernels((9, 0), built_for)


def test_a_card_whose_first_kernel_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_cuda(monkeypatch, HOPPER)
    monkeypatch.undo()
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: HOPPER.name)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr(torch, "ones", full)
    assert cards.why_it_fails(0) == "NVIDIA H100 80GB HBM3 cannot be used: CUDA error: out of memory"


def test_cards_as_the_driver_lists_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_nvidia_smi(monkeypatch, tmp_path, GTX_1050_TI, "Tesla K80, 390.12")
    assert cards.installed_cards() == [
        cards.InstalledCard("NVIDIA GeForce GTX 1050 Ti", "560.35.03", (6, 1)),
        cards.InstalledCard("Tesla K80", "390.12", None),
    ]
    fake_nvidia_smi(monkeypatch, tmp_path)
    assert cards.installed_cards() == []
    monkeypatch.setenv("PATH", str(tmp_path / "none"))
    assert cards.installed_cards() == []


@pytest.mark.parametrize(
    ("cuda", "hidden", "words"),
    [
        (None, None, f"is a build for the CPU: {cards.CUDA_12_6_LINE}"),
        ("13.0", None, "driver 560.35.03"),
        ("13.0", "", None),
        ("13.0", "0", "update the driver"),
    ],
)
def test_why_torch_sees_no_card(
    cuda: str | None, hidden: str | None, words: str | None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake_cuda(monkeypatch)
    fake_nvidia_smi(monkeypatch, tmp_path, GTX_1050_TI)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    if hidden is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    reason = cards.why_no_card()
    assert words in reason if words else reason == ""
