"""Linear probe: each rate against a plain torch.optim loop, honest selection, cases with a known answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ssl_bench.errors import UserError
from ssl_bench.evaluator import Evaluation, Features, Measurement
from ssl_bench.evaluators.linear_probe.evaluator import LinearProbe, LinearProbeConfig
from ssl_bench.evaluators.linear_probe.training import (
    Probes,
    ProbeSettings,
    cross_validate,
    draw_folds,
    hold_out,
    train_probes,
)
from ssl_bench.settings import parse_settings
from tests.toy import ToyBackbone, ToyDataset


def clusters(count: int, dim: int, classes: int, noise: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors (count, dim) around a center for each class, and labels."""
    generator = torch.Generator().manual_seed(seed)
    centers = torch.randn(classes, dim, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(count) % classes
    return centers[labels] + noise * torch.randn(count, dim, generator=generator), labels


def train(
    vectors: Tensor, labels: Tensor, rates: Sequence[float], *, classes: int = 3, epochs: int = 6, seed: int = 0
) -> Probes:
    """Two thirds for training, one third held out."""
    part = 2 * len(vectors) // 3
    return train_probes(
        vectors[:part], labels[:part], vectors[part:], labels[part:], classes,
        ProbeSettings(rates, epochs, batch_size=16, momentum=0.9, seed=seed),
    )  # fmt: skip


def evaluate(
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    seed: int = 0,
    say: Callable[[str], None] = print,
    **config: object,
) -> dict[str, Measurement]:
    """Measurements by name; few epochs and the held-out part unless the case asks for more."""
    kinds: set[str] = set()
    config = {"min_steps": 1, "cross_validate_below": 0, **config}
    splits = {"train": Features(*train, "native 8 px"), "test": Features(*test, "native 8 px")}

    def source(split: str, kind: str = "features") -> Features:
        kinds.add(kind)
        return splits[split]

    dataset = ToyDataset()
    dataset.classes = tuple(map(str, range(int(train[1].max()) + 1)))
    evaluation = Evaluation(ToyBackbone(), source, dataset, seed, Path("unused"), say)  # type: ignore[arg-type]
    found = LinearProbe(parse_settings(LinearProbeConfig, config, "evaluators.linear-probe", "it")).evaluate(evaluation)
    assert kinds == {"probe_features"}
    return {one.metric: one for one in found}


# the training


def plain_loop(
    features: Tensor, labels: Tensor, classes: int, rate: float, *, epochs: int, batch_size: int, seed: int
) -> tuple[Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """DINO's eval_linear.py for one rate, with torch's own layer, loss, optimizer and schedule."""
    generator = torch.Generator().manual_seed(seed)
    layer = nn.Linear(features.shape[1], classes).to(features.dtype)
    with torch.no_grad():
        drawn = torch.empty(features.shape[1], classes, dtype=torch.float64).normal_(0, 0.01, generator=generator)
        layer.weight.copy_(drawn.T)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), rate * batch_size / 256, momentum=0.9, weight_decay=0)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs, eta_min=0)
    states = []
    for _ in range(epochs):
        order = torch.randperm(len(features), generator=generator)
        for rows in order.split(batch_size):
            optimizer.zero_grad()
            nn.functional.cross_entropy(layer(features[rows]), labels[rows]).backward()
            optimizer.step()
        scheduler.step()
        states.append((layer.weight.detach().T.clone(), layer.bias.detach().clone()))
    return (*states[-1], states)


@pytest.mark.parametrize("batch_size", [16, 40, 1000])  # 40 leaves an incomplete last batch, 1000 is the whole set
def test_each_rate_follows_a_plain_loop(batch_size: int) -> None:
    vectors, labels = clusters(96, 7, 4, 1.0)
    vectors, rates = vectors.double(), (1e-3, 0.1, 2.0, 30.0)
    found = train_probes(
        vectors, labels, vectors[:20], labels[:20], 4, ProbeSettings(rates, 9, batch_size, momentum=0.9, seed=3)
    )
    assert found.weight.shape == (4, 7, 4)
    for i, rate in enumerate(rates):
        weight, bias, _ = plain_loop(
            vectors, labels, 4, rate, epochs=9, batch_size=min(batch_size, len(vectors)), seed=3
        )
        assert torch.allclose(found.weight[i], weight, rtol=1e-6, atol=1e-6), rate
        assert torch.allclose(found.bias[i], bias, rtol=1e-6, atol=1e-6), rate


