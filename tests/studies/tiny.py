"""A table whose runs take a second: three rows on a few images of shapes."""

from __future__ import annotations

from pathlib import Path

SETTINGS = {
    "data.train_images": 64,
    "data.test_images": 40,
    "training.batch_size": 16,
    "training.precision": "fp32",
    "backbone.depth": 1,
    "backbone.dim": 32,
    "backbone.heads": 2,
    "evaluators.knn.neighbors": "[1]",
    "evaluators.knn.reported": 1,
}
TABLE = """
id = "tiny"
title = "A tiny table"
row = [{ id = "method", from = "method" }]
column = [{ id = "knn", title = "k-NN", unit = "%", from = "measurement:knn.primary:trained" }]

[runs.size.laptop]
data = "shapes"
seeds = 2
preset = "small-data"
with = ["knn"]
set = { SETTINGS, "training.epochs" = 2 }
method.random = { set = { "training.epochs" = 0 } }
method.dino = { set = { "method.out_dim" = 16, "method.hidden_dim" = 16, "method.bottleneck_dim" = 8 } }

[[runs.variant]]
name = "untrained"
method = "random"
arch = "deit_ti16"

[[runs.variant]]
name = "contrast"
method = "simclr"
arch = "deit_ti16"
""".replace(
    "SETTINGS",
    ", ".join(
        f'"{key}" = {value}' if not isinstance(value, str) or value[0] == "[" else f'"{key}" = "{value}"'
        for key, value in SETTINGS.items()
    ),
)


def write_table(folder: Path, text: str = TABLE, name: str = "tiny") -> Path:
    """The table as a file."""
    path = folder / f"{name}.toml"
    path.write_text(text.replace('id = "tiny"', f'id = "{name}"', 1))
    return path
