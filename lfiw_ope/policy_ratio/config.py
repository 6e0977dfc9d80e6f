"""Where the behaviour's likelihood comes from, and what is said of it where it was estimated."""

from dataclasses import dataclass, field
from typing import Literal

from lfiw_ope.checks import choice, device_there, whole, widths
from lfiw_ope.errors import ConfigError
from lfiw_ope.nn.fit_config import FitConfig


@dataclass(frozen=True, kw_only=True)
class BehaviourConfig:
    """Where log μ(a | s) of the logged actions comes from.

    Attributes:
        source: "logged" takes what the log carries, "cloned" estimates it by behaviour cloning,
            "auto" takes what is logged where there is such.
        folds: K, parts that episodes are dealt to; an episode's likelihood comes from the clone of
            the others.
        hidden: width of each hidden layer of a clone.
        activation: "silu", "tanh" or "relu".
        sigma: of continuous actions: "constant" is the same at every state, as PPO's is; "state"
            depends on the state, as SAC's does, and takes far more data: a σ too small at a rare
            state outweighs all other weights.
        squashed: continuous actions are drawn through a tanh, as SAC's are, and not clipped.
        device: where clones are trained, and likelihoods computed.
        fit: the training of the clones, stopped on held-out episodes of the others. Weight decay
            matters: a σ that is too small at a rare state makes a weight that outweighs all others.
    """

    source: Literal["auto", "logged", "cloned"] = "auto"
    folds: int = 5
    hidden: tuple[int, ...] = (64, 64)
    activation: str = "tanh"
    sigma: Literal["constant", "state"] = "constant"
    squashed: bool = False
    device: str = "cpu"
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=5000, learning_rate=3e-4, weight_decay=1.0, evaluate_every=100, patience=5
        )
    )

    def __post_init__(self) -> None:
        choice("source", self.source, ("auto", "logged", "cloned"))
        whole("folds", self.folds, least=2)
        widths("hidden", self.hidden)
        choice("activation", self.activation, ("silu", "tanh", "relu"))
        choice("sigma", self.sigma, ("constant", "state"))
        if not isinstance(self.squashed, bool):
            raise ConfigError(f"squashed is {self.squashed!r}; it must be True or False.")
        device_there(self.device)


@dataclass(frozen=True, kw_only=True)
class CloneReport:
    """How well the behaviour was cloned, on episodes that a clone did not see.

    Likelihoods are of what was cloned: the behaviour's draws where the log has them, else the
    executed actions; densities are in the environment's units.

    Attributes:
        log_likelihood: mean over the transitions, in nats.
        state_independent_log_likelihood: the same of the best fit that does not look at states;
            a clone that is no better has learned nothing of them.
        folds: K.
        updates: that were run, of all clones at once.
    """

    log_likelihood: float
    state_independent_log_likelihood: float
    folds: int
    updates: int
