"""k-means clustering of frozen features: do clusters found without labels agree with the classes?

k-means with as many clusters as classes on l2-normalized training features (scikit-learn, k-means++, best of 10
starts); each test image goes to the nearest center. Accuracy after the one-to-one matching of clusters and classes that
makes it largest (Hungarian method, on the test images, as in SCAN, Van Gansbeke et al. 2020, arXiv 2005.12320),
normalized mutual information (arithmetic mean) and adjusted Rand index, which need no matching.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch.nn.functional import normalize

from ssl_bench.errors import UserError
from ssl_bench.evaluator import Evaluation, Evaluator, Measurement, Protocol
from ssl_bench.measurement import accuracy_of
from ssl_bench.settings import Settings, setting

Labels = NDArray[np.int64]


class KMeansConfig(Settings):
    """Settings of the clustering."""

    clusters: int | None = setting(None, "number of clusters; none: as many as classes", ge=2)
    starts: int = setting(10, "number of starts; the clustering of least inertia counts", ge=1)


class KMeans(Evaluator):
    """Clusters of frozen features against classes: accuracy, NMI and ARI (k-means, scikit-learn)."""

    Config = KMeansConfig
    reads_images = False
    feature_kinds = frozenset({"features"})
    config: KMeansConfig

    def evaluate(self, evaluation: Evaluation) -> list[Measurement]:
        """`accuracy` of the best matching (primary), `nmi` and `ari`, all on the test images.

        Raises `UserError` for more clusters than training images.
        """
        from sklearn.cluster import KMeans as Clustering
        from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

        train, test = evaluation.features("train"), evaluation.features("test")
        clusters = self.config.clusters or len(evaluation.dataset.classes)
        if clusters > len(train.vectors):
            raise UserError(
                f"'kmeans.clusters' = {clusters} is more than the {len(train.vectors)} training images: give fewer "
                "with --set evaluators.kmeans.clusters=N"
            )
        model = Clustering(clusters, n_init=self.config.starts, random_state=evaluation.seed % 2**32)
        model.fit(normalize(train.vectors, dim=1).numpy())
        found = model.predict(normalize(test.vectors, dim=1).numpy()).astype(np.int64)
        truth = test.labels.numpy()
        protocol = Protocol.of(
            "k-means, {clusters} clusters of train, {scaling} features, best of {starts} starts, scored on test, "
            "{transform}",
            clusters=clusters, scaling="l2-normalized", starts=self.config.starts, transform=train.transform,
        )  # fmt: skip
        shares = {
            "nmi": normalized_mutual_info_score(truth, found),
            "ari": adjusted_rand_score(truth, found),
        }
        return [
            accuracy_of("accuracy", matched(truth, found), protocol=protocol, primary=True),
            *(
                Measurement(
                    metric=name,
                    value=100 * float(share),
                    unit="%",
                    higher_is_better=True,
                    n=len(truth),
                    protocol=protocol,
                )
                for name, share in shares.items()
            ),
        ]  # fmt: skip


def matched(truth: Labels, found: Labels) -> NDArray[np.bool_]:
    """(n,) whether an image is in the cluster of its class, under the one-to-one matching that makes most images so."""
    from scipy.optimize import linear_sum_assignment

    table = np.zeros((truth.max() + 1, found.max() + 1), dtype=np.int64)
    np.add.at(table, (truth, found), 1)
    classes, clusters = linear_sum_assignment(table, maximize=True)
    cluster_of = np.full(len(table), -1, dtype=np.int64)
    cluster_of[classes] = clusters
    right: NDArray[np.bool_] = cluster_of[truth] == found
    return right
