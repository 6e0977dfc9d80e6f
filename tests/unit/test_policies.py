import functools
import json
import math
import zipfile

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO
from torch import nn

import lfiw_ope as ope
from lfiw_ope.core import check_policy, group_policies


@pytest.fixture(scope="module")
def pendulum():
    """Bounds of ±2, one action: an untrained PPO whose noise often leaves the box."""
    return PPO("MlpPolicy", "Pendulum-v1", seed=3, device="cpu", n_steps=64)


@pytest.fixture(scope="module")
def cartpole():
    return PPO("MlpPolicy", "CartPole-v1", seed=3, device="cpu", n_steps=64)


def states(size, n=64, seed=0):
    return torch.randn((n, size), generator=torch.Generator().manual_seed(seed))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("where", ["memory", "zip", "trusted zip", "actor file"])
def test_ppo_acts_and_scores_as_in_stable_baselines3(pendulum, where, tmp_path):
    pendulum.save(tmp_path / "agent.zip")
    load = {
        "memory": lambda **how: ope.from_sb3(pendulum, **how),
        "zip": lambda **how: ope.load_sb3(tmp_path / "agent.zip", **how),
        "trusted zip": lambda **how: ope.load_sb3(tmp_path / "agent.zip", trust=True, **how),
        "actor file": lambda **how: ope.load_actor(
            ope.save_actor(ope.from_sb3(pendulum), tmp_path / "a.safetensors"), **how
        ),
    }[where]
    state = states(3)
    expected, _ = pendulum.predict(state.numpy(), deterministic=True)
    found = load(deterministic=True).act(state, generator())
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
    policy = load()
    proposed = policy.propose(state, generator())
    with torch.no_grad():
        _, log_prob, _ = pendulum.policy.evaluate_actions(state, proposed)
    torch.testing.assert_close(policy.proposal_log_prob(state, proposed), log_prob)
    assert (policy.act(state, generator()).abs() <= 2).all()
    assert torch.equal(policy.act(state, generator()), proposed.clamp(-2, 2))


def test_discrete_ppo_acts_and_scores_as_in_stable_baselines3(cartpole, tmp_path):
    cartpole.save(tmp_path / "agent.zip")
    state = states(4)
    policy = ope.load_sb3(tmp_path / "agent.zip")
    proposed = policy.propose(state, generator())
    assert proposed.sum(1).tolist() == [1.0] * 64
    with torch.no_grad():
        _, log_prob, _ = cartpole.policy.evaluate_actions(state, proposed.argmax(1))
    torch.testing.assert_close(policy.log_prob(state, proposed), log_prob)
    greedy = ope.from_sb3(cartpole, deterministic=True).act(state, generator()).argmax(1)
    assert greedy.tolist() == cartpole.predict(state.numpy(), deterministic=True)[0].tolist()
    path = ope.save_actor(policy, tmp_path / "a.safetensors")
    assert torch.equal(ope.load_actor(path).propose(state, generator()), proposed)


def test_discrete_draws_have_the_softmax_frequencies(cartpole):
    state = states(4, n=1).expand(40_000, -1)
    policy = ope.from_sb3(cartpole)
    share = float(policy.act(state, generator())[:, 1].mean())
    p = float(policy.log_prob(state[:1], torch.tensor([[0.0, 1.0]])).exp())
    assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / 40_000)  # 4 standard errors


def test_a_stack_gives_each_policy_its_own_actions(pendulum):
    def other(seed):
        return ope.from_sb3(PPO("MlpPolicy", "Pendulum-v1", seed=seed, device="cpu", n_steps=64))

    policies = [ope.from_sb3(pendulum), other(5), other(6)]
    (group,) = group_policies(policies, "cpu", 64)
    assert group.indices == (0, 1, 2)
    state = states(3, n=30)
    together = group.policy.act(state.expand(3, -1, -1), generator(9))
    for place, policy in enumerate(policies):
        alone = policy.act(state, generator(9))
        torch.testing.assert_close(together[place], alone, rtol=0, atol=1e-6)
    assert not torch.allclose(together[0], together[1])


def test_policies_are_grouped_by_architecture(pendulum):
    wide = PPO(
        "MlpPolicy", "Pendulum-v1", device="cpu", n_steps=64, policy_kwargs={"net_arch": [8]}
    )
    first, second = ope.from_sb3(pendulum), ope.from_sb3(wide)
    mode = ope.from_sb3(pendulum, deterministic=True)
    groups = group_policies([first, second, first, mode, first], "cpu", largest=2)
    assert sorted(group.indices for group in groups) == [(0, 2), (1,), (3,), (4,)]


def test_a_deterministic_policy_has_no_density(pendulum):
    policy = ope.from_sb3(pendulum, deterministic=True)
    with pytest.raises(ope.PolicyError, match=r"no density; use an estimator.*LFIW"):
        policy.log_prob(states(3), torch.zeros(64, 1))


