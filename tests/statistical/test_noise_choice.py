"""The choice of noise and weights is near the best candidate, and does not see the truth.

The bed is a cart on a line, shaken alike everywhere or by gusts in one place. Nothing is trained:
mean, bank of residuals and ratio are least squares and counts of a log, so that ten logs
take seconds. Of each log the errors of all candidates are known from 160 000 true episodes.
"""

import copy
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from lfiw_envs import LinearGaussianPolicy
from torch.nn.functional import one_hot

import lfiw_ope as ope
from lfiw_ope.data import DeviceLog
from lfiw_ope.dynamics import Draws, Noise, draws
from lfiw_ope.estimators import Candidate, select_noise
from lfiw_ope.ratios import Candidates, InducedDynamics, tilted

HORIZON, EPISODES, LOGGED, ROLLOUTS, TRUE_EPISODES = 30, 4000, 4800, 12_000, 160_000
CALIBRATED = 1000
SEEDS = range(10)
AIMS = (0.0, 0.4, 0.8, 1.2)
CANDIDATES = [
    Candidate("none"),
    Candidate("gaussian"),
    Candidate("bootstrap"),
    Candidate("bootstrap", 4),
]


def reward_of(state):
    return torch.tanh(state[..., 0]) - 5.0 * (state[..., 0] < -1.0)


def never(state):
    return torch.zeros(state.shape[:-1], dtype=torch.bool)


@dataclass(frozen=True)
class Cart:
    """x' = x + 0.2 v, v' = 0.9 v + 0.3 a + noise − gust; a fifth of the episodes begin near x = 4.

    Attributes:
        gusts: probability of a gust of 1 in a step that begins in 0 < x < 2.
        noise: standard deviation of the noise.
    """

    gusts: float
    noise: float

    def start(self, count, generator):
        place = 0.3 * torch.randn((count, 2), generator=generator)
        place[:, 0] += 4.0 * (torch.rand(count, generator=generator) < 0.2)
        return place

    def sample(self, state, action, generator):
        x, v = state.unbind(-1)
        blown = torch.rand(x.shape[-1], generator=generator) < self.gusts
        noise = self.noise * torch.randn(x.shape[-1], generator=generator)
        v_next = 0.9 * v + 0.3 * action[..., 0] + noise - 1.0 * (blown & (x > 0) & (x < 2))
        reached = torch.stack((x + 0.2 * v, v_next), -1)
        return Draws(reached, reward_of(reached), never(state), never(state))


def policy(aim):
    """Steers to x = aim."""
    return LinearGaussianPolicy(
        gain=np.array([[-1.0, -1.0]]), bias=np.array([aim]), scale=np.array([0.3])
    )


def played(cart, acting, episodes, seed):
    """States `[T + 1, n, 2]` and actions `[T, n, 1]`."""
    generator = torch.Generator().manual_seed(seed)
    states, actions = [Cart.start(None, episodes, generator)], []
    for _ in range(HORIZON):
        actions.append(acting.act(states[-1], generator))
        states.append(cart.sample(states[-1], actions[-1], generator).next_state)
    return torch.stack(states), torch.stack(actions)


def value(cart, acting, episodes, seed):
    return float(reward_of(played(cart, acting, episodes, seed)[0][1:]).sum(0).mean())


def region(state):
    """0 where x < 0, 1 up to x = 2, 2 beyond."""
    return torch.bucketize(state[..., 0].contiguous(), torch.tensor([0.0, 2.0]))


def basis(state, action):
    """What the mean of v' is regressed on."""
    x, v = state.unbind(-1)
    return torch.stack(
        (torch.ones_like(x), v, action[..., 0], (region(state) == 1).to(x.dtype)), -1
    )


@dataclass
class Fitted:
    """The regression of v', with noise from residuals that it did not see."""

    coefficients: torch.Tensor
    noise: Noise = field(default_factory=lambda: Noise("none", torch.zeros((1, 1, 1))))

    @classmethod
    def of(cls, states, actions):
        """Of one half of the episodes, the bank of the other."""
        cut = states.shape[1] // 2
        seen = basis(states[:-1, :cut], actions[:, :cut]).flatten(0, 1).double()
        target = states[1:, :cut, 1].flatten().double()
        fit = cls(torch.linalg.lstsq(seen, target[:, None]).solution[:, 0].float())
        unseen = states[1:, cut:, 1] - fit.mean(states[:-1, cut:], actions[:, cut:])
        return cls(fit.coefficients, Noise("bootstrap", unseen.reshape(1, -1, 1)))

    def mean(self, state, action):
        return basis(state, action) @ self.coefficients

    def with_noise(self, kind):
        return Fitted(self.coefficients, self.noise.with_kind(kind))

    def sample(self, state, action, generator):
        v = self.mean(state, action)
        drawn = self.noise.draw(torch.zeros(v.shape[-1], dtype=torch.int64), 1, generator)
        v = v if drawn is None else v + drawn[:, 0]
        reached = torch.stack((state[..., 0] + 0.2 * state[..., 1], v), -1)
        return Draws(reached, reward_of(reached), never(state), never(state))


