"""What is in a log: the questions to ask of it before anything is estimated from it."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.data.trajectories import Trajectories


@dataclass(frozen=True)
class Spread:
    """Of a quantity that each episode has one of.

    Attributes:
        mean, lowest, median, highest: over episodes; infinite or NaN ones are left out.
    """

    mean: float
    lowest: float
    median: float
    highest: float

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Spread | None":
        """None where no value is finite."""
        kept = np.asarray(values, float)
        kept = kept[np.isfinite(kept)]
        if kept.size == 0:
            return None
        return cls(*(float(f(kept)) for f in (np.mean, np.min, np.median, np.max)))


@dataclass(frozen=True, kw_only=True)
class Description:
    """What is in a log.

    Attributes:
        env_id, env_kwargs: of the environment, where known.
        episodes: N.
        transitions: R.
        lengths: of the episodes, in steps.
        returns: of the episodes, undiscounted, in units of reward.
        terminated, truncated: episodes that ended so; one may be both.
        states: S.
        constant_states: entries of the state that never vary.
        actions: in words.
        at_bounds: of the action entries, the share that lies on a bound; None where there is none.
        log_prob, proposed_actions: whether they are carried.
        not_finite: entries that are NaN or infinite, by array; nothing can be estimated with any.
        mebibytes: of the arrays.
    """

    env_id: str | None
    env_kwargs: dict[str, Any]
    episodes: int
    transitions: int
    lengths: Spread
    returns: Spread | None
    terminated: int
    truncated: int
    states: int
    constant_states: int
    actions: str
    at_bounds: float | None
    log_prob: bool
    proposed_actions: bool
    not_finite: dict[str, int]
    mebibytes: float

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers, lists and strings, for JSON."""
        plain = asdict(self)
        # Arguments of an environment may be anything; what JSON cannot say is said in words.
        plain["env_kwargs"] = {key: _plain(value) for key, value in self.env_kwargs.items()}
        return plain


def describe(data: Trajectories, *, not_finite: dict[str, int] | None = None) -> Description:
    """Look a log over.

    Args:
        data: the log.
        not_finite: entries that are not finite, by array, where there are any: see
            `lfiw_ope.core.NonFiniteError`.
    """
    lengths = Spread.of(data.lengths)
    assert lengths is not None  # a log has an episode
    states, spec = data.states, data.action_spec
    arrays = (states, data.actions, data.rewards, data.log_prob, data.proposed_actions)
    with np.errstate(invalid="ignore"):
        returns = Spread.of(data.returns())
    return Description(
        env_id=data.env_id,
        env_kwargs=dict(data.env_kwargs),
        episodes=data.num_episodes,
        transitions=data.num_transitions,
        lengths=lengths,
        returns=returns,
        terminated=int(data.terminated.sum()),
        truncated=int(data.truncated.sum()),
        states=data.state_size,
        constant_states=int((states.min(0) == states.max(0)).sum()),
        actions=_actions(data),
        at_bounds=_at_bounds(data) if spec.kind == "continuous" else None,
        log_prob=data.log_prob is not None,
        proposed_actions=data.proposed_actions is not None,
        not_finite=not_finite or {},
        mebibytes=sum(array.nbytes for array in arrays if array is not None) / 2**20,
    )


def _actions(data: Trajectories) -> str:
    spec = data.action_spec
    if spec.kind == "discrete":
        shares = ", ".join(f"{share:.0%}" for share in data.actions.mean(0)[:10])
        more = ", …" if spec.size > 10 else ""
        return f"{spec.size} discrete, taken {shares}{more}"
    alike = len(set(spec.low)) == len(set(spec.high)) == 1
    if alike and not np.isfinite((spec.low[0], spec.high[0])).any():
        return f"{spec.size} continuous, unbounded"
    bounds = f"[{spec.low[0]:g}, {spec.high[0]:g}]" if alike else "bounds that differ by entry"
    return f"{spec.size} continuous, in {bounds}"


def _at_bounds(data: Trajectories) -> float | None:
    actions = data.actions
    spec = data.action_spec
    if not np.isfinite((spec.low, spec.high)).any():
        return None
    low, high = (np.asarray(bounds, np.float32) for bounds in (spec.low, spec.high))
    return float(((actions <= low) | (actions >= high)).mean())


def _plain(value: Any) -> Any:
    if isinstance(value, str | int | float | bool | None):
        return value
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return repr(value)
