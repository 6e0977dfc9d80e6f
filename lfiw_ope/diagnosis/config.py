"""How closely data, policies and model are looked at."""

from dataclasses import dataclass, field

from lfiw_ope.checks import device_there, whole, widths
from lfiw_ope.nn.fit_config import FitConfig
from lfiw_ope.policy_ratio.config import BehaviourConfig


@dataclass(frozen=True, kw_only=True)
class DiagnosisConfig:
    """Settings of `lfiw_ope.diagnose`: how much of the log is looked at, and how.

    Attributes:
        transitions: of the log that are looked at, at most, drawn from all episodes.
        neighbours: K, logged transitions at the nearest states that an action is held against.
        rollouts: n, simulated of each policy, where a model is given.
        steps: of a rollout that are looked at, at most, evenly spaced.
        open_loop_episodes: held-out episodes that are replayed in the model, at most.
        hidden: width of each hidden layer of the classifiers of actions.
        fit: their training.
        behaviour: where the behaviour's likelihoods come from, for the weights of logged episodes;
            None takes those that the log carries, and trains no clones where it has none.
        device: where the classifiers are trained. A model stays on its own.

    Raises:
        ConfigError: if a setting is out of its range, or the device is not there.
    """

    transitions: int = 20_000
    neighbours: int = 50
    rollouts: int = 100
    steps: int = 40
    open_loop_episodes: int = 100
    hidden: tuple[int, ...] = (64, 64)
    fit: FitConfig = field(
        default_factory=lambda: FitConfig(
            updates=500, learning_rate=3e-3, evaluate_every=50, patience=None
        )
    )
    behaviour: BehaviourConfig | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        whole("transitions", self.transitions, least=20)
        whole("neighbours", self.neighbours, least=5)
        whole("rollouts", self.rollouts, least=2)
        whole("steps", self.steps, least=1)
        whole("open_loop_episodes", self.open_loop_episodes, least=1)
        widths("hidden", self.hidden)
        device_there(self.device)