class Counted:
    """log p(e | region) / q(e), of counts of residuals in three bins."""

    edges = torch.tensor([-0.4, 0.4])

    def __init__(self, model, states, actions):
        self.model, self.tilt = model, torch.zeros((1, 4))
        self.scale = float(model.noise.residuals.std())
        e, place = self.error(states[:-1], actions, states[1:]), region(states[:-1])
        e = torch.bucketize(e, self.edges)
        counts = torch.ones((3, len(self.edges) + 1))  # one more in each, so that none is empty
        counts.index_put_((place.flatten(), e.flatten()), torch.ones(e.numel()), accumulate=True)
        bank = torch.bucketize(model.noise.residuals.flatten(), self.edges)
        pooled = 1.0 + torch.bincount(bank, minlength=len(self.edges) + 1)
        self.table = (counts / counts.sum(1, keepdim=True)).log() - (pooled / pooled.sum()).log()

    def error(self, state, action, reached):
        return (reached[..., 1] - self.model.mean(state, action)).contiguous()

    def log_ratio(self, state, action, transition):
        e = self.error(state, action, transition.next_state)
        found = self.table[region(state), torch.bucketize(e, self.edges)]
        outcome = e[..., None] / self.scale
        return found + tilted(self.tilt, one_hot(region(state), 3).float(), outcome)

    def calibrated(self, states, actions, candidates):
        """With the moments that SIR of so many candidates should have."""
        state, action = states[:-1].flatten(0, 1), actions.flatten(0, 1)
        generator = torch.Generator().manual_seed(0)
        drawn = draws(self.model, state, action, candidates, generator)
        other = copy.copy(self)
        other.tilt = Candidates(
            one_hot(region(state), 3).float(),
            self.error(state, action, states[1:].flatten(0, 1))[:, None] / self.scale,
            self.error(state, action, drawn.next_state)[..., None] / self.scale,
            self.log_ratio(state, action, drawn),
        ).tilt(len(state) // 2)
        return other


class Behaviour:
    """The policies that made the log, which differ by a constant, with the logged noise."""

    def act_like(self, state, logged_state, logged_action, known, generator):  # noqa: ARG002
        gain = torch.tensor(policy(0.0).gain, dtype=state.dtype)
        return logged_action + (state - logged_state) @ gain.T


def log_of(states, actions):
    steps, episodes = actions.shape[:2]
    data = ope.Trajectories(
        states=states.movedim(0, 1).reshape(-1, 2).numpy(),
        actions=actions.movedim(0, 1).reshape(-1, 1).numpy(),
        rewards=reward_of(states[1:]).T.reshape(-1).numpy(),
        lengths=np.full(episodes, steps),
        terminated=np.zeros(episodes, bool),
        truncated=np.ones(episodes, bool),
        action_spec=ope.ActionSpec.continuous(np.full(1, -np.inf), np.full(1, np.inf)),
    )
    return DeviceLog.of(data, "cpu")


def chosen_and_errors(cart, truth, seed):
    """The choice on one log, and each candidate's RMSE in ranges of the true values."""
    parts = [
        played(cart, policy(aim), LOGGED // len(AIMS), 100 * seed + i) for i, aim in enumerate(AIMS)
    ]
    order = torch.randperm(LOGGED, generator=torch.Generator().manual_seed(seed))
    states, actions = (torch.cat(part, 1)[:, order] for part in zip(*parts, strict=True))
    model = Fitted.of(states[:, :EPISODES], actions[:, :EPISODES])
    ratio = Counted(model, states[:, :EPISODES], actions[:, :EPISODES])
    models = {}
    for one in CANDIDATES:
        noisy = model.with_noise(one.noise)
        models[one] = noisy
        if one.sir_candidates > 1:
            k = one.sir_candidates
            calibrated = ratio.calibrated(states[:, :CALIBRATED], actions[:, :CALIBRATED], k)
            models[one] = InducedDynamics(noisy, calibrated, k)
    found = select_noise(
        models,
        Behaviour(),
        log_of(states, actions),
        range(EPISODES, LOGGED),
        steps=HORIZON,
        seed=seed,
    )
    errors = {}
    for one, of in models.items():
        values = np.array([value(of, policy(aim), ROLLOUTS, seed) for aim in AIMS])
        errors[one] = float(np.sqrt(np.mean((values - truth) ** 2)) / np.ptp(truth))
    return found.chosen, errors


@pytest.mark.parametrize(("gusts", "noise"), [(0.4, 0.0), (0.0, 0.3)])
def test_the_choice_is_near_the_best_candidate_in_nine_of_ten_logs(gusts, noise):
    cart = Cart(gusts, noise)
    truth = np.array([value(cart, policy(aim), TRUE_EPISODES, 0) for aim in AIMS])
    near, open_to_choice = 0, 0
    for seed in SEEDS:
        chosen, errors = chosen_and_errors(cart, truth, seed)
        allowed = 1.1 * min(errors.values()) + 0.005
        near += errors[chosen] <= allowed
        open_to_choice += max(errors.values()) > allowed
    assert near >= 9
    assert open_to_choice == len(SEEDS)
