"""Checks of a method before its first step: presets, `fill`, views, and that it can be built."""

from __future__ import annotations

import pickle
import random
from random import Random
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ssl_bench.settings import parse_settings
from ssl_bench.testing import subjects
from ssl_bench.testing.method_bench import Subject, same
from ssl_bench.testing.outcomes import CheckFailed, CheckSkipped, require


def presets_are_valid(subject: Subject) -> None:
    """Every key of every preset is a setting, with a value that it takes."""
    from ssl_bench.blocks.optimizers import OptimizerSettings
    from ssl_bench.records.recipe import TrainingSettings

    models: dict[str, Any] = {
        "method": subject.plugin.Config,
        "optimizer": OptimizerSettings,
        "training": TrainingSettings,
    }
    if not subject.plugin.presets:
        raise CheckSkipped("there are no presets")
    for name, preset in subject.plugin.presets.items():
        for values in (preset.values, {**preset.values, **preset.convnet_values}):
            for key in values:
                require(
                    key.partition(".")[0] in models,
                    f"preset {name!r}: {key!r} is in no section: write method.NAME, optimizer.NAME or training.NAME",
                )
            for section, model in models.items():
                prefix = section + "."
                of_section = {
                    key.removeprefix(prefix): value for key, value in values.items() if key.startswith(prefix)
                }
                try:
                    parse_settings(model, of_section, section, subject.plugin.__name__)
                except ValueError as error:
                    raise CheckFailed(f"preset {name!r}: {error}") from error


def it_can_be_built(subject: Subject) -> None:
    """`fill`, `make_views` and `__init__` work with a narrow network of every kind that the method can use."""
    for bench in subject.benches:
        method = bench.build()
        bench.batch()
        require(
            any(True for _ in method.state_dict()),
            "the method has no network: keep the networks of make_backbone() as attributes of the method",
        )


def filled_settings_stay_as_they_are(subject: Subject) -> None:
    """`fill` changes nothing when it is called again: a resumed run fills its recipe a second time."""
    for bench in subject.benches:
        again = subject.plugin.fill(bench.config, subjects.situation(bench.network))
        changed = [name for name in type(again).model_fields if getattr(again, name) != getattr(bench.config, name)]
        require(not changed, f"fill() changes {', '.join(changed)} a second time: decide only what is None")


def views_have_one_shape_for_every_image(subject: Subject) -> None:
    """Two images of different sizes give views of the same number and shapes: a batch stacks them."""
    for bench in subject.benches:
        first, second = (bench.make_views(subjects.picture(3, *size), Random(1)) for size in ((40, 52), (96, 33)))
        require(
            isinstance(first, tuple) and len(first) > 0 and all(isinstance(view, Tensor) for view in first),
            f"make_views(config)(image, rng) gives {type(first).__name__}: return tuple(views) of (3, height, width)",
        )
        shapes, others = ([tuple(view.shape) for view in views] for views in (first, second))
        require(
            shapes == others,
            f"views of a 40 x 52 px image are {shapes}, of 96 x 33 px {others}: crop or resize to sizes from the "
            "settings (ssl_bench.blocks.views.Crop does)",
        )
        require(
            first[0].ndim == 3 and first[0].shape[0] == 3 and first[0].dtype == torch.float32,
            f"the first view is {first[0].dtype} {shapes[0]}: a view of an image is float32 (3, height, width)",
        )
        require(
            all(bool(torch.isfinite(view).all()) for view in first if view.is_floating_point()),
            "a view contains NaN or infinity: divide by a standard deviation that is not 0",
        )


def views_depend_only_on_their_random_numbers(subject: Subject) -> None:
    """The same `Random` gives the same views whatever the state of the global generators, which stays the same."""
    bench = subject.benches[0]
    image = subjects.picture(3)
    found = []
    for seed in (1, 2):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        before = _global_random_state()
        found.append(bench.make_views(image, Random(7)))
        require(
            before == _global_random_state(),
            "make_views draws from a global generator (random, numpy or torch): draw from its "
            "argument rng, or wrap the transform in ssl_bench.blocks.views.from_global_rng",
        )
    require(
        all(same(one, other) for one, other in zip(*found, strict=True)),
        "the same Random(7) gives different views: draw only from the Random that the function gets as its argument",
    )


def views_reach_worker_processes(subject: Subject) -> None:
    """The return value of `make_views` can be pickled: spawned worker processes get it this way."""
    for bench in subject.benches[:1]:
        try:
            copy = pickle.loads(pickle.dumps(bench.make_views))
        except Exception as error:
            raise CheckFailed(
                f"make_views(config) cannot be pickled ({error}): return an instance of a class or a "
                "functools.partial of a function at module level, not a function made inside another"
            ) from error
        image = subjects.picture(3)
        pairs = zip(bench.make_views(image, Random(7)), copy(image, Random(7)), strict=True)
        require(all(same(one, other) for one, other in pairs), "a pickled copy of make_views gives different views")


def _global_random_state() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, bytes(np.asarray(keys)), *rest, bytes(torch.get_rng_state().numpy())
