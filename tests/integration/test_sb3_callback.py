"""Offline values during real short trainings of stable-baselines3."""

import csv
import random
import subprocess
import sys

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC, TD3
from stable_baselines3.common.callbacks import CallbackList, EvalCallback, EveryNTimesteps
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

import lfiw_ope as ope
from lfiw_ope.evaluation.sb3_callback import OfflineValue

ESTIMAND = ope.Estimand(horizon=12, discount=0.95)
TINY = ope.FitConfig(updates=30, evaluate_every=10)
MODEL = ope.ModelBased(
    ESTIMAND,
    ope.ModelBasedConfig(
        dynamics=ope.DynamicsConfig(members=2, hidden=(8,), fit=TINY), rollouts=40
    ),
)
FITTED_Q = ope.FQE(ESTIMAND, ope.FQEConfig(hidden=(8,), fit=TINY))
LIMIT = 12


def environment(env_id="Pendulum-v1", count=2):
    return DummyVecEnv([lambda: gym.make(env_id, max_episode_steps=LIMIT)] * count)


def log_of(env_id):
    """Random play, in the environment's own units."""
    env = gym.make_vec(env_id, 5, max_episode_steps=LIMIT, vectorization_mode="sync")
    space = env.single_action_space
    spec = (
        ope.ActionSpec.discrete(int(space.n))
        if isinstance(space, gym.spaces.Discrete)
        else ope.ActionSpec.continuous(space.low, space.high)
    )
    behaviour = ope.UniformPolicy(env.single_observation_space.shape[0], spec)
    return ope.collect(env, behaviour, episodes=20, seed=1)


@pytest.fixture(scope="module")
def pendulum():
    return log_of("Pendulum-v1")


@pytest.fixture(scope="module")
def cartpole():
    return log_of("CartPole-v1")


def ppo(env=None, **kwargs):
    return PPO(
        "MlpPolicy", env or environment(), n_steps=32, batch_size=32, n_epochs=2, seed=3,
        device="cpu", policy_kwargs={"net_arch": [8]}, **kwargs,
    )  # fmt: skip


def off_policy(algorithm, env_id, **kwargs):
    return algorithm(
        "MlpPolicy", environment(env_id), buffer_size=500, learning_starts=20, train_freq=4,
        batch_size=8, seed=3, device="cpu", policy_kwargs={"net_arch": [8]}, **kwargs,
    )  # fmt: skip


TRAININGS = {
    "PPO": ("Pendulum-v1", ppo),
    "A2C": (
        "CartPole-v1",
        lambda: A2C("MlpPolicy", environment("CartPole-v1"), n_steps=16, seed=3, device="cpu"),
    ),
    "SAC": ("Pendulum-v1", lambda: off_policy(SAC, "Pendulum-v1")),
    "TD3": ("Pendulum-v1", lambda: off_policy(TD3, "Pendulum-v1")),
    "DQN": ("CartPole-v1", lambda: off_policy(DQN, "CartPole-v1")),
}


