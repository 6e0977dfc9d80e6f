"""The only training loop: settings, objective, optimiser, early stopping, report.

Members of an ensemble are dealt to rows evenly: a random permutation, cut into M equal hands.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, Protocol, Self, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.optim.adamw import adamw

from lfiw_ope.core.errors import DivergedError
from lfiw_ope.core.protocols import Progress, silent
from lfiw_ope.core.validation import choice, real, whole

MIN_UPDATES = 2_000
"""Fewest updates of a training whose length follows from the data, unless `updates` is less."""


@dataclass(frozen=True, kw_only=True)
class FitConfig:
    """How a network is trained.

    Attributes:
        updates: gradient steps at most.
        epochs: passes over the training rows, but `MIN_UPDATES` gradient steps at least; None makes
            `updates` steps, whatever the data's size.
        batch_size: B, rows for each member in an update.
        learning_rate: AdamW's, at the start.
        schedule: "cosine" goes down to zero at the last update; "constant" stays.
        weight_decay: AdamW's, decoupled.
        precision: of the hidden products in training and in use: "float32", or "bfloat16"
            autocast (parameters, last layer, loss and optimiser stay float32). "auto" is bfloat16
            where the processor has matrix units for it (AMX, CUDA), else float32: results then
            depend on the processor.
        clip_gradient: the largest entry that a gradient may have, either way; None for any.
        evaluate_every: updates between two looks at the held-out loss.
        patience: looks without any member improving before training stops; None never stops.
    """

    updates: int = 4000
    epochs: float | None = None
    batch_size: int = 256
    learning_rate: float = 1e-3
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    precision: Literal["auto", "float32", "bfloat16"] = "float32"
    clip_gradient: float | None = None
    evaluate_every: int = 200
    patience: int | None = 10

    def __post_init__(self) -> None:
        for name in ("updates", "batch_size", "evaluate_every"):
            whole(name, getattr(self, name), least=1)
        if self.epochs is not None:
            real("epochs", self.epochs, least=1e-3)
        if self.patience is not None:
            whole("patience", self.patience, least=1)
        real("learning_rate", self.learning_rate, least=1e-12, most=1e3)
        if self.clip_gradient is not None:
            real("clip_gradient", self.clip_gradient, least=1e-12)
        real("weight_decay", self.weight_decay, least=0.0, most=1e3)
        choice("schedule", self.schedule, ("cosine", "constant"))
        choice("precision", self.precision, ("auto", "float32", "bfloat16"))

    def for_rows(self, rows: int) -> "FitConfig":
        """These settings with the number of updates that `epochs` means for so many rows."""
        if self.epochs is None:
            return self
        wanted = max(MIN_UPDATES, round(self.epochs * rows / self.batch_size))
        return replace(self, updates=min(self.updates, wanted), epochs=None)


@dataclass(frozen=True)
class FitReport:
    """How a training went.

    Attributes:
        held_out_loss: each member's best, whose weights it ends with; where nothing is held out,
            its training loss since the last look.
        best_update: the update where each member had it.
        updates: how many were run.
        history: (update, mean training loss since the last look, mean held-out loss).
        seconds: wall-clock, of this process.
        precision: of the hidden products, "float32" or "bfloat16".
    """

    held_out_loss: tuple[float, ...]
    best_update: tuple[int, ...]
    updates: int
    history: tuple[tuple[int, float, float], ...]
    seconds: float
    precision: str = "float32"


class Objective(Protocol):
    """What is minimised, for E members at once."""

    @property
    def rows(self) -> int:
        """Training rows to draw batches from."""
        ...

    def loss(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """The members' losses `[E]` on their batches, row indices `[E, B]`.

        Of an objective with `SharedBatches`, fewer batches than networks: `[batches, B]`.
        """
        ...

    def held_out_loss(self) -> Tensor | None:
        """The members' losses `[E]` on data that training never sees.

        None where such a loss would not tell a better network, as where its targets are made by
        the networks themselves: training then never stops early and keeps its last weights.
        """
        ...


@runtime_checkable
class Following(Protocol):
    """An objective that moves something of its own after every update, such as target networks."""

    def updated(self) -> None: ...


@runtime_checkable
class SharedBatches(Protocol):
    """An objective whose networks share batches, as those of P policies that learn alike do."""

    @property
    def batches(self) -> int:
        """How many are drawn for an update."""
        ...


class AdamW:
    """AdamW (Loshchilov and Hutter, ICLR 2019), bit for bit `torch.optim.AdamW`'s.

    The update is PyTorch's own fused one, called as a function. Constructing the class imports
    `torch._dynamo`, and sympy with it: two seconds of every process that trains anything, as long
    as PyTorch itself takes, for a compiler that is not used here.

    Args:
        parameters: floats, that are trained.
        learning_rate: at the start; an attribute, to be changed between two steps.
        weight_decay: decoupled.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], *, learning_rate: float, weight_decay: float
    ) -> None:
        self.parameters = list(parameters)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self._mean = [torch.zeros_like(p) for p in self.parameters]
        self._square = [torch.zeros_like(p) for p in self.parameters]
        self._steps = [
            torch.zeros((), dtype=torch.float32, device=p.device) for p in self.parameters
        ]

    def zero_grad(self) -> None:
        """Forget the gradients of the last step."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters that have a gradient by it."""
        gradients = {i: g for i, p in enumerate(self.parameters) if (g := p.grad) is not None}
        moved = gradients.keys()
        adamw(
            [self.parameters[i] for i in moved],
            list(gradients.values()),
            [self._mean[i] for i in moved],
            [self._square[i] for i in moved],
            [],
            [self._steps[i] for i in moved],
            fused=True,
            amsgrad=False,
            beta1=0.9,
            beta2=0.999,
            lr=self.learning_rate,
            weight_decay=self.weight_decay,
            eps=1e-8,
            maximize=False,
        )


