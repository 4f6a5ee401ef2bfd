"""Checks of the networks that a method names, and of the one that is evaluated."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from ssl_bench.backbone import Backbone
from ssl_bench.evaluation.features import FeatureStore, UnusableFeatures
from ssl_bench.method import evaluated_network
from ssl_bench.registry.preflight import wrong_networks
from ssl_bench.testing import subjects
from ssl_bench.testing.method_bench import Subject, optimizer_of, some
from ssl_bench.testing.outcomes import CheckFailed, CheckSkipped, require
from ssl_bench.training.collapse_doctor import is_present
from ssl_bench.weights.whole import compared


def networks_are_parts_of_the_method(subject: Subject) -> None:
    """`networks()` returns backbones by name whose weights belong to the method and are not copies."""
    for bench in subject.working:
        method = bench.build()
        networks = method.networks()
        wrong = wrong_networks(networks)
        require(not wrong, wrong)
        of_method = {id(tensor) for tensor in (*method.parameters(), *method.buffers())}
        for name, network in networks.items():
            copied = [weight for weight, tensor in network.named_parameters() if id(tensor) not in of_method]
            require(
                not copied,
                f"networks()[{name!r}] holds {some(copied)}, which is not the method's: return self.teacher or the "
                "like itself, not a copy",
            )
        first = next(iter(networks))
        differences = compared(networks[first].state_dict(), bench.network().state_dict())
        require(
            not differences,
            f"networks() names {first!r} first, which is not as make_backbone() builds it: {differences}. "
            "The first is evaluated and kept, and its weights must load into the architecture again",
        )


def evaluation_features_are_finite_and_not_constant(subject: Subject) -> None:
    """The evaluated network gives finite features (batch, dim) that differ from image to image."""
    for bench in subject.working:
        method = bench.build()
        if any(parameter.requires_grad for parameter in method.parameters()):
            bench.train_step(method, optimizer_of(method), bench.batch())
        evaluated = evaluated_network(method).eval()
        with torch.no_grad():
            features = evaluated(torch.stack([_standard(seed) for seed in range(4)]))
        require(
            features.shape == (4, evaluated.feature_dim),
            f"features of 4 images are {tuple(features.shape)}: the first of networks() must give (4, feature_dim = "
            f"{evaluated.feature_dim}); leave the head out",
        )
        require(bool(torch.isfinite(features).all()), "features contain NaN or infinity after one step")
        require(
            not bool((features == features[0]).all()),
            f"features are the same for every image on {bench.network.name}: does the evaluated network ever get its "
            "weights, e.g. as a copy of the student's in __init__?",
        )


def collapse_is_detected_when_forced(subject: Subject) -> None:
    """With all weights at 0 the evaluated network is constant, and its features are refused."""
    for bench in subject.working:
        method = bench.build()
        with torch.no_grad():
            for parameter in method.parameters():
                parameter.zero_()
        store = FeatureStore(
            evaluated_network(method),
            subjects.SmallData(),
            image_px=subjects.IMAGE_PX,
            device=torch.device("cpu"),
            autocast_dtype=None,
            batch_size=48,
            workers=0,
        )
        try:
            store("test")
        except UnusableFeatures:
            continue
        raise CheckFailed(
            "with every weight of the method at 0 the evaluation features still differ from image to image, so a "
            "collapse would go unnoticed: the first of networks() must be a part of the method itself and add nothing"
        )


def signs_show_a_forced_collapse(subject: Subject) -> None:
    """The values of `signs` are logged, and one sign is present when no backbone tells images apart."""
    for bench in subject.working:
        method = bench.build()
        signs = method.signs(subjects.BATCH)
        if not signs:
            raise CheckSkipped(
                "signs() names none, so a run ends as collapsed only if the features of all images are alike; name "
                "the values of your logs in a collapse, e.g. Sign({'spread': NO_SPREAD}, cause, change)"
            )
        with torch.no_grad():
            for parameter in (p for one in method.modules() if isinstance(one, Backbone) for p in one.parameters()):
                parameter.zero_()
        output = bench.step(method, bench.batch())
        logged = {"loss": output.loss, **output.logs, **method.batch_logs(output.carry)}
        logs = {name: value.item() for name, value in logged.items()}
        for name in dict.fromkeys(name for sign in signs for name in sign.near):
            require(
                name in logs or name in ("feature_spread", "effective_rank"),
                f"signs() looks for {name!r}, which is not logged: the logs are {', '.join(logs)}",
            )
        require(
            any(is_present(sign, logs) for sign in signs),
            "with every weight of the backbones at 0 none of the signs is present: the logs are "
            f"{', '.join(f'{name} {value:.3g}' for name, value in logs.items())} on {bench.network.name}; name the "
            "values that a collapse gives",
        )


def _standard(seed: int) -> Tensor:
    pixels = np.array(subjects.picture(seed, subjects.IMAGE_PX, subjects.IMAGE_PX), dtype=np.float32)
    return torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1)
