"""Every known algorithm of stable-baselines3 and sb3-contrib, against the library itself."""

import json
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from sb3_contrib import ARS, QRDQN, TQC, TRPO
from stable_baselines3 import A2C, DDPG, DQN, PPO, SAC, TD3
from stable_baselines3.common.torch_layers import FlattenExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

import lfiw_ope as ope
from lfiw_ope.core import group_policies


class Box(gym.Env):
    """Bounds that are neither symmetric nor alike."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    low, high = np.array([-0.5, -0.2], np.float32), np.array([2.0, 0.3], np.float32)
    action_space = gym.spaces.Box(low, high)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        return np.zeros(4, np.float32), {}

    def step(self, action):  # noqa: ARG002
        return np.zeros(4, np.float32), 0.0, False, False, {}


ON_POLICY = {"device": "cpu", "n_steps": 64, "batch_size": 64, "seed": 1}
OFF_POLICY = {"device": "cpu", "buffer_size": 10, "seed": 1}
SDE = {"use_sde": True}
DISCRETE = "CartPole-v1"

MODELS = {
    "PPO discrete": lambda: PPO("MlpPolicy", DISCRETE, **ON_POLICY),
    "PPO": lambda: PPO("MlpPolicy", Box(), **ON_POLICY),
    "PPO linear": lambda: PPO("MlpPolicy", Box(), **ON_POLICY, policy_kwargs={"net_arch": []}),
    "PPO elu": lambda: PPO(
        "MlpPolicy",
        Box(),
        **ON_POLICY,
        policy_kwargs={"activation_fn": nn.ELU, "net_arch": {"pi": [8, 7, 6], "vf": [4]}},
    ),
    "PPO gSDE": lambda: PPO("MlpPolicy", Box(), **ON_POLICY, **SDE),
    "PPO gSDE squashed": lambda: PPO(
        "MlpPolicy",
        Box(),
        **ON_POLICY,
        **SDE,
        policy_kwargs={"squash_output": True, "use_expln": True, "log_std_init": 0.3},
    ),
    "PPO gSDE one column": lambda: PPO(
        "MlpPolicy", Box(), **ON_POLICY, **SDE, policy_kwargs={"full_std": False}
    ),
    "PPO discrete states": lambda: PPO("MlpPolicy", "FrozenLake-v1", **ON_POLICY),
    "A2C discrete": lambda: A2C("MlpPolicy", DISCRETE, device="cpu", seed=1),
    "A2C": lambda: A2C("MlpPolicy", Box(), device="cpu", seed=1),
    "TRPO": lambda: TRPO("MlpPolicy", Box(), **ON_POLICY),
    "TRPO gSDE": lambda: TRPO("MlpPolicy", Box(), **ON_POLICY, **SDE),
    "SAC": lambda: SAC("MlpPolicy", Box(), **OFF_POLICY),
    "SAC narrow": lambda: SAC(
        "MlpPolicy", Box(), **OFF_POLICY, policy_kwargs={"net_arch": {"pi": [5], "qf": [9]}}
    ),
    "SAC gSDE": lambda: SAC("MlpPolicy", Box(), **OFF_POLICY, **SDE),
    "SAC gSDE unclipped": lambda: SAC(
        "MlpPolicy",
        Box(),
        **OFF_POLICY,
        **SDE,
        policy_kwargs={"clip_mean": 0.0, "activation_fn": nn.Tanh},
    ),
    "TQC": lambda: TQC("MlpPolicy", Box(), **OFF_POLICY),
    "TQC gSDE": lambda: TQC("MlpPolicy", Box(), **OFF_POLICY, **SDE),
    "TD3": lambda: TD3("MlpPolicy", Box(), **OFF_POLICY),
    "DDPG": lambda: DDPG("MlpPolicy", Box(), **OFF_POLICY),
    "DQN": lambda: DQN("MlpPolicy", DISCRETE, **OFF_POLICY),
    "QRDQN": lambda: QRDQN("MlpPolicy", DISCRETE, **OFF_POLICY, policy_kwargs={"n_quantiles": 7}),
    "ARS": lambda: ARS("MlpPolicy", Box(), device="cpu", seed=1, zero_policy=False),
    "ARS discrete": lambda: ARS("MlpPolicy", DISCRETE, device="cpu", seed=1, zero_policy=False),
    "ARS linear": lambda: ARS("LinearPolicy", Box(), device="cpu", seed=1, zero_policy=False),
    "ARS clipped": lambda: ARS(
        "MlpPolicy",
        Box(),
        device="cpu",
        seed=1,
        zero_policy=False,
        policy_kwargs={"squash_output": False, "with_bias": False},
    ),
}
NOISELESS = ("TD3", "DDPG", "DQN", "QRDQN", "ARS")
NOISY = [label for label in MODELS if label.split()[0] not in NOISELESS]
only_noisy = pytest.mark.parametrize("model", NOISY, indirect=True)


@pytest.fixture(scope="module", params=list(MODELS))
def model(request):
    """Untrained, with weights enlarged, so that actions reach every part of the box."""
    made = MODELS[request.param]()
    with torch.no_grad():
        for name, values in made.policy.named_parameters():
            if name.endswith("weight") and "critic" not in name:
                values.mul_(30.0 if name.startswith("action_net") else 2.0)
    return made


def states(model, n=200):
    if isinstance(model.observation_space, gym.spaces.Discrete):
        return torch.eye(int(model.observation_space.n))[torch.arange(n) % 16]
    size = model.observation_space.shape[0]
    return torch.randn((n, size), generator=torch.Generator().manual_seed(5))


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def observations(model, state):
    """As the model takes them."""
    discrete = isinstance(model.observation_space, gym.spaces.Discrete)
    return state.argmax(1) if discrete else state


def sb3_distribution(model, state):
    """stable-baselines3's own, with the ε that it adds inside log(1 − tanh²) taken out."""
    actor = getattr(model.policy, "actor", None)
    if actor is None:
        found = model.policy.get_distribution(state)
    else:
        mean, log_std, rest = actor.get_action_dist_params(state)
        found = actor.action_dist.proba_distribution(mean, log_std, **rest)
    if getattr(found, "bijector", None) is not None:
        found.bijector.epsilon = 0.0
    elif hasattr(found, "gaussian_actions"):
        found.epsilon = 0.0
    return found


