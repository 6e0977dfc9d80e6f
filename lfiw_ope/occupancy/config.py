"""Settings of the regularised Lagrangian."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from lfiw_ope.checks import choice, device_there, real, widths
from lfiw_ope.nn.ensemble import ACTIVATIONS
from lfiw_ope.nn.fit_config import FitConfig


@dataclass(frozen=True, kw_only=True)
class DICEConfig:
    """Settings of DICE: a member of the family of Yang et al. (2020), and its training.

    Attributes:
        hidden: widths of the hidden layers, of ν's network and of ζ's.
        activation: between layers, a name in `lfiw_ope.nn.ensemble.ACTIVATIONS`.
        dual_regulariser: α_ζ, on ½ ζ². It makes the saddle point stable and leaves ζ where it is.
        primal_regulariser: α_ν, on ½ ν². It biases ζ.
        reward: α_R, 1 puts rewards into the Lagrangian and 0 does not. ζ is the same.
        normalise: whether a multiplier λ holds the mass of ζ at 1 while it is learned.
        positivity: from ζ's network to ζ: "square", "softplus", or "none", which allows negative
            ratios.
        time: "input" gives the networks the time step, for ω_t over T steps; "none" solves the
            discounted equation of an infinite horizon; "auto" does so where γ^T is at most 0.01.
        fit: how the networks are trained. Nothing is held out, so training never stops early; a
            look (`evaluate_every`) records the values, which tells whether they have settled.
        device: where the networks are.
    """

    hidden: Sequence[int] = (64, 64)
    activation: str = "relu"
    dual_regulariser: float = 1.0
    primal_regulariser: float = 0.0
    reward: float = 1.0
    normalise: bool = True
    positivity: Literal["square", "softplus", "none"] = "square"
    time: Literal["auto", "input", "none"] = "auto"
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=10_000,
            batch_size=512,
            learning_rate=1e-3,
            clip_gradient=1.0,
            evaluate_every=500,
            patience=None,
        )
    )
    device: str = "cpu"

    def __post_init__(self) -> None:
        widths("hidden", self.hidden)
        object.__setattr__(self, "hidden", tuple(self.hidden))
        choice("activation", self.activation, tuple(ACTIVATIONS))
        real("dual_regulariser", self.dual_regulariser, least=0.0)
        real("primal_regulariser", self.primal_regulariser, least=0.0)
        real("reward", self.reward, least=0.0, most=1.0)
        choice("positivity", self.positivity, ("square", "softplus", "none"))
        choice("time", self.time, ("auto", "input", "none"))
        device_there(self.device)
