"""Logged data and where they come from."""

from lfiw_ope.data.arrays import from_arrays
from lfiw_ope.data.censoring import PaddedEpisodes, known_steps
from lfiw_ope.data.collect import Recorder
from lfiw_ope.data.files import (
    FILES,
    load_d4rl,
    load_data,
    load_npz,
    log_arrays,
    save_npz,
    write_npz,
)
from lfiw_ope.data.memory import READING, available_memory, check_fits
from lfiw_ope.data.minari import load_minari, require_dataset_id, save_minari
from lfiw_ope.data.rules import Agreement, compare_rules
from lfiw_ope.data.sb3 import from_sb3_buffer, load_sb3_buffer
from lfiw_ope.data.spaces import (
    action_spec,
    decode_actions,
    encode_actions,
    flatten_states,
    gymnasium,
    spaces_of,
    state_size,
)
from lfiw_ope.data.split import DIFFERENT, EpisodeSplit, require_episodes
from lfiw_ope.data.summary import Description, Spread, describe
from lfiw_ope.data.tensors import (
    ROWS_AT_ONCE,
    DeviceLog,
    MemberRows,
    TransitionTensors,
    bootstrapped,
    leave_group_out,
    left_out_groups,
    thin,
)
from lfiw_ope.data.trajectories import FloatArray, Trajectories

__all__ = [
    "DIFFERENT",
    "FILES",
    "READING",
    "ROWS_AT_ONCE",
    "Agreement",
    "Description",
    "DeviceLog",
    "EpisodeSplit",
    "FloatArray",
    "MemberRows",
    "PaddedEpisodes",
    "Recorder",
    "Spread",
    "Trajectories",
    "TransitionTensors",
    "action_spec",
    "available_memory",
    "bootstrapped",
    "check_fits",
    "compare_rules",
    "decode_actions",
    "describe",
    "encode_actions",
    "flatten_states",
    "from_arrays",
    "from_sb3_buffer",
    "gymnasium",
    "known_steps",
    "leave_group_out",
    "left_out_groups",
    "load_d4rl",
    "load_data",
    "load_minari",
    "load_npz",
    "load_sb3_buffer",
    "log_arrays",
    "require_dataset_id",
    "require_episodes",
    "save_minari",
    "save_npz",
    "spaces_of",
    "state_size",
    "thin",
    "write_npz",
]
