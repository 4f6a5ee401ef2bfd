"""`sslbench run METHOD --help`: the settings and presets of a method."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from ssl_bench.errors import UserError, did_you_mean


def print_help(context: typer.Context, method: str | None, arch: str | None, evaluators: Sequence[str]) -> None:
    """The options of the verb, or the settings and presets of a method."""
    if method is None:
        print(context.get_help())
        return
    from ssl_bench import registry
    from ssl_bench.blocks.optimizers import OptimizerSettings
    from ssl_bench.records.recipe import MachineSettings, TrainingSettings
    from ssl_bench.settings import Settings, describe

    if method.startswith("-"):
        raise UserError(f"{method!r} is not a method.{did_you_mean(method, registry.names('method'))}")
    plugin = registry.find("method", method)
    kind = plugin.load()
    summary, paper = plugin.describe()
    print(f"{method}: {summary} ({paper or 'no paper named'}; {plugin.origin})\n")
    sections: list[tuple[str, type[Settings]]] = [("method", kind.Config)]
    if arch:
        sections.append(("backbone", registry.backbone(arch.partition(":")[0]).Config))
    sections += [(f"evaluators.{name}", registry.evaluator(name).Config) for name in evaluators]
    sections += [("optimizer", OptimizerSettings), ("training", TrainingSettings), ("machine", MachineSettings)]
    for section, model in sections:
        print(f"Settings '{section}.*' (--set {section}.NAME=VALUE)")
        for name, default, unit, meaning, source in describe(model):
            print(
                f"  {name:28} {default + (' ' + unit if unit else ''):24} {meaning}"
                + (f" [{source}]" if source else "")
            )
        print()
    print("Presets (--preset NAME; their values are laid over the defaults above)")
    for name, preset in kind.presets.items():
        print(f"  {name:28} {preset.summary}")
        for label, values in (("", preset.values), ("convnets: ", preset.convnet_values)):
            if values:
                print(f"      {label}" + ", ".join(f"{key}={value}" for key, value in values.items()))
    if not evaluators:
        print("\nSettings of evaluators: add --with knn,linear-probe,voc-jaccard,davis to this command")
    print(f"\nAll options: sslbench run --help. Example: sslbench run {method} --arch deit_s16 --epochs 2")