@pytest.mark.parametrize("where", ["memory", "zip", "trusted zip", "actor file"])
def test_modes_are_those_of_predict(model, where, tmp_path):
    policy = load(model, where, tmp_path, deterministic=True)
    state = states(model)
    expected, _ = model.predict(observations(model, state).numpy(), deterministic=True)
    found = policy.act(state, generator())
    if policy.action_spec.kind == "discrete":
        assert found.argmax(1).tolist() == expected.tolist()
        assert len(set(expected.tolist())) >= 2
    else:
        np.testing.assert_allclose(found.numpy(), expected, atol=1e-6)
        assert np.std(expected, 0).min() > 0.01
    with pytest.raises(ope.PolicyError, match=r"no density; use an estimator.*LFIW, ModelBased"):
        policy.log_prob(state, found)


def load(model, where, folder, **how):
    if where == "memory":
        return ope.from_sb3(model, **how)
    if where == "actor file":
        path = ope.save_actor(ope.from_sb3(model), folder / "actor.safetensors")
        return ope.load_actor(path, **how)
    model.save(folder / "agent.zip")
    if where == "zip" and isinstance(model.action_space, gym.spaces.Box):
        how["action_spec"] = ope.ActionSpec.continuous(Box.low, Box.high)
    return ope.load_sb3(folder / "agent.zip", trust=where == "trusted zip", **how)


@only_noisy
@pytest.mark.parametrize("where", ["memory", "zip", "trusted zip", "actor file"])
def test_log_probabilities_are_those_of_the_library(model, where, tmp_path):
    policy = load(model, where, tmp_path)
    state = states(model)
    proposed = policy.propose(state, generator())
    low, high = (torch.tensor(bound) for bound in (Box.low, Box.high))
    if model.policy.squash_output:
        # Not the policy's own draws, many of which lie so near to a bound that the library's
        # float32 loses the digits of the inverse of tanh.
        unit = 1.9 * torch.rand(proposed.shape, generator=generator(), dtype=torch.float64) - 0.95
        proposed = (low + 0.5 * (unit + 1) * (high - low)).float()
    with torch.no_grad():
        distribution = sb3_distribution(model, observations(model, state))
        if policy.action_spec.kind == "discrete":
            expected = distribution.log_prob(proposed.argmax(1))
        elif model.policy.squash_output:
            span = (high - low).double()
            unit = 2 * (proposed.double() - low) / span - 1
            expected = distribution.log_prob(unit) - (span / 2).log().sum()
        else:
            expected = distribution.log_prob(proposed)
    found = policy.proposal_log_prob(state, proposed)
    torch.testing.assert_close(found, expected.float(), atol=1e-5, rtol=1e-5)
    executed = policy.execute(proposed)
    inside = (executed == proposed).all(1)
    assert inside.any()
    torch.testing.assert_close(policy.log_prob(state, executed)[inside], found[inside])


