"""Checks shared by all kinds of plugins: docstrings and settings."""

from __future__ import annotations

import inspect
import json
import re
import sys
from typing import Any

from ssl_bench.backbone import Backbone
from ssl_bench.dataset import Dataset
from ssl_bench.evaluator import Evaluator
from ssl_bench.logger import Logger
from ssl_bench.method import Method
from ssl_bench.registry.preflight import wrong_capabilities, wrong_hook
from ssl_bench.settings import Settings, parse_settings
from ssl_bench.testing.outcomes import require

SOURCE = re.compile(r"arXiv[: ]*\d{4}\.\d{4,5}|doi[:. ]|https?://|unpublished", re.IGNORECASE)


def docstring_present(subject: Any) -> None:
    """The class has a docstring whose first line says what it is: `sslbench list` shows that line."""
    plugin: type = subject.plugin
    require(
        bool((plugin.__doc__ or "").strip()),
        f'{plugin.__name__} has no docstring: write what it is in one line, e.g. """NAME: what it does."""',
    )


def docstring_and_paper_present(subject: Any) -> None:
    """The class has a docstring whose first line says what it is, and it or the module cites the paper."""
    docstring_present(subject)
    module = sys.modules.get(subject.plugin.__module__)
    words = f"{inspect.getdoc(module) or ''} {subject.plugin.__doc__}"
    require(
        SOURCE.search(words) is not None,
        "no paper is cited: name it in the module's docstring as arXiv NNNN.NNNNN (or doi:..., an address, or the word "
        "unpublished)",
    )


def settings_round_trip_through_json(subject: Any) -> None:
    """Config is a frozen settings model, and its values survive JSON: recipes rely on it."""
    model = subject.plugin.Config
    require(
        isinstance(model, type) and issubclass(model, Settings),
        f"Config is {model!r}: make it a subclass of ssl_bench.settings.Settings",
    )
    require(
        bool(model.model_config.get("frozen")) and model.model_config.get("extra") == "forbid",
        "Config is not frozen or allows unknown keys: leave model_config as ssl_bench.settings.Settings has it",
    )
    for config in subject.configs():
        values = json.loads(json.dumps(config.model_dump(mode="json")))
        again = parse_settings(model, values, "settings", subject.plugin.__name__)
        changed = [name for name in model.model_fields if getattr(again, name) != getattr(config, name)]
        require(
            not changed,
            f"{', '.join(changed)} changed when written to JSON and read: use int, float, bool, str, "
            "tuple, Literal or None",
        )


def settings_are_described(subject: Any) -> None:
    """Every setting has a meaning, which the command line shows."""
    bare = [name for name, field in subject.plugin.Config.model_fields.items() if not field.description]
    require(
        not bare,
        f"{', '.join(bare)} has no meaning: write NAME: TYPE = setting(default, 'what it is.', unit=..., source=...)",
    )


def required_capabilities_exist(subject: Any) -> None:
    """Every capability in `requires` is one that a backbone can have."""
    wrong = wrong_capabilities(subject.plugin)
    require(not wrong, wrong)


def functions_take_what_they_are_given(subject: Any) -> None:
    """Every function of the contract can be called with the parameters that the core has for it."""
    contract = next(one for one in (Method, Backbone, Evaluator, Dataset, Logger) if issubclass(subject.plugin, one))
    wrong = wrong_hook(subject.plugin, contract.__name__)
    require(not wrong, f"the {contract.__name__.lower()} {wrong}")