def test_the_held_out_part_chooses_rate_and_epoch_as_a_search_over_plain_loops_does() -> None:
    vectors, labels = clusters(150, 5, 3, 2.5)
    vectors, rates, part = vectors.double(), (1e-3, 0.3, 100.0), 100
    found = train(vectors, labels, rates, epochs=8)
    scores = {}
    for rate in rates:
        states = plain_loop(vectors[:part], labels[:part], 3, rate, epochs=8, batch_size=16, seed=0)[2]
        for epoch, (weight, bias) in enumerate(states):
            logits = vectors[part:] @ weight + bias
            accuracy = (logits.argmax(dim=1) == labels[part:]).double().mean().item()
            loss = nn.functional.cross_entropy(logits, labels[part:]).item()
            scores[rate, epoch + 1] = (accuracy, -loss, weight)
    assert found.selected is not None
    assert found.last is not None
    best = max(scores, key=lambda key: scores[key][:2])
    assert (found.selected.rate, found.selected.epoch) == best
    assert torch.allclose(found.selected.weight, scores[best][2], atol=1e-6)
    assert best[1] < 8, "the case should tell the two choices apart"
    last = max(((rate, 8) for rate in rates), key=lambda key: scores[key][:2])
    assert (found.last.rate, found.last.epoch) == last
    assert found.last.held_out_accuracy == pytest.approx(scores[last][0])
    assert torch.allclose(found.last.weight, scores[last][2], atol=1e-6)


def test_float32_stays_near_float64() -> None:
    vectors, labels = clusters(120, 8, 3, 0.7)
    single, double = (train(v, labels, (0.01, 0.3)) for v in (vectors, vectors.double()))
    assert single.weight.dtype == torch.float32
    assert torch.allclose(single.weight.double(), double.weight, atol=1e-4)


def test_a_rate_does_not_see_the_others_even_when_they_diverge() -> None:
    vectors, labels = clusters(90, 6, 3, 1.0)
    vectors = vectors.double()
    alone, together = train(vectors, labels, (0.1,)), train(vectors, labels, (0.1, 1e308))
    assert together.finite == (True, False)
    assert torch.isnan(together.weight[1]).any()
    assert torch.allclose(alone.weight[0], together.weight[0], rtol=1e-12, atol=1e-15)
    assert together.last is not None
    assert together.last.rate == 0.1
    assert together.selected is not None
    assert together.selected.rate == 0.1


def test_when_every_rate_diverges_the_user_is_told() -> None:
    points = clusters(60, 4, 3, 0.5)
    with pytest.raises(UserError, match="every one diverged; give smaller ones or standardize = true"):
        evaluate((points[0] * 1e30, points[1]), points, learning_rates=(1e30,), epochs=3)


# the evaluator


def test_separable_classes_are_all_right() -> None:
    found = evaluate(clusters(300, 16, 5, 0.05), clusters(80, 16, 5, 0.05, seed=1), epochs=20)
    assert found["top1_last"].value == found["top1_selected"].value == 100
    assert found["top1_last"].n == 80


def test_random_labels_stay_at_chance() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors, labels = torch.randn(3000, 8, generator=generator), torch.randint(4, (3000,), generator=generator)
    found = evaluate((vectors[:1000], labels[:1000]), (vectors[1000:], labels[1000:]), epochs=5)
    for one in found.values():
        assert abs(one.value - 25) < 4, "chance is 25 %, its deviation for 2000 images 1 %"