@only_noisy
def test_draws_have_the_library_s_moments(model):
    n = 20_000
    state = states(model, 1).expand(n, -1)
    policy = ope.from_sb3(model)
    drawn = policy.propose(state, generator()).double()
    with torch.no_grad():
        distribution = sb3_distribution(model, observations(model, state))
        if hasattr(model.policy, "reset_noise") and model.use_sde:
            model.policy.reset_noise(n)  # one noise matrix for each row
        torch.manual_seed(0)
        theirs = distribution.sample()
    if policy.action_spec.kind == "discrete":
        theirs = nn.functional.one_hot(theirs, policy.action_size)
    elif model.policy.squash_output:
        low, high = (torch.tensor(bound) for bound in (Box.low, Box.high))
        theirs = low + 0.5 * (theirs + 1) * (high - low)
    theirs = theirs.double()
    for power in (1, 2):  # each within 5 standard errors of the difference
        ours, others = drawn**power, theirs**power
        error = torch.sqrt((ours.var(0) + others.var(0)) / n)
        assert ((ours.mean(0) - others.mean(0)).abs() <= 5 * error + 1e-9).all()


@pytest.mark.parametrize("label", ["SAC", "SAC gSDE", "TD3", "QRDQN", "PPO gSDE squashed"])
def test_a_stack_gives_each_policy_its_own_actions(label):
    size = 4
    policies = []
    for seed in (3, 4):
        made = MODELS[label]()
        torch.manual_seed(seed)
        for values in made.policy.parameters():
            values.data.uniform_(-0.5, 0.5)
        mean, variance = np.full(size, 0.1 * seed), np.full(size, float(seed))
        statistics = ope.ObservationNormaliser.of(mean, variance, epsilon=1e-8, clip=float(seed))
        policies.append(ope.from_sb3(made, vec_normalize=statistics))
    (group,) = group_policies(policies, "cpu", 8)
    state = 3 * torch.randn((50, size), generator=generator())
    together = group.policy.act(state.expand(2, -1, -1), generator(9))
    for place, policy in enumerate(policies):
        torch.testing.assert_close(
            together[place], policy.act(state, generator(9)), rtol=0, atol=1e-6
        )
    assert not torch.allclose(together[0], together[1])
    if group.policy.has_density:
        scored = group.policy.log_prob(state.expand(2, -1, -1), together)
        alone = policies[1].log_prob(state, together[1])
        torch.testing.assert_close(scored[1], alone, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """A model in its VecNormalize, whose statistics have moved, and their file."""
    env = VecNormalize(DummyVecEnv([lambda: gym.make("Pendulum-v1")]), clip_obs=1.5)
    model = PPO("MlpPolicy", env, **ON_POLICY)
    model.learn(256)
    folder = tmp_path_factory.mktemp("normalised")
    model.save(folder / "agent.zip")
    env.save(folder / "statistics.pkl")
    return model, env, folder


@pytest.mark.parametrize("given", ["model's own", "file", "object", "read"])
def test_policies_see_normalised_observations(normalised, given):
    model, env, folder = normalised
    path = folder / "statistics.pkl"
    policy = {
        "model's own": lambda **how: ope.from_sb3(model, **how),
        "file": lambda **how: ope.load_sb3(folder / "agent.zip", vec_normalize=path, **how),
        "object": lambda **how: ope.load_sb3(folder / "agent.zip", vec_normalize=env, **how),
        "read": lambda **how: ope.load_sb3(
            folder / "agent.zip", vec_normalize=ope.load_vec_normalize(path), trust=True, **how
        ),
    }[given](deterministic=True)
    raw = np.random.default_rng(0).normal(0, 3, (100, 3)).astype(np.float32)
    seen = env.normalize_obs(raw)
    assert (np.abs(seen) == 1.5).any()
    expected, _ = model.predict(seen, deterministic=True)
    state = torch.from_numpy(raw)
    np.testing.assert_allclose(policy.act(state, generator()).numpy(), expected, atol=1e-6)
    again = ope.save_actor(policy, folder / "actor.safetensors")
    assert torch.equal(
        ope.load_actor(again, deterministic=True).act(state, generator()),
        policy.act(state, generator()),
    )


def test_a_policy_that_is_not_known_is_refused(tmp_path):
    from sb3_contrib import MaskablePPO, RecurrentPPO
    from sb3_contrib.common.envs import InvalidActionEnvDiscrete

    class Own(type(PPO("MlpPolicy", DISCRETE, **ON_POLICY).policy)):
        pass

    class TwoNumbers(gym.Wrapper):
        action_space = gym.spaces.MultiDiscrete([2, 2])

    class Image(gym.Wrapper):
        observation_space = gym.spaces.Box(0, 255, (3, 36, 36), np.uint8)

    class Named(gym.Wrapper):
        observation_space = gym.spaces.Dict({"x": gym.spaces.Box(-1, 1, (2,))})

    models = {
        "Recurrent": lambda: RecurrentPPO("MlpLstmPolicy", DISCRETE, device="cpu", n_steps=8),
        "Maskable": lambda: MaskablePPO(
            "MlpPolicy", InvalidActionEnvDiscrete(), device="cpu", n_steps=8
        ),
        "from_function|class of its own": lambda: PPO(Own, DISCRETE, **ON_POLICY),
        "NatureCNN|images": lambda: PPO("CnnPolicy", Image(gym.make(DISCRETE)), **ON_POLICY),
        "FlattenExtractor|takes images": lambda: PPO(
            "MlpPolicy", Image(gym.make(DISCRETE)), **ON_POLICY
        ),
        "CombinedExtractor|Dict": lambda: PPO(
            "MultiInputPolicy", Named(gym.make(DISCRETE)), **ON_POLICY
        ),
        "MultiDiscrete": lambda: PPO("MlpPolicy", TwoNumbers(gym.make(DISCRETE)), **ON_POLICY),
    }
    for words, make in models.items():
        made = make()
        made.save(tmp_path / "agent.zip")
        with pytest.raises(ope.PolicyError, match=words):
            ope.from_sb3(made)
        with pytest.raises(ope.PolicyError, match=words):
            ope.load_sb3(tmp_path / "agent.zip")


def test_a_damaged_zip_is_named(tmp_path):
    """Tensors and JSON that do not go together."""
    model = QRDQN("MlpPolicy", DISCRETE, **OFF_POLICY, policy_kwargs={"n_quantiles": 7})
    model.save(tmp_path / "agent.zip")
    with zipfile.ZipFile(tmp_path / "agent.zip") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}

    def change(**new):
        said = json.loads(files["data"])
        said.update(new)
        path = tmp_path / "damaged.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in {**files, "data": json.dumps(said)}.items():
                archive.writestr(name, content)
        return path

    space = {":type:": "<class 'gymnasium.spaces.discrete.Discrete'>"}
    for new, kind, words in [
        ({"action_space": {**space, "n": 3}}, ope.PolicyError, "14 quantiles for 3 actions"),
        ({"action_space": space}, ope.DataError, "no JSON that stable-baselines3 wrote.*KeyError"),
        ({"policy_kwargs": {"dueling": True}}, ope.PolicyError, "made with dueling, whose effect"),
        ({"policy_kwargs": [1]}, ope.DataError, "no JSON that stable-baselines3 wrote"),
        ({"policy_class": None}, ope.PolicyError, "a class of its own"),
    ]:
        with pytest.raises(kind, match=words):
            ope.load_sb3(change(**new))
    with pytest.raises(ope.DataError, match=r"cannot load .* as QRDQN"):
        ope.load_sb3(change(policy_kwargs={"n_quantiles": 8}), trust=True)


