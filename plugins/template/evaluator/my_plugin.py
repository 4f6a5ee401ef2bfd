"""Nearest class mean (Mensink et al. 2013, doi:10.1109/TPAMI.2013.83): replace it by your measurement."""

import torch
from torch.nn import functional

from ssl_bench.evaluator import Evaluation, Evaluator, Measurement, Protocol
from ssl_bench.measurement import accuracy_of
from ssl_bench.settings import Settings, setting


class MyPluginSettings(Settings):
    """What can be changed, on the command line as --set evaluators.my_plugin.NAME=VALUE."""

    normalize: bool = setting(True, "Whether features are scaled to length 1 first.")


class MyPlugin(Evaluator):
    """my_plugin: each test image gets the class whose mean feature is nearest."""

    Config = MyPluginSettings
    feature_kinds = frozenset({"features"})

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """Top-1 accuracy; the features come extracted and are shared with the other evaluators."""
        train, test = evaluation.features("train"), evaluation.features("test")
        vectors, queries = train.vectors, test.vectors
        if self.config.normalize:
            vectors, queries = functional.normalize(vectors, dim=1), functional.normalize(queries, dim=1)
        classes = range(len(evaluation.dataset.classes))
        means = torch.stack([vectors[train.labels == one].mean(dim=0) for one in classes])
        predicted = torch.cdist(queries, means.nan_to_num(torch.inf)).argmin(dim=1)
        return [
            accuracy_of(  # keeps which images were right: intervals and comparisons of two runs use it
                "top1",
                predicted == test.labels,
                protocol=Protocol.of(
                    "nearest class mean, l2, normalized {normalize}, {transform}",
                    normalize=self.config.normalize,
                    transform=train.transform,
                ),
                primary=True,
            )
        ]
