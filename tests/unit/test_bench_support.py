"""What a data set supports, held against regions and policies that are known."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from lfiw_envs import LADDERS, PAPER, Ladder, Question
from scipy.stats import chi2, ncx2

import lfiw_ope as ope
from lfiw_ope.benchmark import (
    INSIDE,
    DataSupport,
    Pairs,
    Region,
    dataset,
    digest,
    measure_support,
    pairs_at,
    step_weights,
    write_support,
)
from lfiw_ope.benchmark import support as support_file
from lfiw_ope.policies import CategoricalHead, GaussianHead

ONE_STEP = {"T1": Question(1, 1.0)}


def log_of(states, actions, spec, lengths):
    """Episodes of these lengths; `[R + N, S]` and `[R, A]`."""
    n = len(lengths)
    return ope.Trajectories(
        states=states,
        actions=actions,
        rewards=np.zeros(len(actions)),
        lengths=lengths,
        terminated=np.zeros(n, bool),
        truncated=np.ones(n, bool),
        action_spec=spec,
    )


def normal_pairs(rng, n, shift=0.0):
    """States of two entries and actions of one, N(0, I) but for the shift of the first of them."""
    drawn = rng.normal(size=(n, 3)).astype(np.float32)
    drawn[:, 0] += shift
    return Pairs(drawn[:, :2], drawn[:, 2:])


def normal_log(rng, episodes):
    """Of one step each. Units differ by a million, which must not matter."""
    state, action = normal_pairs(rng, episodes)
    states = np.repeat(state, 2, 0) * [1.0, 1e6]
    unbounded = ope.ActionSpec.continuous([-np.inf], [np.inf])
    return log_of(states, action, unbounded, np.ones(episodes, int))


@pytest.mark.parametrize("shift", [0.0, 1.0, 2.0, 3.0])
def test_the_share_is_that_of_the_region_of_highest_density(shift):
    """Of N(0, I) that region is a ball, and the share of N(shift, I) in it is a χ² of non-central.

    The share of 2000 pairs has a standard error of 0.011 at most; that of the radius, another
    quantile of 2000, moves it by less. Distances to neighbours blur the edge of the ball, by 0.02.
    """
    rng = np.random.default_rng(1)
    support = DataSupport.of(normal_log(rng, 20_000), ONE_STEP, seed=0)
    state, action = normal_pairs(rng, 2000, shift)
    share = support.share(Pairs(state * np.float32([1.0, 1e6]), action))
    exact = ncx2.cdf(chi2.ppf(INSIDE, 3), 3, shift**2) if shift else INSIDE
    assert share == pytest.approx(exact, abs=4 * 0.011 + 0.02)


def test_only_the_pairs_of_the_same_discrete_action_are_near():
    rng = np.random.default_rng(2)
    state = rng.normal(size=(300, 2)).astype(np.float32)
    right = (state[:, 0] > 0).astype(int)
    action = np.eye(3, dtype=np.float32)[right]  # the third is never done
    region = Region.of(
        Pairs(state[:200], action[:200]), Pairs(state[200:], action[200:]), "discrete"
    )
    assert region.holds(Pairs(state[200:], action[200:])).mean() == pytest.approx(INSIDE, abs=0.011)
    far = np.abs(state[:, 0]) > 1
    swapped = Pairs(state[far], action[far][:, [1, 0, 2]])
    assert region.holds(swapped).mean() < 0.05
    never = Pairs(state, np.tile(np.float32([0, 0, 1]), (300, 1)))
    assert not region.holds(never).any()


def test_what_is_repeated_to_the_last_bit_is_inside():
    state = np.eye(4, dtype=np.float32)[np.arange(200) % 3]
    action = np.tile(np.float32([1, 0]), (200, 1))
    region = Region.of(
        Pairs(state[:100], action[:100]), Pairs(state[100:], action[100:]), "discrete"
    )
    assert region.holds(Pairs(state, action)).all()
    fourth = np.tile(np.float32([0, 0, 0, 1]), (1, 1))
    assert not region.holds(Pairs(fourth, action[:1])).any()


def test_pairs_are_those_of_the_rows():
    spec = ope.ActionSpec.continuous([-np.inf], [np.inf])
    states = np.arange(7.0)[:, None]  # 0 1 2 | 3 4 5 6
    log = log_of(states, np.arange(5.0)[:, None], spec, [2, 3])
    found = pairs_at(log, np.array([4, 0, 2]))
    assert found.state[:, 0].tolist() == [5.0, 0.0, 3.0]
    assert found.action[:, 0].tolist() == [4.0, 0.0, 2.0]


def test_a_step_weighs_what_the_questions_make_of_it():
    spec = ope.ActionSpec.continuous([-np.inf], [np.inf])
    log = log_of(np.zeros((7, 1)), np.zeros((5, 1)), spec, [4, 1])
    found = step_weights({"T2": Question(2, 1.0), "g0.5": Question(3, 0.5)}, log)
    first, second, third = (1 / 2 + 4 / 7) / 2, (1 / 2 + 2 / 7) / 2, (1 / 7) / 2
    np.testing.assert_allclose(found, [first, second, third, 0.0, first])


@pytest.fixture(scope="module")
def pendulum(tmp_path_factory):
    """Policies that push by N(mean, 0.3²) whatever they see, further and further from 0."""
    folder = tmp_path_factory.mktemp("pendulum")
    for name, mean in (("none", 0.0), ("little", 0.3), ("more", 0.8), ("most", 1.6)):
        actor = ope.MLPPolicy.from_layers(
            [torch.zeros(3, 1)],
            [torch.tensor([mean])],
            GaussianHead(torch.full((1, 1), np.log(0.3)), *(s * torch.ones(1, 1) for s in (-2, 2))),
            activation="tanh",
        )
        ope.save_actor(actor, folder / f"{name}.safetensors")
    return Ladder(
        name="pendulum_pushes",
        env_id="Pendulum-v1",
        targets=("none", "little", "more", "most"),
        recipes={"idle": ("none",), "both": ("none", "most")},
        folder=folder,
        episode=40,
        questions={"T40": Question(40, 1.0), "g0.9": Question(40, 0.9)},
    )


def test_support_falls_with_the_distance_from_the_data(pendulum):
    data = dataset(pendulum, "idle", 4000, 0, cache=None)
    shares = [measure_support(pendulum, one, data, seed=0, played=4000) for one in pendulum.targets]
    # If an episode lay in or out as one, the policy's 100 and the halves' 50 would leave a standard
    # error of (0.0475 (1 / 100 + 1 / 100))^1/2 = 0.031.
    assert shares[0] == pytest.approx(INSIDE, abs=min(0.05, 3 * 0.031))
    assert shares == sorted(shares, reverse=True)
    assert shares[0] - shares[1] > 0.05  # one deviation of the noise is seen
    assert shares[3] < 0.05
    again = measure_support(pendulum, "more", data, seed=0, played=4000)
    assert again == shares[2]
    assert measure_support(pendulum, "more", data, seed=1, played=4000) != again


def test_an_action_that_nobody_took_is_not_supported(tmp_path):
    for name, lean in (("left", -20.0), ("right", 20.0)):
        actor = ope.MLPPolicy.from_layers(
            [torch.zeros(4, 2)], [torch.tensor([-lean, lean])], CategoricalHead(), activation="tanh"
        )
        ope.save_actor(actor, tmp_path / f"{name}.safetensors")
    recipes = {"right": ("right",)}
    ladder = Ladder(
        name="leaning",
        env_id="CartPole-v1",
        targets=("left", "right"),
        recipes=recipes,
        folder=tmp_path,
    )
    data = dataset(ladder, "right", 1000, 0, cache=None)
    assert measure_support(ladder, "left", data, seed=0, played=500) == 0.0
    # 54 episodes of ten steps, against the halves' 54: as above, 0.0475 (1 / 54 + 1 / 108).
    share = measure_support(ladder, "right", data, seed=0, played=500)
    assert share == pytest.approx(INSIDE, abs=0.05)


def test_too_few_episodes_and_another_environment_are_said(pendulum):
    data = dataset(pendulum, "idle", 360, 0, cache=None)
    with pytest.raises(ope.DataError, match=r"9 episodes; support needs 10"):
        measure_support(pendulum, "none", data, seed=0, played=40)
    other = normal_log(np.random.default_rng(0), 100)
    with pytest.raises(ope.DataError, match=r"\(3, 1\) entries where the data's have \(2, 1\)"):
        measure_support(pendulum, "none", other, seed=0, played=40)
    with pytest.raises(ValueError, match="no policy 'nobody'"):
        measure_support(pendulum, "nobody", data, seed=0)


SMALL = {"transitions": 1000, "played": 400}


def test_the_file_is_gone_on_with(pendulum, tmp_path, monkeypatch):
    for path in pendulum.folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    ladder = replace(pendulum, folder=tmp_path)
    with pytest.raises(ValueError, match="measure it first"):
        ladder.support("none", "idle")
    write_support(ladder, data=["idle"], **SMALL)
    assert ladder.support("none", "idle") > 0.7 > ladder.support("most", "idle")
    with pytest.raises(ValueError, match="does not say how 'both' supports 'none'"):
        ladder.support("none", "both")

    made = []

    def told(ladder, name, *rest, **options):
        made.append(name)
        return dataset(ladder, name, *rest, **options)

    monkeypatch.setattr(support_file, "dataset", told)
    path = write_support(ladder, **SMALL)
    assert made == ["both"]
    assert ladder.support("most", "both") > 0.7
    whole = path.read_bytes()
    assert write_support(ladder, **SMALL).read_bytes() == whole
    assert made == ["both"]
    stored = json.loads(whole)
    assert stored["supported"] == 0.8
    assert stored["support"].keys() == ladder.recipes.keys()
    # Measured at once, it is the same.
    path.unlink()
    assert write_support(ladder, **SMALL).read_bytes() == whole

    with pytest.raises(ope.ConfigError, match="measured with another seed; remove it"):
        write_support(ladder, seed=1, **SMALL)
    made.clear()
    (tmp_path / "most.safetensors").write_bytes((tmp_path / "little.safetensors").read_bytes())
    write_support(ladder, **SMALL)
    assert made == ["idle", "both"]  # "most" is another policy now, and made "both"
    made.clear()
    write_support(replace(ladder, recipes={**ladder.recipes, "both": ("little",)}), **SMALL)
    assert made == ["both"]  # it is made by others now
    assert ladder.support("most", "idle") > 0.3
    path.write_text("{}")
    with pytest.raises(ope.DataError, match="holds no support of a ladder"):
        write_support(ladder, **SMALL)


def test_shipped_support_is_of_the_shipped_policies():
    for ladder in (*LADDERS.values(), *PAPER.values()):
        stored = json.loads(ladder.support_path.read_text(encoding="utf-8"))
        assert stored["files"] == {one: digest(ladder.policy_path(one)) for one in ladder.policies}
        assert stored["recipes"] == {name: list(of) for name, of in ladder.recipes.items()}
        shares = [ladder.support(one, data) for one in ladder.targets for data in ladder.recipes]
        assert all(0.0 <= share <= 1.0 for share in shares)