class Bounded(Box):
    """Of any bounds."""

    def __init__(self, low, high):
        self.action_space = gym.spaces.Box(np.array(low, np.float32), np.array(high, np.float32))


@pytest.mark.parametrize("precision", [2, 8])
@pytest.mark.parametrize("short", [True, False])
def test_rounded_bounds_are_asked_for_and_held_to_the_log_s(precision, short, tmp_path):
    """NumPy prints bounds with as many digits as it was told to when the model was saved."""
    low, high = np.full(2, -1 / 3, np.float32), np.array([0.4567, 0.9876], np.float32)
    path = tmp_path / "agent.zip"
    with np.printoptions(precision=precision, suppress=True):
        model = TD3("MlpPolicy", Bounded(low, high), **OFF_POLICY)
        if short:  # a space that was printed keeps the one number of bounds that are all alike
            repr(model.action_space)
        model.save(path)
    exact = ope.ActionSpec.continuous(low, high)
    if precision == 8:  # eight digits of one bound show that the others ended
        np.testing.assert_allclose(ope.load_sb3(path).action_spec.high, high, rtol=1e-7)
    else:
        with pytest.raises(
            ope.UntrustedFileError, match=r"all digits .*'\[0\.46 0\.99\]'.*action_spec"
        ):
            ope.load_sb3(path)
    policy = ope.load_sb3(path, action_spec=exact)
    assert policy.action_spec == exact
    state = states(model)
    expected, _ = model.predict(state.numpy(), deterministic=True)
    np.testing.assert_allclose(policy.act(state, generator()).numpy(), expected, atol=1e-6)
    other = ope.ActionSpec.continuous(low, high + np.float32(0.01))
    with pytest.raises(ope.PolicyError, match="of another environment"):
        ope.load_sb3(path, action_spec=other)
    with pytest.raises(ope.PolicyError, match="of another environment"):
        ope.load_sb3(path, action_spec=ope.ActionSpec.discrete(2))


