"""Policies in files: ONNX, TorchScript, and any of them by its ending."""

import zipfile

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC
from torch import nn

import lfiw_ope as ope

BOX = ope.ActionSpec.continuous([-0.5, -2.0], [1.0, 2.0])
DISCRETE = ope.ActionSpec.discrete(2)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def states(size=4, n=50):
    return torch.randn((n, size), generator=generator(5))


class Network(nn.Module):
    """With a batch normalisation, which acts otherwise in training."""

    def __init__(self, outputs=2):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, outputs)
        )
        for values in self.parameters():
            values.data.uniform_(-1, 1, generator=generator())

    def forward(self, state):
        return self.layers(state)


def export(module, path, outputs=("actions",), batch=True, size=4):
    sizes = {0: torch.export.Dim("batch")} if batch else None
    torch.onnx.export(
        module.eval(),
        (torch.zeros(3, size),),
        path,
        input_names=["state"],
        output_names=list(outputs),
        dynamic_shapes=[sizes] if batch else None,
        dynamo=True,
        verbose=False,
    )
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """One file of each kind, of the same network."""
    made = tmp_path_factory.mktemp("files")
    module = Network().eval()
    export(module, made / "policy.onnx")
    torch.jit.trace(module, torch.zeros(3, 4)).save(made / "policy.pt")
    PPO("MlpPolicy", "CartPole-v1", device="cpu", n_steps=64, seed=1).save(made / "policy.zip")
    ope.save_actor(ope.load_sb3(made / "policy.zip"), made / "policy.safetensors")
    return made


READERS = {
    "policy.onnx": lambda path, **how: ope.load_onnx(path, **how),
    "policy.pt": lambda path, **how: ope.load_torchscript(path, state_size=4, trust=True, **how),
}


@pytest.mark.parametrize("name", READERS)
def test_networks_in_files_act_as_in_memory(name, folder):
    state = states()
    with torch.no_grad():
        raw = Network().eval()(state)
    low, high = torch.tensor(BOX.low), torch.tensor(BOX.high)
    policy = READERS[name](folder / name, action_spec=BOX)
    assert (policy.state_size, policy.action_size) == (4, 2)
    torch.testing.assert_close(policy.act(state, generator()), raw.clamp(low, high))
    scaled = READERS[name](folder / name, action_spec=BOX, gives="scaled actions")
    expected = (low + 0.5 * (raw + 1) * (high - low)).clamp(low, high)
    torch.testing.assert_close(scaled.act(state, generator()), expected)
    logits = READERS[name](folder / name, action_spec=DISCRETE, gives="logits")
    chosen = torch.eye(2)[[1] * 50]
    torch.testing.assert_close(logits.log_prob(state, chosen), raw.log_softmax(1)[:, 1])
    stacked = logits.stack([logits])
    together = stacked.act(state.expand(2, -1, -1), generator(3))
    assert torch.equal(together[1], logits.act(state, generator(3)))


def test_an_sb3_actor_s_onnx_acts_as_the_model(tmp_path):
    """What SAC's actor gives is in [-1, 1]."""
    model = SAC("MlpPolicy", "Pendulum-v1", device="cpu", buffer_size=10, seed=1)

    class Actor(nn.Module):
        def __init__(self):
            super().__init__()
            self.latent, self.mean = model.actor.latent_pi, model.actor.mu

        def forward(self, state):
            return torch.tanh(self.mean(self.latent(state)))

    path = export(Actor(), tmp_path / "actor.onnx", size=3)
    spec = ope.ActionSpec.continuous(-2.0, 2.0)
    policy = ope.load_onnx(path, action_spec=spec, gives="scaled actions")
    state = states(3)
    expected, _ = model.predict(state.numpy(), deterministic=True)
    np.testing.assert_allclose(policy.act(state, generator()).numpy(), expected, atol=1e-6)
    env = gym.vector.SyncVectorEnv([lambda: gym.make("Pendulum-v1")])
    assert ope.collect(env, policy, episodes=1, seed=0).num_transitions == 200


