"""From what a file holds to the networks in it: who saved it, which sub-networks there are, under timm's names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from ssl_bench.errors import UserError, did_you_mean
from ssl_bench.weights import efficientnet, naming
from ssl_bench.weights.formats import (
    EXPORTED,
    FORMATS,
    METHODS_OF_MODEL_TYPES,
    OWN_RUN,
    PLAIN,
    PREFERRED,
    TIMM_FOLDER,
    TRANSFORMERS,
    Format,
)
from ssl_bench.weights.named.located import Located
from ssl_bench.weights.naming import COMPUTED, HEADS, LAYOUTS, Layout
from ssl_bench.weights.reading import Stored
from ssl_bench.weights.solo_learn import SoloLearn, solo_learn_of

WRAPPERS = {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
"""Parts of names that DDP, torch.compile, FSDP and activation checkpointing add."""
NOT_NETWORKS = re.compile(
    r"(optim\w*|optimizer\w*|lr_scheduler\w*|scheduler\w*|scaler|fp16_scaler|amp|loops|callbacks)"
)
"""Sections of a checkpoint that hold the state of training."""
SECTIONS = {"state_dict", "model", "model_state_dict", "classy_state_dict", "base_model"}
"""Of a checkpoint, around the names of tensors."""
MAX_DEPTH = 5


@dataclass(frozen=True)
class Candidate:
    """One network in a file."""

    name: str
    """As `--key` takes it, e.g. "teacher"."""
    prefix: str
    """In front of its tensors' names, wrappers taken out; "" where there is none."""
    layout: Layout
    tensors: Mapping[str, Tensor]
    """By timm's names, heads and computed buffers left out."""
    left_out: tuple[str, ...]
    """Names of its heads, below the prefix."""


@dataclass(frozen=True)
class Recognized:
    """A file of weights, understood."""

    stored: Stored
    format: Format
    words: str
    """The format as users read it, e.g. "official DINO, full checkpoint (epoch 800)"."""
    candidates: tuple[Candidate, ...]
    """The one that is evaluated by default first."""
    others: tuple[str, ...]
    """Names of tensors that belong to no candidate."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Training settings that the file holds."""
    located: Located = field(default_factory=Located)
    """What its name says of it, where it was given by name."""

    @property
    def method(self) -> str:
        """What trained it, as its name or its format says; "" where neither does."""
        of_model_type = METHODS_OF_MODEL_TYPES.get(str(self.stored.config.get("model_type")), "")
        of_solo_learn = self.solo_learn.method if self.solo_learn else ""
        return self.located.method or self.format.method or of_model_type or of_solo_learn

    @property
    def solo_learn(self) -> SoloLearn | None:
        """What solo-learn's settings beside the file say; None without them."""
        return solo_learn_of(self.stored.args)

    @property
    def shown(self) -> str:
        """What it is called in messages: the name that was given, else the path."""
        return self.located.name or str(self.stored.path)

    def choose(self, key: str | None) -> Candidate:
        """The network called `key`, or the default. Raises `UserError` where it is unknown or none is preferred."""
        names = [candidate.name for candidate in self.candidates]
        key = self.located.key if key is None else key
        if key is None:
            if len(names) > 1 and not self._has_default():
                raise UserError(
                    f"{self.shown} holds {len(names)} networks ({', '.join(names)}) and nothing says which is "
                    f"meant: choose one, e.g. --key {names[0]}"
                )
            return self.candidates[0]
        for candidate in self.candidates:
            if key in (candidate.name, candidate.prefix, candidate.prefix.rstrip(".")):
                return candidate
        raise UserError(f"{self.shown} has no network {key!r}.{did_you_mean(key, names)} It holds: {', '.join(names)}")

    def _has_default(self) -> bool:
        first, second = self.candidates[:2]
        of_format = any(first.name == name for name, _ in self.format.networks)  # two of one name were given others
        return of_format or _preference(first) < _preference(second)


