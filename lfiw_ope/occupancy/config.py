"""Settings of the regularised Lagrangian."""

from dataclasses import dataclass, field
from typing import Literal

from lfiw_ope.checks import choice, real
from lfiw_ope.nn.fit_config import FitConfig
from lfiw_ope.per_policy import PerPolicyConfig


@dataclass(frozen=True, kw_only=True)
class DICEConfig(PerPolicyConfig):
    """Settings of DICE: a member of the family of Yang et al. (2020), and its training.

    Their best setting, `DICEConfig.published()`, was found with 1e5 updates at a learning rate of
    1e-4 and rewards in the Lagrangian. The defaults here are for fewer updates at a higher rate,
    and come closer in as much time. With 500 episodes and a single seed, errors of the value (in
    standard deviations of the return) and of ω (of those that ω = 1 has) are

        example (`lfiw_envs`)   default, 10,000   published, 5000      published, 10,000
        chain, T = 12           0.05, 27 %        -                    0.05, 26 %
        chain, γ = 0.9          0.02, 5 %         0.10, 9 %            -
        taxi, T = 15            0.02, 21 %        0.33, 65 %           -
        taxi, γ = 0.95          0.02, 4 %         0.30, 9 %             -

    where 5000 updates of the larger batches take about as long as the default and 10,000 more than
    twice as long (`experiments/dice_settings.py`). The weights that the networks end with are their
    mean over the second half of the training, with either setting, which takes out most of the
    circling of a saddle point.

    Attributes:
        hidden: widths of the hidden layers, of ν's network and of ζ's.
        activation: between layers, a name in `lfiw_ope.nn.ensemble.ACTIVATIONS`.
        dual_regulariser: α_ζ, on ½ ζ². It makes the saddle point stable and leaves ζ where it is.
        primal_regulariser: α_ν, on ½ ν². It biases ζ.
        reward: α_R, 1 puts rewards into the Lagrangian and 0 does not. ζ at the saddle point is the
            same; without rewards ν has less to learn, and ζ comes there sooner.
        critic_rate: how fast ν moves beside ζ, as a factor on its network's output (AdamW does not
            see the scale of a gradient). Where ζ is the faster one, it follows its own best answer
            to ν, and the two circle each other less.
        normalise: whether a multiplier λ holds the mass of ζ at 1 while it is learned.
        positivity: from ζ's network to ζ: "square", "softplus", or "none", which allows negative
            ratios.
        time: "input" gives the networks the time step, for ω_t over T steps; "none" solves the
            discounted equation of an infinite horizon; "auto" does so where γ^T is at most 0.01.
        fit: how the networks are trained. Nothing is held out, so training never stops early; a
            look (`evaluate_every`) records the values, which tells whether they have settled.
        device: where the networks are.
    """

    dual_regulariser: float = 1.0
    primal_regulariser: float = 0.0
    reward: float = 0.0
    critic_rate: float = 0.2
    normalise: bool = True
    positivity: Literal["square", "softplus", "none"] = "square"
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=10_000,
            batch_size=512,
            learning_rate=2e-3,
            clip_gradient=1.0,
            evaluate_every=500,
            patience=None,
        )
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        real("dual_regulariser", self.dual_regulariser, least=0.0)
        real("primal_regulariser", self.primal_regulariser, least=0.0)
        real("reward", self.reward, least=0.0, most=1.0)
        real("critic_rate", self.critic_rate, least=1e-6)
        choice("positivity", self.positivity, ("square", "softplus", "none"))

    @classmethod
    def published(cls, *, updates: int = 100_000, device: str = "cpu") -> "DICEConfig":
        """The best setting of Yang et al. (2020): rewards in the Lagrangian, plain slow rates.

        Weights are averaged over the second half of the training here, too; theirs are the last.

        Args:
            updates: 1e5 in the paper.
            device: where the networks are.
        """
        fit = FitConfig(
            updates=updates,
            batch_size=2048,
            learning_rate=1e-4,
            schedule="constant",
            clip_gradient=1.0,
            evaluate_every=max(1, updates // 20),
            patience=None,
        )
        return cls(reward=1.0, critic_rate=1.0, fit=fit, device=device)