def test_selection_never_sees_the_test_labels() -> None:
    learned, (vectors, labels) = clusters(200, 6, 3, 2.5), clusters(60, 6, 3, 2.5, seed=1)
    honest = evaluate(learned, (vectors, labels), epochs=8)
    shuffled = evaluate(learned, (vectors, (labels + 1) % 3), epochs=8)
    for metric, one in honest.items():
        assert one.details == shuffled[metric].details
        assert one.value > 50 > shuffled[metric].value


def test_the_same_seed_gives_the_same_numbers_and_another_seed_another_split() -> None:
    learned, asked = clusters(200, 6, 3, 2.5), clusters(60, 6, 3, 2.5, seed=1)
    first, again, other = (evaluate(learned, asked, seed=seed, epochs=5) for seed in (0, 0, 1))
    assert first == again
    assert first["top1_last"].details != other["top1_last"].details


def test_global_random_state_is_neither_used_nor_moved() -> None:
    learned = clusters(60, 4, 3, 1.0)
    torch.manual_seed(0)
    before, first = torch.get_rng_state(), evaluate(learned, learned, epochs=2)
    # A backbone is built inside `evaluate`; the probe itself must not draw
    torch.manual_seed(1)
    assert evaluate(learned, learned, epochs=2) == first
    torch.set_rng_state(before)
    train(*learned, (0.1,))
    assert torch.equal(torch.get_rng_state(), before)


def test_measurements_say_what_they_are() -> None:
    lines: list[str] = []
    learned = clusters(200, 6, 3, 1.0)
    found = evaluate(learned, learned, say=lines.append, learning_rates=(1e-9, 0.3), epochs=5)
    assert [name for name, one in found.items() if one.primary] == ["top1_last"]
    shared = (
        "linear probe, SGD 0.9, 5 epochs cosine, batch 256, no augmentation, raw features, trained on 90 % of train, "
        "rates 1e-09 0.3, "
    )
    assert found["top1_last"].protocol.text == f"{shared}rate chosen on held-out images, last epoch, native 8 px"
    assert found["top1_selected"].protocol.text == f"{shared}rate and epoch chosen on held-out images, native 8 px"
    assert found["top1_last"].details.startswith("rate 0.3 after epoch 5 of 5, held-out ")
    assert found["top1_last"].details.endswith(
        " % of 20, trained on 180 of 200 images; read: the features that k-NN reads; "
        "the chosen rate 0.3 is at the end of the grid"
    )
    assert lines == ["linear probe: the chosen rate 0.3 is at the end of the grid: widen it"]


def test_a_diverged_rate_is_named() -> None:
    learned = clusters(200, 6, 3, 1.0)
    found = evaluate(learned, learned, learning_rates=(0.01, 0.1, 1e38), epochs=3)
    assert "; diverged: 1e+38" in found["top1_last"].details


def test_standardized_features_do_not_depend_on_scale_or_shift() -> None:
    (vectors, labels), (asked, truth) = clusters(200, 6, 3, 2.0), clusters(60, 6, 3, 2.0, seed=1)
    scale = torch.tensor([4.0, 0.25, 1.0, 2.0, 8.0, 0.5])
    one = evaluate((vectors, labels), (asked, truth), standardize=True, epochs=4)
    other = evaluate((vectors * scale - 3, labels), (asked * scale - 3, truth), standardize=True, epochs=4)
    assert one["top1_last"].value == other["top1_last"].value
    assert "standardized features" in one["top1_last"].protocol.text


# the held-out part


def test_a_tenth_of_each_class_is_held_out() -> None:
    labels = torch.tensor([0] * 100 + [1] * 30 + [2] * 4 + [3])
    kept, held_out = hold_out(labels, 0.1, seed=0)
    assert torch.bincount(labels[held_out], minlength=4).tolist() == [10, 3, 0, 0]
    assert sorted(kept.tolist() + held_out.tolist()) == list(range(135))
    assert not torch.equal(hold_out(labels, 0.1, seed=1)[1], held_out)
    assert torch.equal(hold_out(labels, 0.1, seed=0)[1], held_out)


