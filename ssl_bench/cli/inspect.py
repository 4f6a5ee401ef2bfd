"""`sslbench inspect`: what a file of weights holds, and which architecture it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ssl_bench.cli.encodings import print_json

if TYPE_CHECKING:
    from ssl_bench.weights.recognize import Recognized

SETTINGS_SHOWN = 24


def register(app: typer.Typer) -> None:
    """Add the verb to the command line."""
    app.command(
        "inspect",
        help="What a file of weights holds: format, networks, the architecture that fits, settings.",
        epilog="Example: sslbench inspect dino_deitsmall16_pretrain_full_checkpoint.pth",
    )(inspect)


def inspect(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="WEIGHTS",
            help="a file (.pth, .ckpt, .safetensors, ...), a Hugging Face folder or a published name (sslbench list "
            "weights)",
        ),
    ],
    arch: Annotated[str | None, typer.Option(help="also say how it differs from this architecture")] = None,
    key: Annotated[str | None, typer.Option(help="look at this network, e.g. student [default: all]")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Say what is in the file; nothing in it is executed, nothing is written."""
    from ssl_bench.weights.loading import open_weights

    recognized = open_weights(weights, arch)
    arch = arch or recognized.located.arch
    described = _described(recognized, arch, key)
    if as_json:
        print_json(described)
        return
    for label, text in _lines(described):
        print(f"  {label:<11}{text}")


def _described(recognized: Recognized, arch: str | None, key: str | None) -> dict[str, Any]:
    from ssl_bench.weights.architectures import compare, fitting
    from ssl_bench.weights.facts import facts_of, preprocessing_of

    chosen = recognized.candidates if key is None else (recognized.choose(key),)
    networks = []
    for candidate in chosen:
        if not candidate.tensors:  # an ONNX graph
            continue
        fits = [fit for fit in ([compare(candidate, arch)] if arch else fitting(candidate)) if fit]
        facts = facts_of(recognized, candidate)
        networks.append(
            {
                "name": candidate.name,
                "prefix": candidate.prefix,
                "named_as": candidate.layout.name,
                "tensors": len(candidate.tensors),
                "parameters": sum(tensor.numel() for tensor in candidate.tensors.values()),
                "types": sorted({str(tensor.dtype).removeprefix("torch.") for tensor in candidate.tensors.values()}),
                "fits": [fit.typed for fit in fits if not fit.differences],
                "nearest": next(
                    ({"arch": f.typed, "differs": str(f.differences)} for f in fits if f.differences), None
                ),
                "left_out": list(candidate.left_out),
                "heads": facts.heads,
                "heads_evidence": facts.heads_evidence,
                "undecided": f"{facts.undecided.words}: {facts.undecided.values}" if facts.undecided else "",
                "preprocessing": preprocessing_of(recognized, candidate).model_dump(mode="json"),
            }
        )
    stored = recognized.stored
    return {
        "path": str(stored.path),
        "sha256": stored.sha256,
        "container": stored.container,
        "format": recognized.words,
        "source": recognized.format.source,
        "method": recognized.method,
        "name": recognized.located.name,
        "address": recognized.located.address,
        "revision": recognized.located.revision,
        "networks": networks,
        "others": list(recognized.others),
        "settings": dict(recognized.settings),
        "exported": stored.exported.model_dump(mode="json") if stored.exported else None,
    }


def _lines(described: dict[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("file", f"{described['path']}, {described['container']}, sha256 {described['sha256'][:12]}"),
        *([("name", _name(described))] if described["name"] else []),
        ("format", described["format"] + (f" ({described['source']})" if described["source"] else "")),
    ]
    if described["exported"]:
        about = described["exported"]
        changed = [f"{name} {value}" for name, value in about["settings"].items() if value is not None]
        lines.append(("built as", f"{about['backbone']}, {about['image_px']} px; {', '.join(changed)}"))
    networks = described["networks"]
    names = [one["name"] for one in networks]
    if len(names) > 1:
        lines.append(("networks", f"{names[0]} (default), {', '.join(names[1:])}; choose with --key"))
    for one in networks:
        label = "fits" if len(networks) == 1 else one["name"]
        words = f"{one['tensors']} tensors, {one['parameters'] / 1e6:.1f} M parameters, named as {one['named_as']}"
        other_types = [name for name in one["types"] if name not in ("float32", "int64")]
        words += f", stored as {', '.join(other_types)}" if other_types else ""
        lines.append(("network" if len(networks) == 1 else label, words))
        fits = f"all of {' or '.join(one['fits'])}" if one["fits"] else "no registered architecture"
        lines.append(("  fits" if len(networks) > 1 else "fits", fits))
        if one["nearest"]:
            lines.append(("nearest", f"{one['nearest']['arch']}: {one['nearest']['differs']}"))
        if one["heads"]:
            lines.append(("heads", f"{one['heads']} ({one['heads_evidence']})"))
        if one["undecided"]:
            lines.append(("not known", one["undecided"]))
        if one["left_out"]:
            lines.append(("left out", _grouped(one["left_out"])))
    if described["others"]:
        lines.append(("others", _grouped(described["others"])))
    if not networks:  # an ONNX graph is run as it is
        lines.append(("runs as", f"--arch onnx:{described['path']}"))
    seen = [one["preprocessing"] for one in (*networks, described["exported"]) if one]
    if seen:
        lines.append(("images", f"{_seen(seen[0])} ({seen[0]['source']})"))
    if described["settings"]:
        pairs = [f"{name} {value}" for name, value in described["settings"].items() if value not in (None, "", [])]
        more = f", and {len(pairs) - SETTINGS_SHOWN} more (--json)" if len(pairs) > SETTINGS_SHOWN else ""
        lines.append(("settings", ", ".join(pairs[:SETTINGS_SHOWN]) + more))
    return lines


def _name(described: dict[str, Any]) -> str:
    name, at = str(described["name"]), described["revision"] or described["address"]
    return f"{name} ({at})" if at not in ("", name) else name


def _seen(see: dict[str, Any]) -> str:
    from ssl_bench.blocks.preprocessing import Preprocessing

    return Preprocessing.model_validate(see).protocol(native=False).text


def _grouped(names: list[str]) -> str:
    """Names by their first part with the number of tensors, e.g. "head (7), queue (2)"."""
    from ssl_bench.weights.recognize import grouped

    return ", ".join(f"{name} ({count})" for name, count in grouped(names).items())