def rewritten(source, target, change):
    """The zip with its JSON changed, as another version or setting would have written it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "data":
                said = json.loads(content)
                change(said)
                content = json.dumps(said)
            new.writestr(name, content)
    return target


def test_an_activation_that_only_a_pickle_says_is_asked_for(tmp_path):
    kwargs = {"activation_fn": functools.partial(nn.LeakyReLU, 0.01)}
    model = PPO("MlpPolicy", "Pendulum-v1", device="cpu", n_steps=64, policy_kwargs=kwargs)
    model.save(tmp_path / "partial.zip")
    with pytest.raises(ope.UntrustedFileError, match=r"activation='tanh'.*leaky_relu, or trust"):
        ope.load_sb3(tmp_path / "partial.zip")
    state = states(3)
    expected, _ = model.predict(state.numpy(), deterministic=True)
    found = ope.load_sb3(tmp_path / "partial.zip", deterministic=True, activation="leaky_relu")
    np.testing.assert_allclose(found.act(state, generator()).numpy(), expected, atol=1e-6)


def test_an_activation_in_plain_text_is_read_and_not_overruled(tmp_path):
    kwargs = {"activation_fn": nn.ReLU}
    model = PPO("MlpPolicy", "Pendulum-v1", device="cpu", n_steps=64, policy_kwargs=kwargs)
    model.save(tmp_path / "relu.zip")
    assert ope.load_sb3(tmp_path / "relu.zip").network.activation == "relu"
    with pytest.raises(ope.PolicyError, match=r"activation is 'tanh', but .*'relu'; leave"):
        ope.load_sb3(tmp_path / "relu.zip", activation="tanh")
    with pytest.raises(ope.ConfigError, match="activation is 'sine'; it must be one of"):
        ope.load_sb3(tmp_path / "relu.zip", activation="sine")
    with pytest.raises(ope.PolicyError, match="trust=True takes everything from the file"):
        ope.load_sb3(tmp_path / "relu.zip", activation="relu", trust=True)


@pytest.mark.parametrize("printed", ["[-2. ... -2.]", "[-0.01234568]", "", "[-2. -2.]"])
def test_bounds_that_only_a_pickle_says_are_asked_for(pendulum, tmp_path, printed):
    """NumPy cuts long arrays, and rounds numbers below 1/8 to fewer digits than float32 has."""
    pendulum.save(tmp_path / "agent.zip")

    def change(said):
        said["action_space"]["low"] = printed

    path = rewritten(tmp_path / "agent.zip", tmp_path / "cut.zip", change)
    with pytest.raises(ope.UntrustedFileError, match=r"bounds in plain text.*action_spec=.*trust"):
        ope.load_sb3(path)
    spec = ope.ActionSpec.continuous(-2.0, 2.0)
    if "0123" in printed:
        with pytest.raises(ope.PolicyError, match="of another environment"):
            ope.load_sb3(path, action_spec=spec)
    else:
        assert ope.load_sb3(path, action_spec=spec).action_spec == spec
    unknown = ope.ActionSpec.continuous(-math.inf, math.inf)
    with pytest.raises(ope.UntrustedFileError, match="bounds in plain text"):
        ope.load_sb3(path, action_spec=unknown)
    assert ope.load_sb3(tmp_path / "agent.zip", action_spec=unknown).action_spec == spec
    with pytest.raises(ope.PolicyError, match=r"action_spec is .*1\.0.*of another environment"):
        ope.load_sb3(tmp_path / "agent.zip", action_spec=ope.ActionSpec.continuous(-1.0, 1.0))


def test_a_malicious_zip_executes_nothing(pendulum, tmp_path):
    """A policy.pth whose pickle would run a command."""

    class Payload:
        def __reduce__(self):
            return (print, ("executed",))

    good, bad = tmp_path / "good.zip", tmp_path / "bad.zip"
    pendulum.save(good)
    torch.save({"x": Payload()}, tmp_path / "policy.pth")
    with zipfile.ZipFile(good) as source, zipfile.ZipFile(bad, "w") as target:
        for name in source.namelist():
            payload = (tmp_path / "policy.pth").read_bytes()
            target.writestr(name, payload if name == "policy.pth" else source.read(name))
    with pytest.raises(ope.UntrustedFileError, match="more than tensors"):
        ope.load_sb3(bad)


def test_what_is_no_model_is_refused():
    with pytest.raises(ope.PolicyError, match="no policy of stable-baselines3"):
        ope.from_sb3(object())


@pytest.mark.parametrize("load", [ope.load_sb3, ope.load_actor])
def test_files_that_are_no_policies_are_refused(load, tmp_path):
    with pytest.raises(ope.DataError, match="There is no policy file"):
        load(tmp_path / "absent")
    (tmp_path / "text").write_text("not a policy")
    with pytest.raises(ope.DataError, match="is not a"):
        load(tmp_path / "text")


def test_objects_and_sizes_that_do_not_fit_are_refused(pendulum):
    with pytest.raises(ope.PolicyError, match=r"PPO is not a policy.*from_sb3"):
        check_policy(pendulum, state_size=3, action_size=1)
    with pytest.raises(ope.PolicyError, match=r"takes 3 state entries .* the data have 8 and 2"):
        check_policy(ope.from_sb3(pendulum), state_size=8, action_size=2)


def test_a_class_is_no_policy():
    for kind in (ope.TabularPolicy, ope.UniformPolicy):
        with pytest.raises(ope.PolicyError, match=f"{kind.__name__} is a class.*an instance"):
            check_policy(kind, state_size=3, action_size=1)


def test_a_continuous_policy_is_not_taken_for_a_discrete_one(pendulum, cartpole):
    """Of the same sizes, which alone would not tell them apart."""
    for policy, kind in ((pendulum, "discrete"), (cartpole, "continuous")):
        found = ope.from_sb3(policy)
        sizes = {"state_size": found.state_size, "action_size": found.action_size}
        assert check_policy(found, **sizes, action_kind=found.action_spec.kind) is found
        with pytest.raises(ope.PolicyError, match=f"the data's are {kind}"):
            check_policy(found, **sizes, action_kind=kind)