@pytest.mark.parametrize(
    ("low", "high"), [(-0.004, 0.004), (-1e-9, 1.0), (0.001, 0.002), (-0.4, 0.4)]
)
def test_bounds_that_rounding_swallows_are_asked_for(low, high, tmp_path):
    with np.printoptions(precision=2, suppress=True):
        PPO("MlpPolicy", Bounded([low], [high]), **ON_POLICY).save(tmp_path / "agent.zip")
    with pytest.raises(ope.UntrustedFileError, match="all digits of its action bounds"):
        ope.load_sb3(tmp_path / "agent.zip")
    spec = ope.ActionSpec.continuous(low, high)
    found = ope.load_sb3(tmp_path / "agent.zip", action_spec=spec).action_spec
    np.testing.assert_allclose([found.low, found.high], [[low], [high]], rtol=1e-7)


def test_one_number_for_bounds_that_are_alike_is_exact(tmp_path):
    """What Gymnasium's Box keeps of having been printed, as a log of it may have done."""
    model = PPO("MlpPolicy", Bounded([-0.4] * 3, [1 / 3] * 3), **ON_POLICY)
    with np.printoptions(precision=2):
        repr(model.action_space)
        model.save(tmp_path / "agent.zip")
    found = ope.load_sb3(tmp_path / "agent.zip").action_spec
    np.testing.assert_allclose(found.low, [-0.4] * 3, rtol=1e-7)
    np.testing.assert_allclose(found.high, [1 / 3] * 3, rtol=1e-7)


class Scale(FlattenExtractor):
    """Without parameters, so that the tensors do not show it."""

    def forward(self, observations):
        return super().forward(observations) * 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"features_extractor_class": Scale}, r"features extractor.*Scale"),
        ({"activation_fn": nn.Sigmoid}, r"Sigmoid; only Tanh, ReLU"),
        ({"activation_fn": nn.Identity}, r"Identity; only Tanh, ReLU"),
    ],
)
def test_a_policy_made_in_another_way_is_refused(settings, words, tmp_path):
    PPO("MlpPolicy", Box(), **ON_POLICY, policy_kwargs=settings).save(tmp_path / "agent.zip")
    spec = ope.ActionSpec.continuous(Box.low, Box.high)
    for activation in (None, "tanh"):
        with pytest.raises(ope.PolicyError, match=words):
            ope.load_sb3(tmp_path / "agent.zip", activation=activation, action_spec=spec)


def test_an_extractor_is_known_by_its_module_too():
    own = type("FlattenExtractor", (Scale,), {})
    model = PPO("MlpPolicy", Box(), **ON_POLICY, policy_kwargs={"features_extractor_class": own})
    with pytest.raises(ope.PolicyError, match="stable-baselines3's own FlattenExtractor"):
        ope.from_sb3(model)


def test_every_setting_of_the_library_s_own_is_read(tmp_path):
    settings = {
        "features_extractor_class": FlattenExtractor,
        "ortho_init": False,
        "log_std_init": -1.0,
        "share_features_extractor": False,
        "normalize_images": False,
        "optimizer_kwargs": {"eps": 1e-5},
    }
    PPO("MlpPolicy", DISCRETE, **ON_POLICY, policy_kwargs=settings).save(tmp_path / "agent.zip")
    assert ope.load_sb3(tmp_path / "agent.zip").action_size == 2