def recognize(stored: Stored, layouts: tuple[Layout, ...] = ()) -> Recognized:
    """Find the networks. `layouts` are tried after the known ones, e.g. the names of a given architecture.

    Raises `UserError` for a file without tensors or without a network whose names are known.
    """
    flat = _flatten(stored)
    if not flat:
        raise UserError(f"{stored.path} holds no tensors by name: it has {_some(list(map(str, stored.content)))}")
    names = [*flat, *map(str, stored.content)]
    form = _format_of(stored, names)
    found = list(_networks(flat, (*LAYOUTS, *layouts)))
    if not found:
        raise UserError(
            f"{stored.path} holds {len(flat)} tensors and no network whose names are known ({_some(list(flat))}). "
            "Give the architecture that they are of, e.g. --arch timm:NAME"
        )
    candidates = []
    for prefix, layout in found:
        inner = {
            name.removeprefix(prefix): tensor
            for name, tensor in flat.items()
            if name.startswith(prefix) and not _inside_another(name, prefix, found)
        }
        timm_named = efficientnet.to_timm(inner) if layout is EFFICIENTNET else naming.to_timm(layout, inner)
        kept = {
            name: tensor
            for name, tensor in timm_named.items()
            if not HEADS.fullmatch(name) and not COMPUTED.fullmatch(name)
        }
        heads = tuple(name for name in timm_named if HEADS.fullmatch(name))
        candidates.append(Candidate(_name_of(form, prefix), prefix, layout, kept, heads))
    candidates = _distinct(sorted(candidates, key=lambda one: _order(form, one)))
    others = [name for name in flat if not any(name.startswith(prefix) for prefix, _ in found)]
    settings = _settings(stored.content)
    return Recognized(
        stored, form, _words(form, stored, candidates[0], settings), tuple(candidates), tuple(others), settings
    )


EFFICIENTNET = Layout("EfficientNet-PyTorch", efficientnet.ANCHORS, family="efficientnet")


def _flatten(stored: Stored) -> dict[str, Tensor]:
    """Every tensor by its dotted name, wrappers' parts taken out. Raises `UserError` where two names become one."""
    flat: dict[str, Tensor] = {}
    for parts, tensor in _tensors(stored.content, ()):
        name = ".".join(part for part in ".".join(parts).split(".") if part not in WRAPPERS)
        if name in flat:
            raise UserError(f"{stored.path} holds two tensors called {name!r}, once inside of a wrapper: remove one")
        flat[name] = tensor
    return flat