def test_classes_of_one_image_cannot_be_split() -> None:
    with pytest.raises(UserError, match="it needs a class of at least 2 images"):
        hold_out(torch.arange(5), 0.1, seed=0)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rates": (0.1, 0.1)}, "different numbers"),
        ({"learning_rates": (0.0,)}, "above 0"),
        ({"learning_rates": ()}, "learning_rates"),
        ({"held_out": 1.0}, "held_out"),
        ({"momentum": 1.0}, "momentum"),
    ],
)
def test_settings_that_make_no_sense_are_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_settings(LinearProbeConfig, given, "evaluators.linear-probe", "linear-probe")


# small training sets


def test_cross_validation_is_a_plain_loop_for_each_fold() -> None:
    vectors, labels = clusters(60, 5, 3, 2.5)
    vectors, rates, epochs = vectors.double(), (1e-3, 0.3, 3.0), 8
    fold = draw_folds(labels, 4, seed=2)
    found = cross_validate(vectors, labels, fold, 3, ProbeSettings(rates, epochs, 256, momentum=0.9, seed=0))
    scores = {}
    for rate in rates:
        scale = 60 / 256  # the batch is that of all images
        whole = full_batch_loop(vectors, labels, rate * scale, epochs)
        parts = [full_batch_loop(vectors[fold != k], labels[fold != k], rate * scale, epochs) for k in range(4)]
        for epoch in range(epochs):
            hits, loss = 0, 0.0
            for k in range(4):
                weight, bias = parts[k][epoch]
                logits = vectors[fold == k] @ weight + bias
                hits += int((logits.argmax(dim=1) == labels[fold == k]).sum())
                loss += float(nn.functional.cross_entropy(logits, labels[fold == k], reduction="sum"))
            scores[rate, epoch + 1] = (hits / 60, -loss / 60, whole[epoch][0])
    assert found.last is not None
    assert found.selected is not None
    last = max(((rate, epochs) for rate in rates), key=lambda key: scores[key][:2])
    best = max(scores, key=lambda key: scores[key][:2])
    assert (found.last.rate, found.last.epoch) == last
    assert (found.selected.rate, found.selected.epoch) == best
    for probe, key in ((found.last, last), (found.selected, best)):
        assert probe.held_out_accuracy == pytest.approx(scores[key][0])
        assert torch.allclose(probe.weight, scores[key][2], atol=1e-9)


