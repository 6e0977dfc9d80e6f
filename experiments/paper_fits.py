"""The logs and the fits that `paper_table.py` evaluates, kept in a folder so that runs go on.

    OMP_NUM_THREADS=1 python experiments/paper_fits.py --cache /tmp/paper swimmer half_cheetah

A log is 500 or 2000 episodes of a task's behaviour policy; the smaller is the beginning of the
larger. Everything of a cell follows from its seed. Training length is the same for all and the
library's default; each network ends with its weights of lowest held-out loss.
"""

import argparse
import itertools
from pathlib import Path

import numpy as np
from lfiw_envs import TASKS, get_task

import lfiw_ope as ope
from lfiw_ope.data.split import EpisodeSplit

SEEDS = range(5)
EPISODES = (500, 2000)  # of 100 steps: 5e4 and 2e5 transitions
RATIO_SHARE = 0.3  # of the episodes, kept from the dynamics for the classifiers
UPDATES = 4000


def cells(tasks=()):
    """(seed, episodes, task), seed by seed, so that a stopped run has every task."""
    for name in tasks:
        get_task(name)  # says what there is, if this is none
    return list(itertools.product(SEEDS, EPISODES, tasks or TASKS))


def dynamics_config(noise):
    fit = ope.FitConfig(updates=UPDATES, precision="bfloat16")
    return ope.DynamicsConfig(
        activation="silu", layer_norm=False, member_episodes="all", noise=noise, fit=fit
    )


def log_of(name, seed, episodes, cache):
    """The first episodes of a task's log, played once and kept."""
    path = cache / f"{name}_{seed}.npz"
    if not path.exists():
        task = get_task(name)
        env = task.make_vector(50)
        behaviour = ope.load_actor(task.policy_path("behaviour"))
        log = ope.collect(env, behaviour, episodes=max(EPISODES), seed=seed)
        env.close()
        partial = path.with_name(f"{path.stem}.{np.random.SeedSequence().entropy}.npz")
        np.savez(
            partial,
            states=log.states,
            actions=log.actions,
            rewards=log.rewards,
            low=log.action_spec.low,
            high=log.action_spec.high,
        )
        partial.replace(path)
    with np.load(path) as kept:
        count, steps = max(EPISODES), get_task(name).horizon
        log = ope.Trajectories(
            states=kept["states"],
            actions=kept["actions"],
            rewards=kept["rewards"],
            lengths=np.full(count, steps),
            terminated=np.zeros(count, bool),
            truncated=np.ones(count, bool),
            action_spec=ope.ActionSpec.continuous(kept["low"], kept["high"]),
        )
    return log.first(episodes)


def checkpoints(name, seed, episodes, noise, cache):
    """The folder where a cell's training is kept."""
    return cache / f"{name}_{seed}_{episodes}_{noise}"


def fit_dynamics(name, seed, episodes, noise, cache):
    """The ensemble of a cell: the one that `LFIW.fit` fits with this seed and share."""
    data = log_of(name, seed, episodes, cache)
    split = EpisodeSplit.draw(data.num_episodes, seed, RATIO_SHARE)
    return ope.fit_dynamics(
        data,
        dynamics_config(noise),
        seed,
        train=split.dynamics.tolist(),
        held_out=split.dynamics_held_out.tolist(),
        checkpoint=checkpoints(name, seed, episodes, noise, cache) / "dynamics.pt",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="*", help="of these alone")
    parser.add_argument(
        "--noise", choices=("gaussian", "heteroscedastic"), help="of this kind alone"
    )
    parser.add_argument("--cache", type=Path, required=True)
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    for noise in (options.noise,) if options.noise else ("gaussian", "heteroscedastic"):
        for seed, episodes, name in cells(options.tasks):
            tell(
                fit_dynamics(name, seed, episodes, noise, options.cache),
                noise,
                name,
                seed,
                episodes,
            )


def tell(dynamics, noise, name, seed, episodes):
    report = dynamics.report
    losses = ", ".join(f"{loss:.4g}" for loss in report.held_out_loss)
    print(
        f"{name} seed {seed} {episodes} episodes {noise}: held-out {losses} "
        f"at {report.best_update} of {report.updates}, {report.seconds:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
