"""k-NN: the paper's formula as Python loops, searches against brute force, cases by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import ssl_bench.evaluators.knn.nearest as nearest_module
from ssl_bench.errors import UserError
from ssl_bench.evaluator import Evaluation, Features, Measurement
from ssl_bench.evaluators.knn.evaluator import KNN, KNNConfig, classify
from ssl_bench.evaluators.knn.nearest import exact_search, largest_by_faiss, largest_by_torch, nearest
from ssl_bench.planning.live_memory import LiveMemory
from ssl_bench.settings import parse_settings
from tests.toy import ToyBackbone, ToyDataset


def brute_force(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Indices (m, k), best first: Python sorts float64 products, ties by index."""
    lists = []
    for query in queries.double():
        products = (bank.double() * query).sum(dim=1).tolist()
        lists.append(sorted(range(len(products)), key=lambda j: (-products[j], j))[:k])
    return torch.tensor(lists)


def votes_by_the_formula(
    train: list[list[float]], labels: list[int], query: list[float], k: int, classes: int, temperature: float = 0.07
) -> list[float]:
    """Wu et al. 2018, section 3.4, in float64: w_c = sum over neighbors i of class c of exp(s_i / T)."""

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))

    similarities = [cosine(query, row) for row in train]
    neighbors = sorted(range(len(train)), key=lambda i: (-similarities[i], i))[:k]
    votes = [0.0] * classes
    for i in neighbors:
        votes[labels[i]] += math.exp(similarities[i] / temperature)
    return votes


def evaluate(
    train: Tensor, train_labels: list[int], test: Tensor, test_labels: list[int], classes: int, **config: object
) -> dict[str, Measurement]:
    splits = {
        "train": Features(train, torch.tensor(train_labels), "native 8 px"),
        "test": Features(test, torch.tensor(test_labels), "native 8 px"),
    }
    dataset = ToyDataset()
    dataset.classes = tuple(map(str, range(classes)))
    evaluation = Evaluation(ToyBackbone(), lambda split, kind="features": splits[split], dataset, 0, Path("unused"))
    found = KNN(parse_settings(KNNConfig, config, "evaluators.knn", "knn")).evaluate(evaluation)
    return {one.metric: one for one in found}


def data(train: int, test: int, dim: int, classes: int, seed: int = 0) -> tuple[Tensor, list[int], Tensor, list[int]]:
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, generator=generator)
    labels = torch.randint(classes, (train + test,), generator=generator)
    vectors = 1.5 * torch.randn(train + test, dim, generator=generator) + centers[labels]
    return vectors[:train], labels[:train].tolist(), vectors[train:], labels[train:].tolist()


# the formula


@pytest.mark.parametrize(("train", "test", "classes"), [(250, 1, 3), (250, 99, 3), (300, 25, 1000), (210, 101, 7)])
def test_accuracy_is_that_of_the_papers_formula(train: int, test: int, classes: int) -> None:
    vectors, labels, queries, truth = data(train, test, 6, classes)
    found = evaluate(vectors, labels, queries, truth, classes)
    for k in (10, 20, 100, 200):
        hits = 0
        for query, target in zip(queries.tolist(), truth, strict=True):
            votes = votes_by_the_formula(vectors.tolist(), labels, query, k, classes)
            hits += votes.index(max(votes)) == target
        assert found[f"top1_k{k}"].value == pytest.approx(100 * hits / test), k
        assert found[f"top1_k{k}"].n == test


def test_votes_and_predictions_are_those_of_the_papers_formula() -> None:
    vectors, labels, queries, _ = data(60, 40, 5, 4)
    bank, asked = normalize(vectors, dim=1), normalize(queries, dim=1)
    found = nearest(asked, bank, 15)
    predicted = classify(found.indices, found.similarities, torch.tensor(labels), 4, [1, 5, 15], 0.07)
    for k in (1, 5, 15):
        for i, query in enumerate(queries.tolist()):
            expected = votes_by_the_formula(vectors.tolist(), labels, query, k, 4)
            ours = [0.0] * 4
            for j in range(k):
                ours[labels[int(found.indices[i, j])]] += math.exp(float(found.similarities[i, j]) / 0.07)
            assert ours == pytest.approx(expected, rel=1e-5), "float32 normalization"
            assert int(predicted[k][i, 0]) == expected.index(max(expected))