def test_several_outputs_are_asked_about(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = Network(3)

        def forward(self, state):
            found = self.network(state)
            return found[:, :2], found[:, 2:]

    path = export(Two(), tmp_path / "two.onnx", ("actions", "value"))
    with pytest.raises(ope.PolicyError, match="outputs actions, value; say which"):
        ope.load_onnx(path, action_spec=BOX)
    assert ope.load_onnx(path, action_spec=BOX, output="actions").act(states(), generator()).any()
    with pytest.raises(ope.PolicyError, match=r"gave \(50, 1\) at 50 states"):
        ope.load_onnx(path, action_spec=BOX, output="value").act(states(), generator())


def test_a_fixed_batch_is_refused(tmp_path):
    path = export(Network(), tmp_path / "fixed.onnx", batch=False)
    with pytest.raises(ope.PolicyError, match=r"input of shape \[3, 4\]; export it with a dynamic"):
        ope.load_onnx(path, action_spec=BOX)


def test_torchscript_is_a_program_and_asks_for_trust(folder):
    with pytest.raises(ope.UntrustedFileError, match=r"run as a program.*trust=True"):
        ope.load_torchscript(folder / "policy.pt", state_size=4, action_spec=BOX)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("policy.safetensors", {}),
        ("policy.zip", {"trust": False, "activation": None, "vec_normalize": None}),
        ("policy.zip", {"trust": True, "state_size": 4, "action_spec": DISCRETE}),
        ("policy.zip", {"state_size": 4, "action_spec": DISCRETE}),
        ("policy.safetensors", {"state_size": 4, "action_spec": DISCRETE}),
        ("policy.onnx", {"action_spec": DISCRETE, "gives": "logits", "trust": False}),
        ("policy.pt", {"action_spec": DISCRETE, "state_size": 4, "trust": True}),
    ],
)
def test_a_policy_is_loaded_by_its_file_s_ending(name, options, folder):
    if name == "policy.pt":
        options = {**options, "gives": "logits"}
    policy = ope.load_policy(folder / name, deterministic=True, **options)
    assert (policy.state_size, policy.action_size) == (4, 2)
    assert policy.deterministic
    assert ope.load_policy(folder / name, **options).has_density


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("policy.pkl", {}, r"ends in \.pkl; a policy is a \.safetensors"),
        ("policy", {}, "ends in nothing"),
        ("policy.safetensors", {"trust": True}, r"trust does not apply to a \.safetensors"),
        ("policy.safetensors", {"vec_normalize": "x"}, "vec_normalize does not apply"),
        ("policy.onnx", {"action_spec": BOX, "trust": True}, "trust does not apply"),
        ("policy.onnx", {"action_spec": BOX, "activation": "tanh"}, "activation does not apply"),
        ("policy.onnx", {}, r"\.onnx file does not say its action_spec"),
        ("policy.pt", {"trust": True}, "does not say its state_size, action_spec"),
        ("policy.zip", {"gives": "logits"}, "gives does not apply"),
    ],
)
def test_options_that_do_not_apply_are_refused(name, options, words, folder):
    with pytest.raises(ope.ConfigError, match=words):
        ope.load_policy(folder / name, **options)


def test_a_policy_of_another_action_space_is_refused(folder):
    with pytest.raises(ope.PolicyError, match=r"'continuous'.*of another environment"):
        ope.load_policy(folder / "policy.zip", action_spec=BOX)


@pytest.mark.parametrize("ending", [".safetensors", ".zip", ".onnx", ".pt"])
def test_broken_files_are_named(ending, tmp_path):
    options = {".onnx": {"action_spec": BOX}}
    options[".pt"] = {"action_spec": BOX, "state_size": 4, "trust": True}
    path = tmp_path / f"broken{ending}"
    with pytest.raises(ope.DataError, match="There is no policy file"):
        ope.load_policy(path, **options.get(ending, {}))
    path.write_bytes(b"broken")
    with pytest.raises(ope.DataError, match=r"broken\.\w+ is not a"):
        ope.load_policy(path, **options.get(ending, {}))


