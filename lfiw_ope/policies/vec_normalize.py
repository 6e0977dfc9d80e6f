"""The statistics of a stable-baselines3 `VecNormalize`, read from its pickle without executing it.

A pickle is a program: it names classes and functions, calls them and sets their state. Here each
name that a VecNormalize needs stands for an inert record of what would have been called with what,
any other name is refused, and the arrays are decoded from the records afterwards. Nothing that
the file names is ever imported or called.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lfiw_ope.core.errors import DataError, PolicyError, UntrustedFileError
from lfiw_ope.policies.mlp import ObservationNormaliser

_NORMALISER = "stable_baselines3.common.vec_env.vec_normalize.VecNormalize"
_STATISTICS = "stable_baselines3.common.running_mean_std.RunningMeanStd"
# NumPy 2 renamed numpy.core to numpy._core; both names are read as the new one.
_RECONSTRUCT = "numpy._core.multiarray._reconstruct"
_FROM_BUFFER = "numpy._core.numeric._frombuffer"
_SCALAR = "numpy._core.multiarray.scalar"
_DTYPE = "numpy.dtype"
_KNOWN = {
    *(_NORMALISER, _STATISTICS, _RECONSTRUCT, _FROM_BUFFER, _SCALAR, _DTYPE),
    *("numpy.ndarray", "collections.OrderedDict"),
}
# The observation and action spaces, and the random generators in them; kept as records, unread.
_UNREAD = ("gym.spaces.", "gymnasium.spaces.", "numpy.random.")


class _Record:
    """What a pickle wanted to make: a name, its arguments and its state."""

    name = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Record":  # noqa: ARG004
        return super().__new__(cls)

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        """An OrderedDict's entries, which nothing reads."""


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type[_Record]:
        full = f"{module}.{name}".replace("numpy.core.", "numpy._core.")
        if full not in _KNOWN and not full.startswith(_UNREAD):
            raise UntrustedFileError(
                f"the pickle asks for {module}.{name}, which the statistics of a VecNormalize do "
                "not need; it was not executed"
            )
        return type("_Record", (_Record,), {"name": full})


def load_vec_normalize(path: str | Path) -> ObservationNormaliser:
    """The observation statistics that stable-baselines3's `VecNormalize.save` wrote.

    Files of any version are read, with Gym's or Gymnasium's spaces and NumPy 1's or 2's arrays.
    Nothing in the file is executed.

    Raises:
        DataError: if there is no such file, or it is no VecNormalize.
        UntrustedFileError: if it asks for anything that a VecNormalize does not need.
        PolicyError: if it does not normalise observations, or those of a Dict.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"There is no file {path} with the statistics of a VecNormalize.")
    try:
        found = _Reader(io.BytesIO(path.read_bytes())).load()
    except UntrustedFileError as error:
        raise UntrustedFileError(f"{path} was refused: {error}.") from error
    except Exception as error:  # a broken or hostile pickle raises what it likes
        raise DataError(f"{path} is not what VecNormalize.save writes ({error}).") from error
    settings = _state_of(found, _NORMALISER, path)
    if not settings.get("norm_obs", True):
        raise PolicyError(
            f"The VecNormalize in {path} leaves observations as they are (norm_obs=False); leave "
            "vec_normalize out."
        )
    statistics = settings.get("obs_rms")
    if isinstance(statistics, dict):
        raise PolicyError(f"The VecNormalize in {path} is of Dict observations; only Box works.")
    moments = _state_of(statistics, _STATISTICS, path)
    return ObservationNormaliser.of(
        _array(moments.get("mean"), path),
        _array(moments.get("var"), path),
        epsilon=float(_array(settings.get("epsilon"), path)),
        clip=float(_array(settings.get("clip_obs"), path)),
    )


def _state_of(record: Any, name: str, path: Path) -> dict[Any, Any]:
    if not isinstance(record, _Record) or record.name != name or not isinstance(record.state, dict):
        raise DataError(f"{path} is not what VecNormalize.save writes: it has no {name}.")
    return record.state


def _array(value: Any, path: Path) -> NDArray[np.float64]:
    """An array from the record of its making, or a plain number."""
    try:
        if isinstance(value, _Record) and value.name == _RECONSTRUCT:
            _, shape, dtype, fortran, raw = value.state
            return _decoded(raw, dtype, shape, "F" if fortran else "C")
        if isinstance(value, _Record) and value.name == _FROM_BUFFER:
            raw, dtype, shape, order = value.args
            return _decoded(raw, dtype, shape, order)
        if isinstance(value, _Record) and value.name == _SCALAR:
            dtype, raw = value.args
            return _decoded(raw, dtype, (), "C")
        if isinstance(value, int | float):
            return np.asarray(value, np.float64)
    except (TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path} holds an array that cannot be read ({error}).") from error
    raise DataError(f"{path} holds a {type(value).__name__} where an array or number was expected.")


def _decoded(raw: Any, dtype: Any, shape: Any, order: Any) -> NDArray[np.float64]:
    """Numbers from their bytes.

    Raises:
        ValueError: if they are not bytes of plain numbers; arrays of objects are none.
    """
    code, endian = str(dtype.args[0]), str(dtype.state[1]).replace("|", "=")
    known = code in {"f2", "f4", "f8", "i4", "i8", "u1"} and endian in {"<", ">", "="}
    if dtype.name != _DTYPE or not known or not isinstance(raw, bytes | bytearray):
        raise ValueError(f"dtype {code!r} is not one of plain numbers")
    flat = np.frombuffer(raw, np.dtype(endian + code))
    return flat.reshape(shape, order="F" if order == "F" else "C").astype(np.float64)