def full_batch_loop(vectors: Tensor, labels: Tensor, rate: float, epochs: int) -> list[tuple[Tensor, Tensor]]:
    """Weight (dim, classes) and bias after each epoch of one step, with torch's own layer and optimizer."""
    layer = nn.Linear(vectors.shape[1], 3).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        layer.weight.copy_(torch.empty(vectors.shape[1], 3).double().normal_(0, 0.01, generator=generator).T)
        layer.bias.zero_()
    optimizer = torch.optim.SGD(layer.parameters(), rate, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    states = []
    for _ in range(epochs):
        optimizer.zero_grad()
        nn.functional.cross_entropy(layer(vectors), labels).backward()
        optimizer.step()
        scheduler.step()
        states.append((layer.weight.detach().T.clone(), layer.bias.detach().clone()))
    return states


def test_folds_share_out_each_class() -> None:
    labels = torch.tensor([0] * 23 + [1] * 2 + [2] + [3] * 10)
    fold = draw_folds(labels, 5, seed=0)
    assert fold[labels == 2].tolist() == [-1], "the only image of a class is always trained on"
    for label in (0, 1, 3):
        counts = torch.bincount(fold[labels == label], minlength=5)
        assert int(counts.max() - counts.min()) <= 1
    sizes = torch.bincount(fold[fold >= 0], minlength=5)
    assert int(sizes.max() - sizes.min()) <= 1


def test_the_probe_on_244_images_is_as_good_as_logistic_regression() -> None:
    from sklearn.linear_model import LogisticRegression

    ours, theirs, hundred_steps = [], [], []
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        mixing = torch.randn(12, 12, generator=generator) * torch.logspace(0, -1, 12)  # ill-conditioned
        labels = torch.arange(244 + 1000) % 2
        points = torch.randn(len(labels), 12, generator=generator) + 0.45 * (labels[:, None] * 2.0 - 1)
        vectors = points @ mixing + 6 * torch.randn(12, generator=generator)  # and off center, as features are
        learned, asked = (vectors[:244], labels[:244]), (vectors[244:], labels[244:])
        model = LogisticRegression(max_iter=2000).fit(*(part.numpy() for part in learned))
        theirs.append(100 * model.score(*(part.numpy() for part in asked)))
        plain = {"learning_rates": (0.01, 0.03, 0.1, 0.3, 1.0), "epochs": 100}
        ours.append(evaluate(learned, asked, **plain, min_steps=1000, cross_validate_below=2000)["top1_last"].value)
        hundred_steps.append(evaluate(learned, asked, **plain)["top1_last"].value)
    mean, expected = sum(ours) / 3, sum(theirs) / 3
    assert abs(mean - expected) < 2, (mean, expected)
    assert sum(hundred_steps) / 3 < expected - 3, "100 steps should not do, or the case is too easy"


def test_the_protocol_of_a_small_training_set_is_the_truth() -> None:
    learned = clusters(40, 4, 2, 1.0)
    small = {"min_steps": 1000, "cross_validate_below": 2000}
    one = evaluate(learned, learned, learning_rates=(0.1, 0.3), **small)["top1_last"]
    assert ", 1000 epochs cosine (at least 1,000 steps), batch 256, " in one.protocol.text
    assert ", trained on 100 % of train, " in one.protocol.text
    assert ", rate chosen by 5-fold cross-validation, last epoch, " in one.protocol.text
    assert " % of 40, trained on 40 of 40 images" in one.details
    many = evaluate(clusters(2560, 4, 2, 1.0), learned, learning_rates=(0.1, 0.3), min_steps=1000)["top1_last"]
    assert ", 112 epochs cosine (at least 1,000 steps), " in many.protocol.text, "nine steps an epoch"
    assert ", trained on 90 % of train, " in many.protocol.text
    assert one.n == 40
    assert one.interval is not None


def test_two_images_a_class_lose_a_tenth_and_not_half() -> None:
    labels = torch.arange(2400) % 1200
    kept, held_out = hold_out(labels, 0.1, seed=0)
    assert (len(kept), len(held_out)) == (2160, 240)
    assert set(labels[kept].tolist()) == set(range(1200)), "every class is trained on"
    one = evaluate(clusters(60, 4, 30, 1.0), clusters(60, 4, 30, 1.0), learning_rates=(0.1, 0.3), epochs=1)["top1_last"]
    assert ", trained on 90 % of train, " in one.protocol.text
    assert ", trained on 54 of 60 images" in one.details


def test_fewer_images_than_the_held_out_part_has_room_for() -> None:
    kept, held_out = hold_out(torch.tensor([0, 1, 1]), 0.1, seed=0)
    assert (kept.tolist(), held_out.tolist()) == ([0, 2], [1])


@pytest.mark.parametrize("labels", [[0] * 20, [0, 1] + [2] * 38])
def test_one_class_and_classes_of_one_image_are_measured(labels: list[int]) -> None:
    vectors, truth = torch.randn(len(labels), 4, generator=torch.Generator().manual_seed(0)), torch.tensor(labels)
    for below in (0, 2000):
        found = evaluate((vectors, truth), (vectors, truth), learning_rates=(0.1, 0.3), cross_validate_below=below)
        assert found["top1_last"].value >= 90


def test_constant_features_give_the_largest_class() -> None:
    labels = torch.tensor([0] * 30 + [1] * 10)
    found = evaluate((torch.ones(40, 3), labels), (torch.ones(40, 3), labels), cross_validate_below=2000)
    assert found["top1_last"].value == 75