def test_an_actor_file_without_its_tensors_is_refused(folder, tmp_path):
    from safetensors.torch import save_file

    metadata = {"format": "lfiw-ope actor 2", "head": "gaussian", "activation": "tanh"}
    for tensors in ({"x": torch.zeros(1)}, {"network.weights.0": torch.zeros(1, 4, 2)}):
        save_file(tensors, tmp_path / "lacking.safetensors", metadata=metadata)
        with pytest.raises(ope.DataError, match="lacks the tensors of an actor"):
            ope.load_actor(tmp_path / "lacking.safetensors")
    save_file({"x": torch.zeros(1)}, tmp_path / "other.safetensors", metadata={"format": "other"})
    with pytest.raises(ope.DataError, match="says its format is 'other'"):
        ope.load_actor(tmp_path / "other.safetensors")
    policy = ope.load_actor(folder / "policy.safetensors")
    with pytest.raises(ope.PolicyError, match="stack of 2"):
        ope.save_actor(policy.stack([policy]), tmp_path / "two.safetensors")
    with pytest.raises(ope.PolicyError, match="UniformPolicy is no MLPPolicy"):
        ope.save_actor(ope.UniformPolicy(4, BOX), tmp_path / "uniform.safetensors")


def test_a_zip_of_other_things_is_refused(tmp_path):
    for name, said in (("empty.zip", None), ("list.zip", "[]"), ("no_spaces.zip", "{}")):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            if said is not None:
                archive.writestr("data", said)
        with pytest.raises(ope.DataError, match="stable-baselines3"):
            ope.load_policy(tmp_path / name)


def with_tensors(source, target, content):
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, content if name == "policy.pth" else old.read(name))
    return target


def test_tensors_without_names_are_refused(folder, tmp_path):
    torch.save({"x": torch.zeros(()), 3: torch.zeros(1)}, tmp_path / "policy.pth")
    content = (tmp_path / "policy.pth").read_bytes()
    path = with_tensors(folder / "policy.zip", tmp_path / "numbered.zip", content)
    with pytest.raises(ope.DataError, match="no tensors by name"):
        ope.load_policy(path)


def test_what_is_no_file_of_tensors_is_refused_without_torch_s_advice(folder, tmp_path):
    path = with_tensors(folder / "policy.zip", tmp_path / "other.zip", b"neither zip nor tensors")
    with pytest.raises(ope.UntrustedFileError, match="more than tensors") as refused:
        ope.load_policy(path)
    assert "weights_only" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("what", ["state_dict", "module"])
def test_what_torch_saved_is_no_torchscript(what, tmp_path):
    module = nn.Linear(4, 2)
    torch.save(module if what == "module" else module.state_dict(), tmp_path / "saved.pt")
    with pytest.raises(ope.DataError, match=r"not a TorchScript archive.*from_module") as refused:
        ope.load_policy(tmp_path / "saved.pt", state_size=4, action_spec=BOX, trust=True)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("trust", [False, True])
def test_a_zip_is_held_to_its_environment(trust, tmp_path):
    path = tmp_path / "agent.zip"
    PPO("MlpPolicy", "Pendulum-v1", device="cpu", n_steps=64).save(path)
    here, other = (ope.ActionSpec.continuous(-bound, bound) for bound in (2.0, 5.0))
    policy = ope.load_policy(path, trust=trust, state_size=3, action_spec=here)
    assert policy.action_spec == here
    with pytest.raises(ope.PolicyError, match="of another environment"):
        ope.load_policy(path, trust=trust, action_spec=other)
    with pytest.raises(ope.PolicyError, match=r"state_size is 99.* takes 3 state entries"):
        ope.load_policy(path, trust=trust, state_size=99)


@pytest.mark.parametrize("name", ["policy.onnx", "policy.safetensors"])
def test_any_file_is_held_to_its_environment(name, folder):
    with pytest.raises(ope.PolicyError, match=r"state_size is 5.* takes 4"):
        ope.load_policy(folder / name, state_size=5, action_spec=DISCRETE)
    if name == "policy.safetensors":
        with pytest.raises(ope.PolicyError, match="of another environment"):
            ope.load_policy(folder / name, action_spec=BOX)


@pytest.mark.parametrize("name", READERS)
def test_a_network_s_outputs_are_no_discrete_actions(name, folder):
    policy = READERS[name](folder / name, action_spec=DISCRETE)
    with pytest.raises(ope.PolicyError, match="not one-hot"):
        policy.act(states(), generator())