class Deal(NamedTuple):
    """Which of n rows each of M members gets; the P policies of a batch share one deal.

    Attributes:
        rows: `[M, P, h]`, the flat row (of P · n) at each of a member's h = ceil(n / M) places;
            places that are left over hold some row, unused.
        places: `[P · n]`, the flat place (of M · P · h) of each row.
    """

    rows: Tensor
    places: Tensor

    @classmethod
    def draw(
        cls, n: int, members: int, device: torch.device, generator: torch.Generator, policies: int
    ) -> "Deal":
        hand = math.ceil(n / members)
        slot = torch.randperm(members * hand, generator=generator, device=device)
        of_policy = torch.arange(policies, device=device)[:, None]
        rows = of_policy * n + slot.clamp_max(n - 1).view(members, 1, hand)
        taken = torch.empty_like(slot)
        taken[slot] = torch.arange(len(slot), device=device)
        member, place = taken[:n] // hand, taken[:n] % hand
        places = (member * policies + of_policy) * hand + place
        return cls(rows, places.flatten())

    def member(self, n: int) -> Tensor:
        """`[n]` int64, the member of each row; policies share it."""
        policies, hand = self.rows.shape[1:]
        return self.places[:n] // (policies * hand)

    def out(self, rows: Tensor) -> Tensor:
        """`[P, n, D] -> [M, P · h, D]`"""
        dealt = rows.flatten(0, 1).index_select(0, self.rows.flatten())
        return dealt.view(self.rows.shape[0], -1, rows.shape[-1])

    def back(self, dealt: Tensor) -> Tensor:
        """The inverse: `[M, P · h, D] -> [P, n, D]`."""
        policies = self.rows.shape[1]
        rows = dealt.flatten(0, 1).index_select(0, self.places)
        return rows.view(policies, -1, dealt.shape[-1])


FEWEST_LOOKS = 8