def test_votes_from_float64_cosines_agree_to_a_millionth(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, labels, queries, _ = data(50, 10, 5, 4)
    unit = normalize(vectors.double(), dim=1)
    similarities, indices = (normalize(queries.double(), dim=1) @ unit.T).topk(20)
    seen: list[Tensor] = []
    original = Tensor.argmax
    monkeypatch.setattr(Tensor, "argmax", lambda self, **kw: seen.append(self.clone()) or original(self, **kw))
    classify(indices, similarities, torch.tensor(labels), 4, [7, 20], 0.07)
    for k, votes in zip((7, 20), seen, strict=True):
        for i, query in enumerate(queries.tolist()):
            expected = votes_by_the_formula(vectors.tolist(), labels, query, k, 4)
            assert votes[i].tolist() == pytest.approx(expected, rel=1e-6)


def test_near_neighbors_outvote_many_far_ones_by_hand() -> None:
    # From (1, 0): a neighbor at 0 degrees votes exp(1 / 0.07), two at 60 degrees exp(0.5 / 0.07) each, 1265 times less
    far = [math.cos(math.pi / 3), math.sin(math.pi / 3)]
    train = torch.tensor([[2.0, 0.0], far, far])
    one = evaluate(train, [0, 1, 1], torch.tensor([[5.0, 0.0]]), [0], 2, neighbors=(3,), reported=3)
    assert one["top1_k3"].value == 100
    # With temperature 10 the two win: 2 exp(0.05) > exp(0.1)
    other = evaluate(train, [0, 1, 1], torch.tensor([[5.0, 0.0]]), [0], 2, neighbors=(3,), reported=3, temperature=10)
    assert other["top1_k3"].value == 0


def authors_script(bank: Tensor, labels: Tensor, queries: Tensor, truth: Tensor, k: int, classes: int) -> list[float]:
    """Top-1 and top-5 in percent: the body of knn_classifier in the authors' eval_knn.py, in float64, all at once."""
    similarity = queries.double() @ bank.double().T
    distances, indices = similarity.topk(k, largest=True, sorted=True)
    neighbors = torch.gather(labels.view(1, -1).expand(len(queries), -1), 1, indices)
    one_hot = torch.zeros(len(queries) * k, classes, dtype=torch.float64).scatter_(1, neighbors.view(-1, 1), 1)
    weights = distances.clone().div_(0.07).exp_()
    probabilities = torch.sum(one_hot.view(len(queries), -1, classes) * weights.view(len(queries), -1, 1), 1)
    correct = probabilities.sort(1, True)[1].eq(truth.view(-1, 1))
    return [100 * correct.narrow(1, 0, top).sum().item() / len(queries) for top in (1, min(5, k))]


@pytest.mark.parametrize(("classes", "k"), [(6, 5), (9, 20), (23, 10), (60, 20)])
def test_top1_and_top5_are_those_of_the_authors_script(classes: int, k: int) -> None:
    vectors, labels, queries, truth = data(150, 90, 7, classes)
    found = evaluate(vectors, labels, queries, truth, classes, neighbors=(k,), reported=k)
    bank, asked = normalize(vectors, dim=1), normalize(queries, dim=1)
    expected = authors_script(bank, torch.tensor(labels), asked, torch.tensor(truth), k, classes)
    assert [found[f"top{top}_k{k}"].value for top in (1, 5)] == pytest.approx(expected)
    assert expected[0] < expected[1] < 100, "the case should tell top-1, top-5 and all apart"
    assert [one.metric for one in found.values() if one.primary] == [f"top1_k{k}"]


def test_top5_is_left_out_where_it_would_say_nothing() -> None:
    assert list(evaluate(*data(30, 9, 4, 5), 5, neighbors=(10,), reported=10)) == ["top1_k10"]  # 5 classes: 100 %
    assert list(evaluate(*data(30, 9, 4, 9), 9, neighbors=(4,), reported=4)) == ["top1_k4"]


def test_classes_without_a_vote_rank_by_index() -> None:
    ranked = classify(torch.tensor([[0, 1]]), torch.tensor([[0.9, 0.8]]), torch.tensor([6, 2]), 8, [1, 2], 0.07, 5)
    assert {k: rows.tolist() for k, rows in ranked.items()} == {1: [[6, 0, 1, 2, 3]], 2: [[6, 2, 0, 1, 3]]}


def test_length_of_a_feature_does_not_count() -> None:
    vectors, labels, queries, truth = data(40, 12, 4, 3)
    stretched = vectors * torch.linspace(0.01, 100, 40)[:, None]
    a, b = (evaluate(v, labels, queries, truth, 3, neighbors=(5,), reported=5) for v in (vectors, stretched))
    assert a["top1_k5"].value == b["top1_k5"].value


def test_ties_go_to_the_smaller_training_index_and_class() -> None:
    bank = torch.tensor([[0.0, 1.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    query = torch.tensor([[1.0, 0.0]])
    for backend in ("torch", "faiss"):
        assert nearest(query, bank, 2, backend).indices.tolist() == [[1, 2]]
    predicted = classify(torch.tensor([[1, 2]]), torch.ones(1, 2), torch.tensor([0, 4, 3, 0]), 5, [1, 2], 0.07)
    assert predicted[1].tolist() == [[4]]
    assert predicted[2].tolist() == [[3]], "4 and 3 have one vote each"


def test_votes_in_parts_are_votes_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    indices, labels = torch.randint(50, (37, 9), generator=generator), torch.randint(11, (50,), generator=generator)
    similarities = torch.rand(37, 9, generator=generator).sort(descending=True).values
    whole = classify(indices, similarities, labels, 11, [2, 9], 0.07, 5)
    monkeypatch.setattr("ssl_bench.evaluators.knn.evaluator.VOTES_AT_ONCE", 44)
    parts = classify(indices, similarities, labels, 11, [2, 9], 0.07, 5)
    assert all(torch.equal(whole[k], parts[k]) for k in (2, 9))


# the evaluator


def test_measurements_name_their_protocol_and_keep_the_library_out_of_it() -> None:
    arguments = (*data(250, 10, 4, 3), 3)
    by = {search: evaluate(*arguments, search=search) for search in ("torch", "faiss")}
    assert [m.metric for m in by["torch"].values() if m.primary] == ["top1_k20"]
    assert by["torch"]["top1_k20"].protocol.text == "20-NN, cosine, exp(s / 0.07), exact, native 8 px"
    for metric in by["torch"]:
        one, other = by["torch"][metric], by["faiss"][metric]
        assert one.model_copy(update={"details": ""}) == other.model_copy(update={"details": ""})
        assert one.details.startswith("torch ")
        assert other.details.startswith("FAISS ")


def test_k_above_the_training_set_is_left_out_and_said() -> None:
    found = evaluate(*data(50, 5, 4, 3), 3)
    assert list(found) == ["top1_k10", "top1_k20"]
    assert found["top1_k20"].primary
    assert found["top1_k20"].details.endswith("; k = 100, 200 left out: only 50 training images")
    smaller = evaluate(*data(15, 5, 4, 3), 3)
    assert [m.metric for m in smaller.values() if m.primary] == ["top1_k10"]


def test_metrics_are_told_before_anything_is_measured() -> None:
    config = parse_settings(KNNConfig, {"neighbors": (3, 20), "reported": 3}, "evaluators.knn", "knn")
    assert KNN(config).metrics() == KNN(config).metrics(20) == ("top1_k3", "top1_k20", "top5_k3", "top5_k20")
    assert KNN(config).metrics(19) == ("top1_k3", "top5_k3"), "as evaluate leaves a larger k out"


def test_a_training_set_below_every_k_is_refused() -> None:
    with pytest.raises(UserError, match=r"the training set has 9 images; give a k of at most that"):
        evaluate(*data(9, 5, 4, 3), 3)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"reported": 7}, "must be one of neighbors"),
        ({"neighbors": (20, 20)}, "different numbers"),
        ({"neighbors": (0, 20)}, "different numbers"),
        ({"temperature": 0}, "temperature"),
        ({"search": "annoy"}, "search"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_settings(KNNConfig, given, "evaluators.knn", "knn")


# the searches


def hard_bank(kind: str, rows: int, dim: int, seed: int) -> tuple[Tensor, Tensor]:
    """Queries (9, dim) and a bank on which rounding or grouping could go wrong."""
    generator = torch.Generator().manual_seed(seed)
    bank, queries = torch.randn(rows, dim, generator=generator), torch.randn(9, dim, generator=generator)
    if kind == "crowded":  # an untrained network: all cosines above 0.9999
        bank, queries = 1e-3 * bank + 1, 1e-3 * queries + 1
    if kind == "near-ties":  # steps of float32's last bit
        bank = torch.ones(rows, dim) + 2.0**-23 * torch.randint(0, 3, (rows, dim), generator=generator)
        return queries, bank
    if kind == "duplicates":
        bank = bank[torch.randint(0, max(1, rows // 5), (rows,), generator=generator)]
    if kind == "same":
        bank = bank[:1].expand(rows, dim).contiguous()
    if kind == "sorted":  # neighbors in space are neighbors in memory
        bank = bank[bank[:, 0].argsort()]
    if kind == "opposite":  # every product below 0
        bank, queries = bank.abs(), -queries.abs()
    if kind == "lengths":
        return queries, bank * 10.0 ** torch.randint(-3, 4, (rows, 1), generator=generator)
    return normalize(queries, dim=1), normalize(bank, dim=1)


KINDS = ("random", "crowded", "near-ties", "duplicates", "same", "sorted", "opposite", "lengths")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 400),
    dim=st.integers(1, 40),
    k=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_the_torch_search_is_brute_force(kind: str, rows: int, dim: int, k: int, seed: int) -> None:
    queries, bank = hard_bank(kind, rows, dim, seed)
    k = min(k, rows)
    found = exact_search(queries, bank, k, largest_by_torch)
    assert torch.equal(found.indices, brute_force(queries, bank, k))
    exact = (queries.double()[:, None] * bank.double()[found.indices]).sum(dim=2)
    assert torch.allclose(found.similarities, exact, rtol=1e-12, atol=1e-13)


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), rows=st.integers(1, 300), k=st.integers(1, 40), seed=st.integers(0, 99))
def test_faiss_and_torch_agree_to_the_bit(kind: str, rows: int, k: int, seed: int) -> None:
    queries, bank = hard_bank(kind, rows, 24, seed)
    one, other = nearest(queries, bank, min(k, rows), "torch"), nearest(queries, bank, min(k, rows), "faiss")
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.similarities, other.similarities)


@pytest.mark.parametrize("kind", ["random", "crowded", "sorted"])
@pytest.mark.parametrize("largest", [largest_by_torch, largest_by_faiss])
def test_blocks_and_groups_change_nothing(
    monkeypatch: pytest.MonkeyPatch, kind: str, largest: nearest_module.Largest
) -> None:
    _, bank = hard_bank(kind, 3001, 16, 0)
    queries = normalize(torch.randn(25, 16, generator=torch.Generator().manual_seed(1)), dim=1)
    expected = brute_force(queries, bank, 2)
    assert torch.equal(exact_search(queries, bank, 2, largest).indices, expected), "groups of rows"
    for name, value in {"ROWS": 100, "PRODUCTS": 500, "CANDIDATES": 14, "SPARE": 0, "SCORED": 3}.items():
        monkeypatch.setattr(nearest_module, name, value)
    assert torch.equal(exact_search(queries, bank, 2, largest).indices, expected)


@pytest.mark.parametrize("backend", ["torch", "faiss"])
@pytest.mark.parametrize("kind", ["random", "near-ties", "lengths", "zero"])
def test_cosine_is_the_search_among_normalized_vectors(backend: nearest_module.Backend, kind: str) -> None:
    queries, bank = hard_bank("random" if kind == "zero" else kind, 500, 24, 0)
    bank = 3 * bank * (torch.arange(500)[:, None] % 7 > 0) if kind == "zero" else 3 * bank
    one = nearest(2 * queries, bank, 9, backend, cosine=True)
    other = nearest(normalize(2 * queries, dim=1), normalize(bank, dim=1), 9, backend)
    assert torch.equal(one.indices, other.indices)
    assert torch.equal(one.similarities, other.similarities)


class Sizes(TorchDispatchMode):
    """Keeps how many bytes the largest tensor has that any operation gives and that is not a view of another."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        given = {one.untyped_storage().data_ptr() for one in tree_leaves(args) if isinstance(one, Tensor)}
        for one in tree_leaves(result):
            if isinstance(one, Tensor) and one.untyped_storage().data_ptr() not in given:
                self.largest = max(self.largest, one.nbytes)
        return result


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_no_second_bank_is_made(monkeypatch: pytest.MonkeyPatch, backend: nearest_module.Backend) -> None:
    monkeypatch.setattr(nearest_module, "ROWS", 1024)
    queries, bank = hard_bank("random", 20_000, 64, 0)
    with Sizes() as sizes:
        nearest(queries, bank, 3, backend, cosine=True)
    assert 0 < sizes.largest < bank.nbytes / 4


@pytest.mark.parametrize("backend", ["torch", "faiss"])
def test_memory_beside_the_bank_does_not_grow_with_it(
    monkeypatch: pytest.MonkeyPatch, backend: nearest_module.Backend
) -> None:
    for name, value in {"ROWS": 512, "PRODUCTS": 1 << 15, "CANDIDATES": 704, "SCORED": 64}.items():
        monkeypatch.setattr(nearest_module, name, value)

    def extra(rows: int) -> int:
        queries, bank = hard_bank("random", rows, 32, 0)
        memory = LiveMemory()
        memory.add([queries, bank], "given")
        with memory:
            nearest(queries, bank, 3, backend, cosine=True)
        return memory.peak - queries.nbytes - bank.nbytes

    lengths = 4 * 6000
    assert extra(12_000) - extra(6_000) < 1.5 * lengths
    assert extra(12_000) < 512 * 1024, "one block of rows, one of products and the candidates"


def test_maxima_of_groups_lose_nothing() -> None:
    queries, rows = hard_bank("random", 5003, 8, 0)
    for count in (1, 9, 40, 5003):  # 8, 8, 1 and 1 rows a group
        values, columns = largest_by_torch(queries, rows, count)
        assert torch.equal(values, (queries @ rows.T).topk(count).values), count
        assert torch.allclose((queries @ rows.T).gather(1, columns), values), count


def test_candidates_too_few_for_certainty_are_followed_by_more() -> None:
    # Rows of one half differ by less than float32 products of their common part are sure of; the mean is near zero
    generator = torch.Generator().manual_seed(0)
    bank = torch.cat([normalize(1 + 1e-5 * torch.randn(2000, 32, generator=generator), dim=1), -torch.ones(2000, 32)])
    queries = normalize(torch.randn(8, 32, generator=generator) + 1, dim=1)
    asked: list[int] = []

    def counted(some: Tensor, rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
        asked.append(count)
        return largest_by_torch(some, rows, count)

    found = exact_search(queries, bank, 3, counted)
    assert torch.equal(found.indices, brute_force(queries, bank, 3))
    assert asked[:2] == [11, 88]


@pytest.mark.parametrize("kind", KINDS)
def test_the_error_bound_holds(kind: str) -> None:
    queries, bank = hard_bank(kind, 300, 64, 3)
    center = bank.mean(dim=0)
    radius = float((bank - center).norm(dim=1).max())
    exact = queries.double() @ (bank.double() - center.double()).T
    computed = (queries @ (bank - center).T).double()
    bound = nearest_module.error_bound(queries, center, radius)
    assert bool(((exact - computed).abs() <= bound[:, None]).all())


def test_the_error_bound_is_that_of_a_sum_rounded_after_each_product() -> None:
    # Higham 2002, section 3.1: at most D u |q| |b|, u = 2^-24; by hand for D = 64, |q| = 2, radius 3, no common part
    bound = float(nearest_module.error_bound(torch.full((1, 64), 0.25), torch.zeros(64), 3.0))
    assert 64 * 2.0**-24 * 2 * 3 < bound < 2.2 * 64 * 2.0**-24 * 2 * 3


def test_a_looser_matrix_product_setting_is_put_back() -> None:
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        queries, bank = hard_bank("near-ties", 200, 24, 0)
        assert torch.equal(nearest(queries, bank, 9, "torch").indices, brute_force(queries, bank, 9))
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_auto_is_faiss_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    queries, bank = hard_bank("random", 300, 8, 0)
    assert nearest(queries, bank, 3).searched_by == "FAISS (float32 products, float64 scores)"
    monkeypatch.setattr(nearest_module, "faiss_is_installed", lambda: False)
    without = nearest(queries, bank, 3)
    assert without.searched_by == f"torch {torch.__version__} (float32 products, float64 scores)"
    assert torch.equal(without.indices, brute_force(queries, bank, 3))
    with pytest.raises(UserError, match="pip install faiss-cpu"):
        nearest(queries, bank, 3, "faiss")


@pytest.mark.parametrize(
    ("queries", "bank", "k", "said"),
    [
        (torch.ones(2, 3), torch.ones(4, 2), 1, r"\(2, 3\) and bank \(4, 2\)"),
        (torch.ones(0, 3), torch.ones(4, 3), 1, r"\(0, 3\)"),
        (torch.ones(2, 3), torch.ones(4, 3), 5, "k = 5: give 1 to 4"),
        (torch.ones(2, 3), torch.ones(4, 3), 0, "k = 0"),
        (torch.ones(2, 3).double(), torch.ones(4, 3), 1, "queries: give finite float32"),
        (torch.ones(2, 3), torch.full((4, 3), torch.nan), 1, "bank: give finite float32"),
    ],
)
def test_wrong_arguments_are_named(queries: Tensor, bank: Tensor, k: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        nearest(queries, bank, k)
