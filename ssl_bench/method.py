"""The contract of a method: what a self-supervised method provides, so that one shared loop can train it.

A method computes in `step` and moves its state in `update`. Because `step` moves nothing, the loop may call it for
several micro-batches, on fake tensors to predict memory, or on several processes, and call `update` once for all.

Micro-batches give the gradients of the whole batch where the loss is a mean over images (`Method.mean_over_images`), or
where a method writes `embed` and `loss` in place of `step` (`WholeBatchLoss`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any, ClassVar, NamedTuple, Protocol, Self, cast

import torch
from PIL import Image
from torch import Tensor, nn

from ssl_bench.backbone import Backbone, Kind
from ssl_bench.settings import Settings

Views = tuple[Tensor, ...]
MakeViews = Callable[[Image.Image, Random], Views]
"""(RGB image, the sample's own random numbers) -> the sample's views, each usually (3, height, width) float32."""
Embeddings = Mapping[str, Tensor]
"""What a loss needs of each image, by name: (batch, ...) each, so that those of micro-batches can be concatenated."""


@dataclass(frozen=True)
class Batch:
    """What a step sees: every view stacked over the samples, and which samples they are."""

    views: Views
    """One tensor a view, (batch, 3, height, width); a masked-image method adds its masks as further tensors."""
    index: Tensor
    """(batch,) int64: position of each sample in the training set, e.g. for a memory of assignments."""
    labels: Tensor | None = None
    """(batch,) int64, and only for a method with `needs_labels`; no other method can see a label."""
    step_images: int | None = None
    """Images of the whole optimizer step where this is a micro-batch of it; None: this is the whole."""
    finish: Callable[[Views, torch.device], Views] | None = None
    """Makes the views that a method sees of `views`, on a device; None: `views` are what it sees."""

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, its views finished; from pinned memory without waiting."""
        labels = None if self.labels is None else self.labels.to(device, non_blocking=True)
        if self.finish is None:
            views = tuple(view.to(device, non_blocking=True) for view in self.views)
        else:
            views = self.finish(self.views, device)
        return Batch(views, self.index.to(device, non_blocking=True), labels, self.step_images)

    def split(self, images: int | None) -> list[Batch]:
        """Micro-batches of at most `images` images, as equal in size as possible; None: the batch as it is."""
        whole = len(self.index)
        parts = 1 if images is None else -(-whole // images)
        if parts == 1:
            return [self]
        views = zip(*(view.tensor_split(parts) for view in self.views), strict=True)
        labels = [None] * parts if self.labels is None else self.labels.tensor_split(parts)
        split = zip(views, self.index.tensor_split(parts), labels, strict=True)
        return [Batch(its_views, index, its_labels, whole, self.finish) for its_views, index, its_labels in split]

    def first(self, images: int) -> Batch:
        """Its first `images` images."""
        labels = None if self.labels is None else self.labels[:images]
        views = tuple(view[:images] for view in self.views)
        return replace(self, views=views, index=self.index[:images], labels=labels)


class Progress(NamedTuple):
    """Where the run stands; replaces a reference back to a trainer."""

    step: int
    """Optimizer steps done before this one, 0 at the start."""
    total_steps: int
    epoch: int
    """Epoch of this step, 0 at the start."""
    total_epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of one epoch."""
        return self.total_steps // self.total_epochs


@dataclass(frozen=True)
class StepOutput:
    """What `step` returns: `loss` () with its graph, `logs` scalars without one, `carry` for `update`.

    Every tensor of `carry` has a leading dimension over samples or over partial sums: carries of micro-batches and
    of processes are concatenated along it before the one `update`. Carry a sum and a count rather than a mean:
    micro-batches may differ in size. `logs` of micro-batches are averaged over images; what is no such mean comes from
    `Method.batch_logs`.
    """

    loss: Tensor
    logs: Mapping[str, Tensor] = field(default_factory=dict)
    carry: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share their treatment. `lr_factor` multiplies the scheduled rate (1: the schedule itself)."""

    name: str
    parameters: Sequence[nn.Parameter]
    weight_decay: bool = True
    """Whether the scheduled weight decay applies; LARS also leaves a group without it unadapted."""
    lr_factor: float = 1.0


@dataclass(frozen=True)
class Preset:
    """A named set of values, keyed `section.setting`, laid over the defaults and under the user's own values."""

    summary: str
    values: Mapping[str, Any]
    convnet_values: Mapping[str, Any] = field(default_factory=dict)
    """Laid over `values` when the backbone's kind is "convnet"."""
    steps: int | None = None
    """About how many optimizer steps a run has when the user names no number of epochs: a set of 500 images and one of
    15,000 then train equally long. None: the epochs in `values`."""

    def values_for(self, kind: Kind) -> dict[str, Any]:
        """The values for a network of this kind."""
        return {**self.values, **(self.convnet_values if kind == "convnet" else {})}

    def epochs_for(self, batch_size: int, train_images: int) -> int | None:
        """Epochs that make about `steps` steps; None where the preset names no steps, or epochs of its own."""
        if self.steps is None or "training.epochs" in self.values:
            return None
        return max(1, round(self.steps * batch_size / train_images))


@dataclass(frozen=True)
class Situation:
    """The facts from which a method fills the settings left open (None): decided before the recipe is frozen."""

    image_px: int
    """Side of the square image the network is meant for."""
    train_images: int
    patch_px: int | None
    """Side of a patch, or None for a network without a fixed grid of patches."""
    batch_size: int
    classes: int = 0
    """Number of classes, for a method with `needs_labels`."""
    kind: Kind | None = None
    """The backbone's kind; None: decided by `patch_px`."""

    @property
    def is_convnet(self) -> bool:
        """Whether the backbone is a convolutional network."""
        return self.patch_px is None if self.kind is None else self.kind == "convnet"


Near = tuple[float, float]
"""(value, tolerance): a log shows a sign while it is within the tolerance of the value."""


@dataclass(frozen=True)
class Sign:
    """How a collapse shows in what is logged, and the message with which the run then ends."""

    near: Mapping[str, Near]
    """By logged name; the sign is present at a step where all of them are."""
    cause: str
    """What has happened, e.g. "one score wins for every image, as without centering"."""
    change: str
    """The settings to change, as they are typed."""


class MakeBackbone(Protocol):
    """Builds a fresh backbone of the run's architecture; every call draws new initial weights."""

    def __call__(self, *, drop_path: float = 0.0) -> Backbone:
        """A new backbone; `drop_path` is the last block's probability of being skipped (stochastic depth)."""
        ...


class WholeBatchLoss(Protocol):
    """What a method writes in place of `step` if its loss compares the images of a batch with each other.

    Micro-batches are then embedded one by one, the loss is computed once over all embeddings, and its gradient reaches
    the network through a second pass over the micro-batches (GradCache, Gao et al. 2021, arXiv 2101.06983): exactly the
    gradients of the whole batch, for the memory of a micro-batch and one more forward pass.
    """

    def embed(self, batch: Batch) -> Embeddings:
        """What the loss needs of each image; looks at one image at a time, batch norm aside."""
        ...

    def loss(self, embeddings: Embeddings, progress: Progress) -> StepOutput:
        """Loss, logs and carry of the whole batch. May use parameters, e.g. prototypes, which get their gradient here.

        Runs once a step. Where its tensors are large, compute it in parts (`ssl_bench.blocks.recompute.mean_of_parts`).
        """
        ...


class Method(nn.Module):
    """Base class of a method plugin. The class docstring's first line names it, the module's cites the paper.

    The constructor keeps networks as submodules and state that must survive a stop (teacher, center, queue) as
    parameters without gradient or registered buffers: `state_dict` is all that is saved.
    """

    Config: ClassVar[type[Settings]]
    presets: ClassVar[Mapping[str, Preset]] = {}
    """At least "paper"; "small-data" is chosen automatically for small training sets, and the run says so."""
    needs_labels: ClassVar[bool] = False
    mean_over_images: bool = False
    """Whether the loss of `step` is a mean over the images of its batch, given the method's state before the step and
    batch norm aside: micro-batches then add up to the whole batch's gradients. Set it in `__init__` where it depends on
    the settings. `sslbench check` verifies the claim."""
    requires: ClassVar[frozenset[str]] = frozenset()
    """What the backbone must support, e.g. {"patch_tokens"}: checked before anything is built."""
    frozen: ClassVar[frozenset[str]] = frozenset()
    """Names of submodules that never move, e.g. {"tokenizer"}: freeze them with requires_grad_(False) in `__init__`.
    They stay in eval mode, and the optimizer does not see them."""
    backbone_defaults: ClassVar[Mapping[str, Any]] = {}
    """Values for settings of the backbone that the user leaves open, e.g. {"positions": "dino"}; ignored by backbones
    without a setting of that name."""

    def __init__(self, config: Any, make_backbone: MakeBackbone) -> None:
        super().__init__()
        self._given_config = config

    @classmethod
    def fill(cls, config: Any, situation: Situation) -> Any:
        """The config with every setting left open (None) decided. Raises `UserError` for what cannot work."""
        return config

    @classmethod
    @abstractmethod
    def make_views(cls, config: Any) -> MakeViews:
        """The augmentation of one image, drawing only from the `Random` it is handed."""

    @classmethod
    def batch_views(cls, config: Any, views: Views, rng: Random) -> Views:
        """Optional: what is drawn over a batch, e.g. which of its images are masked; applied where it is collated.

        `views` are stacked, (batch, ...) each; what is returned becomes `batch.views`. `rng` is the step's own. Runs in
        worker processes, so there is no `self`.
        """
        return views

    def prepare(self, batches: Iterable[Batch]) -> None:
        """Optional: one pass over the whole training set before step 0 of a fresh run, e.g. to fill a memory.

        Every image comes once, in order of its index; the last batch may be smaller. Without gradient, in training
        mode. Moves buffers, and no parameter that is trained. Must take any number of batches: the first step is tried
        after a single one, and buffers are then put back. A run that resumes from a checkpoint does not call it.
        """

    def step(self, batch: Batch, progress: Progress) -> StepOutput:
        """Loss of one (micro-)batch. Moves no state of the method.

        A method writes this, or `embed` and `loss` (`WholeBatchLoss`), of which this is then made.
        """
        parts = cast(WholeBatchLoss, self)
        return parts.loss(parts.embed(batch), progress)

    def batch_logs(self, carry: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Optional: logs () of the whole batch that are no means over images, e.g. a spread, from its whole carry.

        Called once per optimizer step, before `update`, without gradient.
        """
        return {}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Trainable parameters by treatment; by default no decay on biases and other 1-d parameters."""
        trained = [p for p in self.parameters() if p.requires_grad]
        return [
            ParameterGroup("decayed", [p for p in trained if p.ndim > 1]),
            ParameterGroup("undecayed", [p for p in trained if p.ndim <= 1], weight_decay=False),
        ]

    def before_optimizer(self, progress: Progress) -> None:
        """Optional: gradients are complete and unscaled; clip or drop them here."""

    def update(self, carry: Mapping[str, Tensor], progress: Progress) -> None:
        """Optional: move teacher, queue, center or prototypes; once per optimizer step, after it, without gradient."""

    def signs(self, batch_size: int) -> Sequence[Sign]:
        """Optional: how a collapse shows in this method's logs, e.g. a loss at ln K. `batch_size` is the run's."""
        return ()

    @abstractmethod
    def networks(self) -> Mapping[str, Backbone]:
        """The method's networks by name, e.g. {"teacher": ..., "student": ...}; the first is evaluated and kept.

        Parts of the method itself, not copies.
        """

    def draw_over_batch(self) -> Callable[[Views, Random], Views]:
        """`batch_views` with this method's config, as the loader calls it."""
        return partial(type(self).batch_views, self._given_config)

    def train(self, mode: bool = True) -> Self:
        """Training mode; the frozen parts stay in eval mode, so that nothing in them moves."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def forward(self, batch: Batch, progress: Progress) -> StepOutput:
        """`step`, so that what wraps a module (`DistributedDataParallel`) can wrap a method."""
        return self.step(batch, progress)


def has_whole_batch_loss(method: type[Method]) -> bool:
    """Whether a method writes `embed` and `loss` in place of `step`."""
    return method.step is Method.step


def evaluated_network(method: Method) -> Backbone:
    """The first of the method's networks: the one that is evaluated and kept."""
    return next(iter(method.networks().values()))