def _tensors(content: Mapping[Any, Any], above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    for key, value in content.items():
        if not isinstance(key, str):
            continue
        if isinstance(value, Tensor):
            yield (*above, key), value
        elif isinstance(value, Mapping) and len(above) < MAX_DEPTH and not NOT_NETWORKS.fullmatch(key):
            yield from _tensors(value, (*above, key))


def _format_of(stored: Stored, names: list[str]) -> Format:
    if stored.exported is not None:
        networks = ((stored.exported.network or "network", ""),)
        return replace(EXPORTED, method=stored.exported.method, networks=networks)
    if "run_id" in stored.metadata and "backbone" in stored.metadata:
        return OWN_RUN
    if stored.config.get("model_type"):
        return TRANSFORMERS
    if stored.config.get("architecture"):
        return TIMM_FOLDER
    for form in FORMATS:
        if all(any(re.search(pattern, name) for name in names) for pattern in form.holds):
            return form
    return PLAIN


def _networks(flat: Mapping[str, Tensor], layouts: tuple[Layout, ...]) -> Iterator[tuple[str, Layout]]:
    """(prefix, layout) of every network, by the anchors of the first layout that fits below a prefix."""
    taken: set[str] = set()
    for layout in (*layouts[: len(LAYOUTS)], EFFICIENTNET, *layouts[len(LAYOUTS) :]):
        anchor = layout.anchors[0]
        for name in flat:
            if name != anchor and not name.endswith(f".{anchor}"):
                continue
            prefix = name.removesuffix(anchor)
            if prefix not in taken and all(f"{prefix}{other}" in flat for other in layout.anchors):
                taken.add(prefix)
                yield prefix, layout


def _inside_another(name: str, prefix: str, found: list[tuple[str, Layout]]) -> bool:
    """Whether a tensor below `prefix` belongs to a network of its own, with a longer prefix."""
    return any(len(other) > len(prefix) and name.startswith(other) for other, _ in found)


def _name_of(form: Format, prefix: str) -> str:
    for name, pattern in form.networks:
        if re.search(f"({pattern})$", prefix) and (pattern or not prefix or len(form.networks) == 1):
            return name
    return ".".join(part for part in prefix.split(".") if part and part not in SECTIONS) or "network"


def _order(form: Format, candidate: Candidate) -> tuple[int, tuple[int, int], str]:
    names = [name for name, _ in form.networks]
    place = names.index(candidate.name) if candidate.name in names else len(names)
    return place, _preference(candidate), candidate.prefix


def _preference(candidate: Candidate) -> tuple[int, int]:
    """Places of the last word of its prefix and of the first, e.g. of "online_network_state_dict.encoder."."""
    words = candidate.prefix.rstrip(".").split(".")
    first = next((word.removesuffix("_state_dict") for word in words if word not in SECTIONS), "")
    last, start = (PREFERRED.index(one) if one in PREFERRED else len(PREFERRED) for one in (words[-1], first))
    return last + (last == len(PREFERRED) and candidate.prefix != ""), start


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """Names that tell candidates apart: those of one name are called by their prefixes."""
    names = [candidate.name for candidate in candidates]
    return [
        candidate
        if names.count(candidate.name) == 1
        else Candidate(
            candidate.prefix.rstrip(".") or candidate.name, candidate.prefix, candidate.layout, candidate.tensors,
            candidate.left_out,
        )
        for candidate in candidates
    ]  # fmt: skip


def _settings(content: Mapping[Any, Any]) -> dict[str, Any]:
    """Training settings as plain values: DINO's pickled `args`, Lightning's `hyper_parameters`, the epoch."""
    found: dict[str, Any] = {}
    for key in ("args", "hyper_parameters", "config", "cfg", "opt"):
        values = content.get(key)
        values = values if isinstance(values, Mapping) else getattr(values, "__dict__", {})
        found |= {str(name): value for name, value in values.items() if _is_plain(value)}
    for key in ("epoch", "iteration", "global_step", "step", "arch"):
        if _is_plain(content.get(key)) and content.get(key) is not None:
            found.setdefault(key, content[key])
    return found


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) <= 20 and all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _words(form: Format, stored: Stored, candidate: Candidate, settings: Mapping[str, Any]) -> str:
    if stored.exported is not None:
        return f"exported by sslbench for {stored.exported.target} from {stored.exported.source}"
    if form is TRANSFORMERS:
        return f"transformers ({(stored.config.get('architectures') or [stored.config['model_type']])[0]})"
    if form is TIMM_FOLDER:
        return f"timm ({stored.config['architecture']})"
    if form is OWN_RUN:
        return f"sslbench, run {stored.metadata['run_id']}"
    words = form.name if form is not PLAIN else f"state dict with the names of {candidate.layout.name}"
    epoch = settings.get("epoch")
    return f"{words} (epoch {epoch})" if isinstance(epoch, int) and not isinstance(epoch, bool) else words


def grouped(names: Iterable[str]) -> dict[str, int]:
    """Names by their first part, sections such as "state_dict" taken out, with the number of tensors of each."""
    counts: dict[str, int] = {}
    for name in names:
        group = next((part for part in name.split(".") if part not in SECTIONS), name)
        counts[group] = counts.get(group, 0) + 1
    return counts


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
