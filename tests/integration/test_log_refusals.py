"""Arrays and files that are no log, each refused with a sentence."""

import zipfile

import h5py
import numpy as np
import pytest
import torch
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
        ("groups.hdf5", ope.DataError, "has observations as a group"),
        ("objects.npz", ope.UntrustedFileError, "has pickled objects in observations.npy"),
        ("fortran.npz", ope.DataError, "in Fortran order"),
        ("missing.h5", ope.DataError, "There is no file"),
        ("missing.npz", ope.DataError, "There is no file"),
    ):
        with pytest.raises(error, match=message):
            ope.load_data(tmp_path / name)


@pytest.mark.parametrize("values", ["abc", 1j, np.datetime64("2020-01-01"), None], ids=str)
@pytest.mark.parametrize("name", ["observations", "rewards", "terminals"])
def test_columns_that_hold_no_real_numbers_are_refused(name, values):
    column = np.full(recorded()[name].shape, values)
    name_here = "terminated" if name == "terminals" else name
    with pytest.raises(ope.DataError, match=f"has {name_here} of type .*expected real numbers"):
        ope.from_arrays({**recorded(), name: column})


def test_what_is_no_dict_of_arrays_is_refused_and_tensors_are_read():
    with pytest.raises(ope.DataError, match="The log is a list; expected a dict of arrays"):
        ope.from_arrays([1, 2])
    ragged = [[1.0]] * (ROWS - 1) + [[1.0, 2.0]]
    with pytest.raises(ope.DataError, match=r"has observations that are no array \("):
        ope.from_arrays({**recorded(), "observations": ragged})
    tensors = {name: torch.from_numpy(values) for name, values in recorded().items()}
    expected, data = ope.from_arrays(recorded()), ope.from_arrays(tensors)
    np.testing.assert_array_equal(data.states, expected.states)
    np.testing.assert_array_equal(data.terminated, expected.terminated)
    tensors["rewards"].requires_grad_()
    with pytest.raises(ope.DataError, match="has rewards that are no array"):
        ope.from_arrays(tensors)


def flip_in_rewards(path):
    """The last byte of the rewards, as they stand in the file."""
    content = path.read_bytes()
    values = recorded()["rewards"].tobytes()
    last = content.index(values) + len(values) - 1
    path.write_bytes(content[:last] + bytes([content[last] ^ 1]) + content[last + 1 :])


def cut_rewards(path):
    """A member that ends before its last row does."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["rewards.npy"] = members["rewards.npy"][:-8]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def encrypt(path):
    """Say so in the first member's headers: bit 0 of its flags."""
    content = bytearray(path.read_bytes())
    for header, flags in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        content[content.index(header) + flags] |= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_in_rewards, "has rewards.npy, .*BadZipFile: Bad CRC-32"),
        (cut_rewards, "of rewards of .*the array is shorter than its header says"),
        (encrypt, "has observations.npy, which is no array that can be read .*encrypted"),
    ],
)
def test_archives_that_are_damaged_are_refused(damage, message, tmp_path):
    np.savez(tmp_path / "log.npz", **recorded())
    assert ope.load_data(tmp_path / "log.npz").num_transitions == ROWS
    damage(tmp_path / "log.npz")
    with pytest.raises(ope.DataError, match=message):
        ope.load_data(tmp_path / "log.npz")


def write_hdf5(path, **replaced):
    with h5py.File(path, "w") as file:
        for name, values in {**recorded(), **replaced}.items():
            if values is not None:
                file[name] = values
    return path


def test_hdf5_files_whose_columns_cannot_be_had_are_refused(tmp_path):
    path = write_hdf5(tmp_path / "log.h5", rewards=h5py.Empty("f4"))
    with pytest.raises(ope.DataError, match=r"rewards of shape \(\); expected rows"):
        ope.load_data(path)
    write_hdf5(path, rewards=h5py.SoftLink("/nowhere"))
    with pytest.raises(ope.DataError, match="has rewards that cannot be opened"):
        ope.load_data(path)
    write_hdf5(path, log_prob=None, infos=h5py.SoftLink("/nowhere"))
    assert ope.load_data(path).log_prob is None
    write_hdf5(path, rewards=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", data=recorded()["rewards"], chunks=(ROWS,), compression=9)
        place = file["rewards"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[place.byte_offset + 4] ^= 255
    path.write_bytes(content)
    with pytest.raises(ope.DataError, match=f"Rows 0 to {ROWS - 1} of rewards of .*OSError"):
        ope.load_data(path)


def test_an_hdf5_file_reads_no_other_file(tmp_path):
    other = write_hdf5(tmp_path / "other.h5")
    path = tmp_path / "log.h5"
    write_hdf5(path, rewards=h5py.ExternalLink(other, "/rewards"))
    with pytest.raises(ope.DataError, match="has rewards in another file, which is not read"):
        ope.load_data(path)
    write_hdf5(path, rewards=h5py.SoftLink("/link/rewards"), link=h5py.ExternalLink(other, "/"))
    with pytest.raises(ope.DataError, match="has rewards in another file"):
        ope.load_data(path)
    write_hdf5(path, infos=h5py.ExternalLink(other, "/"))
    with pytest.raises(ope.DataError, match="has infos/action_log_probs in another file"):
        ope.load_data(path)
    layout = h5py.VirtualLayout((ROWS,), "f8")
    layout[:] = h5py.VirtualSource(other, "rewards", (ROWS,))
    write_hdf5(path, rewards=None)
    with h5py.File(path, "a") as file:
        file.create_virtual_dataset("rewards", layout)
    with pytest.raises(ope.DataError, match="has rewards in another file"):
        ope.load_data(path)
    (tmp_path / "raw").write_bytes(recorded()["rewards"].tobytes())
    write_hdf5(path, rewards=None)
    with h5py.File(path, "a") as file:
        file.create_dataset("rewards", (ROWS,), "f8", external=[(tmp_path / "raw", 0, 8 * ROWS)])
    with pytest.raises(ope.DataError, match="has rewards in another file"):
        ope.load_data(path)
