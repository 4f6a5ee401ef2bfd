"""A file of weights as a network that is ready to be evaluated, with everything that a record says of it."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ssl_bench import registry
from ssl_bench.backbone import Backbone, Positions
from ssl_bench.blocks.preprocessing import Preprocessing
from ssl_bench.errors import UserError
from ssl_bench.registry.blueprint import blueprint
from ssl_bench.settings import parse_assignments, parse_settings, section_of
from ssl_bench.weights.architectures import DEFAULT_PX, fitting, settings_from
from ssl_bench.weights.facts import Facts, facts_of, own_px, positions_of, preprocessing_of
from ssl_bench.weights.formats import EVALUATED_AS, ONNX, OWN_RUN, PLAIN, TIMM_FOLDER, TRANSFORMERS
from ssl_bench.weights.loaded import Loaded
from ssl_bench.weights.named.finding import find
from ssl_bench.weights.naming import Layout
from ssl_bench.weights.onnx_file import is_onnx, load_onnx, recognize_onnx
from ssl_bench.weights.reading import read_weights
from ssl_bench.weights.recognize import EFFICIENTNET, Candidate, Recognized, recognize
from ssl_bench.weights.whole import apply_facts, differences, heads_of, load_whole, norm_eps, set_norm_eps, wanted_names


def open_weights(given: Path | str, arch: str | None = None, method: str | None = None) -> Recognized:
    """Read and recognize a file, a folder or published weights given by name (`weights.named`).

    `arch` helps where no known names are in it. `method` trained them: a file that says nothing of it is preprocessed
    and its positions are resampled as the method's authors evaluate. Raises `UserError`.
    """
    located = find(str(given))
    if is_onnx(located.path):
        return dataclasses.replace(recognize_onnx(located.path), located=located)
    stored = read_weights(located.path)
    arch = arch or located.arch
    try:
        recognized = recognize(stored)
    except UserError:
        if arch is None and stored.exported is not None:
            arch = stored.exported.arch
        if arch is None:
            raise
        recognized = recognize(stored, (_layout_of(arch),))
    form = recognized.format
    asked = EVALUATED_AS.get(method or located.evaluated)
    if asked is not None and not form.method and form not in (OWN_RUN, TIMM_FOLDER, TRANSFORMERS):
        form = dataclasses.replace(asked, networks=form.networks, heads={})  # the tensors are still as `form` has them
    return dataclasses.replace(recognized, located=located, format=form)


def load_network(
    recognized: Recognized,
    *,
    arch: str | None = None,
    key: str | None = None,
    settings: Mapping[str, Any] | None = None,
    accept_mismatch: bool = False,
) -> Loaded:
    """Build `arch` (None: the one that fits) and fill it wholly.

    `settings` are of the backbone, `key` names the network. `accept_mismatch` loads where the shapes agree and the file
    says that the number of heads is another. Raises `UserError` for whatever is not exactly that network.
    """
    if recognized.stored.container == ONNX.name:
        return load_onnx(recognized, arch, key, settings or {})
    candidate = recognized.choose(key)
    facts = facts_of(recognized, candidate)
    preprocessing = preprocessing_of(recognized, candidate)
    given, exported = dict(settings or {}), recognized.stored.exported
    if exported is not None and arch in (None, exported.arch):
        arch, given = exported.arch, {**exported.settings, **given}
    else:
        exported = None
    kept = _kept_as(recognized)
    if kept is not None and arch in (None, kept[0]):
        arch, given = kept[0], {**kept[1], **given}
    if arch is None and recognized.located.arch is not None:
        arch, given = recognized.located.arch, {**recognized.located.settings, **given}
    if arch is None:
        arch, given = _found_arch(recognized, candidate, facts, given)
    plugin, colon, name = arch.partition(":")
    kind = registry.backbone(plugin)
    if colon:
        given["name"] = name
    fields = kind.Config.model_fields
    said = {name: value for name, value in facts.settings.items() if name in fields}
    given = {**settings_from(candidate, fields), **said, **given}
    image_px = exported.image_px if exported else own_px(candidate) or preprocessing.crop_px
    config = parse_settings(kind.Config, given, "backbone", plugin)
    positions = positions_of(recognized, candidate)
    config = kind.fill(kind.without_pretrained(config), image_px, {"positions": positions})
    shapes = blueprint(kind, config, image_px)
    if shapes is None:
        shapes = kind(config, image_px=image_px)  # says what is wrong
    found = differences(shapes.state_dict(), candidate.tensors)
    if found:
        raise UserError(f"{recognized.shown} does not fit {arch}: {found}. {_nearest(candidate)}")
    if facts.undecided is not None and given.get(facts.undecided.setting) is None and not accept_mismatch:
        raise facts.undecided.refusal(recognized.shown)
    notes = _check_heads(recognized, kind, arch, heads_of(shapes), facts, accept_mismatch)
    backbone = kind(config, image_px=image_px)
    try:
        used, changed = load_whole(backbone, candidate)
    except UserError as error:
        raise UserError(f"{recognized.shown} cannot be loaded into {arch}: {error}") from error
    of_network = backbone.preprocessing
    with_timms_names = not candidate.layout.renames and candidate.layout is not EFFICIENTNET
    unknown = recognized.format is PLAIN and recognized.located.preprocessing is None
    if of_network is not None and unknown and with_timms_names:
        preprocessing = of_network  # a plain file with timm's names: as timm's configuration of that network says
    backbone.mean, backbone.std = preprocessing.mean, preprocessing.std
    notes = (*changed, *apply_facts(backbone, facts), *notes)
    if unknown:
        notes = (*notes, *_unknown_method(candidate, backbone, positions, preprocessing))
    if exported is not None and len(exported.norm_eps) == len(norm_eps(backbone)):
        set_norm_eps(backbone, exported.norm_eps)
    return Loaded(backbone.eval(), plugin, config, recognized, candidate, used, notes, preprocessing)


def _kept_as(recognized: Recognized) -> tuple[str, dict[str, Any]] | None:
    """Architecture and settings that the header of a run's own file names; None for other files.

    Tensors do not say all of it: a width of 64 is one head of 64 or four of 16.
    """
    words = shlex.split(recognized.stored.metadata.get("arch", "")) if recognized.format is OWN_RUN else []
    if words[:1] != ["--arch"] or len(words) < 2:
        return None
    return words[1], section_of(parse_assignments(words[3::2]), "backbone")


def _found_arch(
    recognized: Recognized, candidate: Candidate, facts: Facts, given: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    best = next(iter(fitting(candidate, most=1)), None)
    if best is None or best.differences:
        nearest = f" The nearest, {best.typed}, differs in: {best.differences}." if best else ""
        raise UserError(
            f"no registered architecture has the tensors of {recognized.shown}.{nearest} Give --arch, with "
            "--set backbone.SETTING=VALUE where it has other sizes"
        )
    settings = {**best.settings, **given}
    kind = registry.backbone(best.arch.partition(":")[0])
    if facts.heads is not None and "heads" in kind.Config.model_fields:
        settings.setdefault("heads", facts.heads)
    return best.arch, settings


def _check_heads(
    recognized: Recognized, kind: type[Backbone], arch: str, heads: int | None, facts: Facts, accept_mismatch: bool
) -> tuple[str, ...]:
    """Raises `UserError` where the file says another number of heads than the network has, unless that is accepted."""
    if facts.heads is None or heads is None or facts.heads == heads:
        return ()
    if accept_mismatch:
        return (f"evaluated with {heads} heads although {facts.heads_evidence} say {facts.heads}",)
    advice = f"Say --set backbone.heads={facts.heads}, or" if "heads" in kind.Config.model_fields else "Say"
    raise UserError(
        f"{recognized.shown} is of a network with {facts.heads} heads, and {arch} has {heads}: the shapes agree, "
        f"the features would not. Evidence: {facts.heads_evidence}. {advice} --accept-mismatch if {heads} is right"
    )


def _unknown_method(
    candidate: Candidate, backbone: Backbone, positions: Positions, preprocessing: Preprocessing
) -> tuple[str, ...]:
    """What a user should know of a network of which nothing says what trained it."""
    if backbone.positions is not None and positions == PLAIN.positions:
        return (
            f"nothing in the file says what trained it: positions at other sizes are resampled as {positions} does; "
            "--as METHOD (dino, ibot, mae, ...) reads it as that method's authors do",
        )
    if candidate.layout.family == "resnet" and preprocessing is not backbone.preprocessing:
        return (
            "nothing in the file says what trained it: images are resized bilinear, as all authors but DINO's do; "
            "--as METHOD or --set preprocessing.interpolation=bicubic says otherwise",
        )
    return ()


def _nearest(candidate: Candidate) -> str:
    best = next(iter(fitting(candidate, most=1)), None)
    if best is None:
        return "No registered architecture is similar."
    return f"It fits {best.typed}" if not best.differences else f"The nearest architecture is {best.typed}"


def _layout_of(arch: str) -> Layout:
    """The names of an architecture's own tensors."""
    plugin, colon, name = arch.partition(":")
    kind = registry.backbone(plugin)
    config = parse_settings(kind.Config, {"name": name} if colon else {}, "backbone", plugin)
    network = blueprint(kind, config, DEFAULT_PX)
    wanted = [] if network is None else [one for one in wanted_names(network.state_dict()) if one.endswith("weight")]
    if len(wanted) < 2:
        raise UserError(f"nothing is known of the tensors of {arch} without its settings")
    return Layout(f"{arch}'s own names", (wanted[0], wanted[-1]), family="")
