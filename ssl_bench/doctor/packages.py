"""Versions, optional packages, and plugins with what breaks them."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, metadata, requires, version

from packaging.requirements import InvalidRequirement, Requirement

from ssl_bench import registry
from ssl_bench.doctor.findings import Fact, Findings, Problem
from ssl_bench.registry.extras import install_line
from ssl_bench.registry.trying import why_broken_each
from ssl_bench.runs.machine import versions

FOR_DEVELOPERS = ("test", "dev")
"""Extras that no verb needs."""
IMPORT_SECONDS = 8.0
"""Less than elsewhere: the whole examination takes seconds."""


def examine_packages() -> Findings:
    """Versions that decide numbers, what does not fit, and extras that are missing."""
    facts = [Fact(name, number, number) for name, number in versions().items()]
    problems = [Problem("broken", text) for text in unmet_requirements(registry.HOME)]
    if words := why_torchvision_does_not_fit():
        problems.append(Problem("broken", words))
    extras = [extra for extra in metadata(registry.HOME).get_all("Provides-Extra") or () if extra not in FOR_DEVELOPERS]
    lacking = {extra: line for extra in extras if (line := install_line(registry.HOME, (extra,)))}
    present = ", ".join(extra for extra in extras if extra not in lacking)
    facts.append(Fact("extras", present or "none"))
    facts += [Fact(f"extra {extra}", f"not installed: {line}") for extra, line in lacking.items()]
    return Findings(tuple(facts), tuple(problems))


def unmet_requirements(distribution: str) -> list[str]:
    """Required packages that are missing or of another version than a distribution asks for, with what to install."""
    found = []
    for line in requires(distribution) or ():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue
        if wanted.marker is not None and not wanted.marker.evaluate({"extra": ""}):
            continue
        try:
            installed = version(wanted.name)
        except PackageNotFoundError:
            found.append(f"{wanted.name} is not installed: pip install '{wanted.name}{wanted.specifier}'")
            continue
        if not wanted.specifier.contains(installed, prereleases=True):
            found.append(
                f"{wanted.name} {installed} is installed, and {distribution} needs {wanted.specifier}: "
                f"pip install '{wanted.name}{wanted.specifier}'"
            )
    return found


def why_torchvision_does_not_fit() -> str:
    """A torchvision that was built for another torch lacks its operators, or cannot be imported."""
    import torch

    try:
        import torchvision

        torchvision.ops.nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.ones(1), 0.5)
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return f"torchvision does not fit torch {torch.__version__} ({first}): pip install --upgrade torch torchvision"
    return ""


def examine_plugins() -> Findings:
    """How many of each kind, where third-party ones come from, and which are broken."""
    found = [plugin for kind in registry.KINDS for plugin in registry.plugins(kind)]
    faults = {plugin: registry.fault(plugin) for plugin in found}
    faults |= why_broken_each([one for one in found if not faults[one] and not one.lacking()], IMPORT_SECONDS)
    counts = [f"{sum(one.kind == kind for one in found)} {kind}s" for kind in registry.KINDS]
    others = sorted({one.origin for one in found if one.distribution != registry.HOME})
    facts = (
        Fact("installed", ", ".join(counts), len(found)),
        Fact("third-party", ", ".join(others) or "none"),
    )
    broken = [
        Problem("broken", f"the {one.kind} {one.name} of {one.origin} is broken: {words}. Update or uninstall "
                f"{one.distribution}")
        for one, words in faults.items() if words
    ]  # fmt: skip
    return Findings(facts, tuple(broken))