def same(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.parametrize("estimator", [MODEL, FITTED_Q], ids=["model", "FQE"])
def test_a_training_is_the_same_with_it_and_without(name, estimator, pendulum, cartpole):
    env_id, make = TRAININGS[name]
    data = pendulum if env_id == "Pendulum-v1" else cartpole
    alone = make().learn(128)
    tracked = OfflineValue(data, estimator, every=64)
    model = make().learn(128, callback=tracked)
    assert same(alone.policy.state_dict(), model.policy.state_dict())
    assert alone.policy.training == model.policy.training
    assert torch.is_grad_enabled()
    steps = [timesteps for timesteps, _ in tracked.history]
    assert steps == [0, 64, 128]
    values = [estimate.value for _, estimate in tracked.history]
    # Another policy each time; all of them balance a pole for 12 steps.
    assert env_id == "CartPole-v1" or len(set(values)) == 3
    # The last is the final policy, estimated as anyone would estimate it afterwards.
    final = estimator.fit(data, seed=0).estimate(ope.from_sb3(model))
    assert values[-1] == pytest.approx(final.value)


def test_global_generators_are_left_alone(pendulum):
    model = ppo()
    tracked = OfflineValue(pendulum, FITTED_Q, every=1)
    tracked.init_callback(model)
    model.learn(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    threads = torch.get_num_threads()
    tracked.on_training_start({}, {})
    tracked.on_rollout_start()
    assert len(tracked.history) == 1
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002
    assert before[2] == random.getstate()
    assert threads == torch.get_num_threads()


def test_estimates_land_in_the_trainings_own_log(pendulum, tmp_path):
    model = ppo()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    tracked = OfflineValue(pendulum, MODEL, every=64, seed=5)
    model.learn(192, callback=tracked)
    with (tmp_path / "progress.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["offline/value"]]
    assert [int(row["time/total_timesteps"]) for row in rows] == [0, 64, 128, 192]
    mean = pendulum.returns(ESTIMAND.horizon, ESTIMAND.discount).mean()
    for row, (_, estimate) in zip(rows, tracked.history, strict=True):
        assert estimate.seed == 5
        assert float(row["offline/value"]) == pytest.approx(estimate.value)
        assert float(row["offline/standard_error"]) == pytest.approx(estimate.noise)
        assert int(row["offline/warnings"]) == len(estimate.warnings)
        assert float(row["offline/behaviour"]) == pytest.approx(mean)
        assert float(row["offline/seconds"]) > 0
        if estimate.intervals:
            assert float(row["offline/low"]) == pytest.approx(estimate.intervals[-1].low)
    trained = [row for row in rows if row.get("train/loss")]
    assert trained  # the training's own numbers are there too


def test_vec_normalize_is_taken_as_it_is_at_each_estimate(pendulum):
    env = VecNormalize(environment(), clip_obs=4.0)
    model = ppo(env)
    tracked = OfflineValue(pendulum, MODEL, every=64)
    model.learn(64, callback=tracked)
    fitted = MODEL.fit(pendulum, seed=0)
    right = fitted.estimate(ope.from_sb3(model, vec_normalize=env))
    assert tracked.history[-1].estimate.value == pytest.approx(right.value)
    # Without the statistics, or with those of the start, it is another policy.
    fresh = VecNormalize(environment(), clip_obs=4.0)
    other = fitted.estimate(ope.from_sb3(model, vec_normalize=fresh))
    assert abs(other.value - right.value) > 1e-3


def lower_end(estimate):
    return estimate.intervals[-1].low if estimate.intervals else estimate.value


def test_an_earlier_policy_is_not_changed_by_later_training(pendulum, tmp_path):
    tracked = OfflineValue(pendulum, MODEL, every=32)
    model = ppo()
    first = ope.from_sb3(model)
    model.learn(256, callback=tracked)
    best = max(tracked.history, key=lambda one: lower_end(one.estimate))
    assert tracked.best.timesteps == best.timesteps
    again = MODEL.fit(pendulum, seed=0).estimate([first, tracked.best.policy])
    assert again[0].value == pytest.approx(tracked.history[0].estimate.value)
    assert again[1].value == pytest.approx(best.estimate.value)
    saved = ope.load_actor(tracked.best.save(tmp_path / "best.safetensors"))
    states = torch.from_numpy(pendulum.initial_states)
    draws = (p.act(states, torch.Generator().manual_seed(0)) for p in (saved, tracked.best.policy))
    assert torch.equal(*draws)


def test_a_fit_serves_several_trainings_and_histories_begin_anew(pendulum):
    fitted = MODEL.fit(pendulum, seed=0)
    tracked = OfflineValue(pendulum, fitted, every=64)
    model = ppo().learn(64, callback=tracked)
    assert tracked.fitted is fitted
    # Going on: the policy at step 64 is the one that was estimated when training ended.
    model.learn(64, callback=tracked, reset_num_timesteps=False)
    assert [timesteps for timesteps, _ in tracked.history] == [0, 64, 128]
    ppo().learn(64, callback=CallbackList([tracked]))
    assert [timesteps for timesteps, _ in tracked.history] == [0, 64]
    assert tracked.fitted is fitted


def test_an_event_says_when(pendulum):
    tracked = OfflineValue(pendulum, MODEL, every=1)
    ppo().learn(128, callback=EveryNTimesteps(50, tracked))
    assert [timesteps for timesteps, _ in tracked.history] == [50, 100]


class Fails:
    """A fitted estimator that fails from a call on."""

    def __init__(self, fitted, calls):
        self.fitted, self.calls = fitted, calls

    def estimate(self, policies, **kwargs):
        self.calls -= 1
        if self.calls < 0:
            raise ope.DivergedError("It diverged.")
        return self.fitted.estimate(policies, **kwargs)


def test_a_new_best_is_an_event_too(pendulum):
    callback = OfflineValue(pendulum, MODEL, every=1)
    event = EvalCallback(
        environment(count=1), callback_on_new_best=callback, eval_freq=32, n_eval_episodes=1,
        verbose=0, warn=False,
    )  # fmt: skip
    ppo().learn(64, callback=event)
    assert callback.history[0].timesteps == 64  # 32 calls, of two environments


def test_an_estimate_that_is_no_number_is_a_failure_and_not_the_best(pendulum):
    class Late:
        """NaN first, then numbers."""

        estimand, values = ESTIMAND, [float("nan"), 1.0, 2.0]

        def fit(self, data, seed, *, progress=None):  # noqa: ARG002
            return self

        def estimate(self, policies, *, progress=None):  # noqa: ARG002
            value = self.values.pop(0)
            return ope.Estimate(estimator="late", estimand=ESTIMAND, value=value, seed=0)

    callback = OfflineValue(pendulum, Late(), every=64)
    with pytest.warns(RuntimeWarning, match="The estimate is nan"):
        ppo().learn(128, callback=callback)
    assert [one.estimate.value for one in callback.history] == [1.0, 2.0]
    assert callback.best.estimate.value == 2.0


def test_an_estimate_that_fails_does_not_end_the_training(pendulum, tmp_path):
    alone = ppo().learn(192)
    model = ppo()
    model.set_logger(configure(str(tmp_path), ["csv"]))
    tracked = OfflineValue(pendulum, Fails(MODEL.fit(pendulum, seed=0), 1), every=64)
    with pytest.warns(RuntimeWarning, match="at step 64 failed, and training goes on") as caught:
        model.learn(192, callback=tracked)
    assert len([one for one in caught if one.category is RuntimeWarning]) == 1
    assert same(alone.policy.state_dict(), model.policy.state_dict())
    assert [timesteps for timesteps, _ in tracked.history] == [0]
    assert [timesteps for timesteps, _ in tracked.failures] == [64, 128, 192]
    with (tmp_path / "progress.csv").open() as file:
        counts = [row["offline/failures"] for row in csv.DictReader(file)]
    assert [count for count in counts if count] == ["1", "2", "3"]


def test_failures_are_raised_where_that_is_wanted(pendulum):
    fails = Fails(MODEL.fit(pendulum, seed=0), 1)
    tracked = OfflineValue(pendulum, fails, every=64, raise_errors=True)
    with pytest.raises(ope.DivergedError):
        ppo().learn(192, callback=tracked)


def test_what_cannot_work_is_refused_before_the_first_step(pendulum, cartpole):
    normalised = DummyVecEnv([lambda: gym.wrappers.NormalizeObservation(gym.make("Pendulum-v1"))])
    td3 = off_policy(TD3, "Pendulum-v1")
    for model, data, estimator, message in (
        (ppo(), cartpole, MODEL, "takes 3 state entries"),
        (ppo(normalised), pendulum, MODEL, "NormalizeObservation"),
        (td3, pendulum, ope.IS(ESTIMAND), "no density|deterministic"),
    ):
        with pytest.raises(ope.PolicyError, match=message):
            model.learn(64, callback=OfflineValue(data, estimator, every=64))
        assert model.num_timesteps == 0
    with pytest.raises(ope.ConfigError, match="every is 0"):
        OfflineValue(pendulum, MODEL, every=0)
    with pytest.raises(ope.ConfigError, match="estimator is a str; expected an estimator"):
        OfflineValue(pendulum, "lfiw", every=1)


def test_without_stable_baselines3_the_extra_is_named():
    code = (
        "import sys\n"
        "sys.modules['stable_baselines3'] = None\n"
        "try:\n"
        "    import lfiw_ope.evaluation.sb3_callback\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'lfiw-ope[sb3]'" in done.stdout