@dataclass(frozen=True)
class Settling:
    """How one value went through a training.

    Attributes:
        values: `[looks]`
        drift: how far the value moved from the third quarter of the training to the last.
        wobble: standard deviation of the values in these quarters about their two means.
        updates: how many were run.
        every: updates between two looks.
    """

    values: NDArray[np.float64]
    drift: float
    wobble: float
    updates: int
    every: int

    @classmethod
    def of(cls, looks: Tensor, *, updates: int, every: int) -> list[Self]:
        """Of P values, from what was seen of them `[looks, P]`."""
        values = looks.numpy()
        quarter = max(1, len(values) // 4)
        last, before = values[-quarter:], values[-2 * quarter : -quarter]
        before = before if len(before) else last
        drift = last.mean(0) - before.mean(0)
        about = np.concatenate((last - last.mean(0), before - before.mean(0)))
        wobble = np.sqrt((about**2).sum(0) / max(1, len(about) - 2))
        return [
            cls(values[:, place], float(drift[place]), float(wobble[place]), updates, every)
            for place in range(values.shape[1])
        ]

    @property
    def diagnostics(self) -> dict[str, float]:
        """The numbers, by name."""
        return {"drift": self.drift, "wobble": self.wobble, "updates": float(self.updates)}

    def warnings(self, much: float) -> list[str]:
        """What to say of a value that moved by more than `much`, and by more than its noise."""
        if len(self.values) < FEWEST_LOOKS:
            return [
                f"{len(self.values)} looks in {self.updates} updates do not tell whether the "
                f"value has settled; lower evaluate_every (now {self.every})."
            ]
        if abs(self.drift) <= max(self._noise, much):
            return []
        return [
            f"The value has not settled: it moved by {self.drift:+.3g} over the last quarter "
            f"of {self.updates} updates, beyond its wobble of {self.wobble:.2g}; raise updates."
        ]

    @property
    def _noise(self) -> float:
        """What the wobble alone may move the mean of a quarter against another by."""
        quarter = max(1, len(self.values) // 4)
        return float(3.0 * self.wobble * np.sqrt(2.0 / quarter))


def resolve_precision(device: torch.device, precision: str) -> str:
    """`FitConfig.precision` on this device: "float32" or "bfloat16"."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        units = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        units = device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    return "bfloat16" if units else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The one meaning of `FitConfig.precision`, in training and in use."""
    low = resolve_precision(device, precision) == "bfloat16"
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=low)


def fit(
    network: nn.Module,
    objective: Objective,
    config: FitConfig,
    generator: torch.Generator,
    *,
    stage: str,
    progress: Progress = silent,
) -> FitReport:
    """Train `network` in place; each member ends with its weights of lowest held-out loss.

    Where the objective holds nothing out, each ends with its last weights.

    Batches are drawn uniformly with replacement, for each member its own unless the objective
    shares them. Nothing is copied to the host between two looks at the held-out loss.

    Args:
        network: every parameter leads with the E axis.
        objective: losses of the E members.
        config: schedule, precision, stopping.
        generator: the only source of randomness, on the network's device.
        stage: what is being trained, for progress and errors.
        progress: told how far training is.

    Raises:
        DivergedError: if a member's loss stops being finite; it names stage, member and update.
    """
    started = time.perf_counter()
    config = config.for_rows(objective.rows)
    run = _Run(network, objective, config, generator, stage)
    while run.update < config.updates and not run.stale:
        run.step()
        if run.update % config.evaluate_every == 0 or run.update == config.updates:
            run.evaluate()
            progress(stage, run.update, config.updates, f"{run.judge} {run.history[-1][2]:.4g}")
        elif run.update % 25 == 0:
            progress(stage, run.update, config.updates)
    progress(stage, config.updates, config.updates, f"{run.judge} {run.best_loss.mean():.4g}")
    return run.finish(time.perf_counter() - started)


class _Run:
    """The state of one training."""

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        config: FitConfig,
        generator: torch.Generator,
        stage: str,
    ) -> None:
        self.network, self.objective, self.config = network, objective, config
        self.generator, self.stage = generator, stage
        self.parameters = [p for p in network.parameters() if p.requires_grad]
        first = self.parameters[0]
        self.device, self.members = first.device, first.shape[0]
        self.optimiser = AdamW(
            self.parameters,
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
        )
        self.batches = self.members
        if isinstance(objective, SharedBatches):
            self.batches = objective.batches
        self.update = 0
        self.judge = "held-out loss"
        self.looks_without_gain = 0
        self.train_loss = torch.zeros(self.members, device=self.device)
        self.best = [p.detach().clone() for p in self.parameters]
        self.best_loss = torch.full((self.members,), math.inf)
        self.best_update = torch.zeros(self.members, dtype=torch.int64)
        self.history: list[tuple[int, float, float]] = []

    @property
    def stale(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.looks_without_gain >= patience

    def step(self) -> None:
        config = self.config
        if config.schedule == "cosine":
            turn = math.cos(math.pi * self.update / config.updates)
            self.optimiser.learning_rate = config.learning_rate * 0.5 * (1.0 + turn)
        rows = torch.randint(
            self.objective.rows,
            (self.batches, config.batch_size),
            generator=self.generator,
            device=self.device,
        )
        with autocast(self.device, config.precision):
            loss = self.objective.loss(rows, self.generator)
        self.optimiser.zero_grad()
        # Members share no parameter: the gradient of the sum is each member's own gradient.
        loss.sum().backward()  # type: ignore[no-untyped-call]
        if config.clip_gradient is not None:
            torch.nn.utils.clip_grad_value_(self.parameters, config.clip_gradient)
        self.optimiser.step()
        if isinstance(self.objective, Following):
            self.objective.updated()
        self.train_loss += loss.detach()
        self.update += 1

    @torch.no_grad()
    def evaluate(self) -> None:
        since = self.update - (self.history[-1][0] if self.history else 0)
        trained = (self.train_loss / since).cpu()
        self.train_loss.zero_()
        with autocast(self.device, self.config.precision):
            told = self.objective.held_out_loss()
        held_out = trained if told is None else told.cpu()
        self.judge = "training loss" if told is None else "held-out loss"
        broken = ~(held_out.isfinite() & trained.isfinite())
        if broken.any():
            member = int(broken.nonzero()[0])
            raise DivergedError(
                f"Training of the {self.stage} diverged: member {member + 1} of {self.members} "
                f"had a training loss of {trained[member]:.4g} and a held-out loss of "
                f"{held_out[member]:.4g} by update {self.update}; lower learning_rate (now "
                f"{self.config.learning_rate:g}) or look for extreme values in the data."
            )
        better = held_out < self.best_loss if told is not None else torch.ones(len(held_out)).bool()
        self.best_loss = torch.where(better, held_out, self.best_loss)
        self.best_update[better] = self.update
        mask = better.to(self.device)
        for kept, parameter in zip(self.best, self.parameters, strict=True):
            kept[mask] = parameter.detach()[mask]
        self.looks_without_gain = 0 if better.any() else self.looks_without_gain + 1
        self.history.append((self.update, float(trained.mean()), float(held_out.mean())))

    @torch.no_grad()
    def finish(self, seconds: float) -> FitReport:
        for kept, parameter in zip(self.best, self.parameters, strict=True):
            parameter.copy_(kept)
        return FitReport(
            held_out_loss=tuple(self.best_loss.tolist()),
            best_update=tuple(self.best_update.tolist()),
            updates=self.update,
            history=tuple(self.history),
            seconds=seconds,
            precision=resolve_precision(self.device, self.config.precision),
        )
