"""Settings of fitted Q evaluation."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lfiw_ope.checks import choice, device_there, real, whole, widths
from lfiw_ope.nn.ensemble import ACTIVATIONS
from lfiw_ope.nn.fit_config import FitConfig


@dataclass(frozen=True, kw_only=True)
class FQEConfig:
    """Settings of fitted Q evaluation.

    Attributes:
        hidden: widths of each network's hidden layers.
        activation: between layers, a name in `lfiw_ope.nn.ensemble.ACTIVATIONS`.
        members: M networks for each policy, each of its own bootstrap sample of the episodes; a
            single one learns from all of them.
        action_samples: K, of a stochastic policy at every state whose value is bootstrapped from.
            The target is unbiased with one; more make it less noisy.
        tau: how far the target networks go towards the trained ones at every update.
        time: "input" gives the networks the time step, for a value over T steps; "none" solves the
            discounted equation of an infinite horizon; "auto" does so where γ^T is at most 0.01.
        fit: how the networks are trained. Nothing is held out, so training never stops early. At
            a look (`evaluate_every`) the values are recorded, which tells whether they have
            settled, and the constant that the mean TD error asks for is added to every Q
            (`lfiw_ope.fitted_q.objective.BellmanError`), so that how often one looks changes
            what is learned.
        device: where the networks are.
    """

    hidden: Sequence[int] = (256, 256)
    activation: str = "relu"
    members: int = 3
    action_samples: int = 4
    tau: float = 0.01
    time: Literal["auto", "input", "none"] = "auto"
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=20_000,
            learning_rate=3e-4,
            schedule="constant",
            evaluate_every=500,
            patience=None,
        )
    )
    device: str = "cpu"

    def __post_init__(self) -> None:
        widths("hidden", self.hidden)
        object.__setattr__(self, "hidden", tuple(self.hidden))
        choice("activation", self.activation, tuple(ACTIVATIONS))
        whole("members", self.members, least=1)
        whole("action_samples", self.action_samples, least=1)
        real("tau", self.tau, least=1e-6, most=1.0)
        choice("time", self.time, ("auto", "input", "none"))
        device_there(self.device)
