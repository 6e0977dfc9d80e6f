"""Arrays and files that are no log, each refused with a sentence."""

import h5py
import numpy as np
import pytest
from cartpole_log import ROWS, recorded

import lfiw_ope as ope


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reward": np.ones(3)}, "has 'reward'; known are observations, actions"),
        ({"dones": np.ones(3)}, "say whether an end is terminated or truncated"),
        ({"terminated": np.ones(3)}, "has terminated under two names"),
        ({"rewards": None}, "has no rewards"),
        ({"rewards": np.float64(1)}, r"rewards of shape \(\)"),
        ({"actions": np.ones((7, 1))}, r"actions of shape \(7, 1\); its other columns need"),
        ({"rewards": np.ones((ROWS, 2))}, "expected one number a row"),
        ({"terminals": np.full(ROWS, 0.5)}, "terminated that are neither 0 nor 1"),
        ({"rewards": np.full(ROWS, np.nan)}, f"rewards holds {ROWS} entries that are not finite"),
        ({"observations": np.arange(ROWS)}, "single whole numbers; pass observation_space="),
        ({"proposed_actions": np.ones((ROWS, 2))}, "expected 1 entries a row"),
        ({"max_episode_steps": 3}, "has 'max_episode_steps'"),
    ],
)
def test_what_is_no_log_is_refused(change, message):
    columns = {**recorded(), **change}
    columns = {name: values for name, values in columns.items() if values is not None}
    with pytest.raises(ope.DataError, match=message):
        ope.from_arrays(columns)


def test_an_empty_log_is_refused():
    with pytest.raises(ope.DataError, match="holds no transition"):
        ope.from_arrays({name: values[:0] for name, values in recorded().items()})
    with pytest.raises(ope.ConfigError, match="episodes is 0"):
        ope.from_arrays(recorded(), episodes=0)


def test_files_that_are_something_else_are_refused(tmp_path):
    (tmp_path / "text.h5").write_text("no HDF5")
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "table.csv").write_text("a,b")
    with h5py.File(tmp_path / "main_data.hdf5", "w") as file:
        file.create_group("episode_0")
    with h5py.File(tmp_path / "groups.hdf5", "w") as file:
        file.create_group("observations")
    np.savez(tmp_path / "objects.npz", observations=np.array([{"a": 1}], object))
    np.savez(tmp_path / "fortran.npz", observations=np.asfortranarray(np.ones((3, 2))))
    for name, error, message in (
        ("text.h5", ope.DataError, "is not an HDF5 file"),
        ("text.npz", ope.DataError, "is not an .npz archive"),
        ("table.csv", ope.DataError, "is no kind of file that is known"),
        ("main_data.hdf5", ope.DataError, "part of a Minari data set; load the folder"),
        ("groups.hdf5", ope.DataError, "has observations as groups"),
        ("objects.npz", ope.UntrustedFileError, "has pickled objects in observations.npy"),
        ("fortran.npz", ope.DataError, "in Fortran order"),
        ("missing.h5", ope.DataError, "There is no file"),
        ("missing.npz", ope.DataError, "There is no file"),
    ):
        with pytest.raises(error, match=message):
            ope.load_data(tmp_path / name)
