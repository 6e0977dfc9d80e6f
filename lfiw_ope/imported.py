"""Objects of the user's by their import path: `package.module:NAME`."""

import importlib
import sys
from pathlib import Path
from typing import Any

from lfiw_ope.errors import ConfigError


def import_object(path: str) -> Any:
    """What stands at `package.module:NAME`; modules of the folder that one is in are found too.

    Importing a module runs it, which the user wished by naming it.

    Raises:
        ConfigError: if it cannot be imported, or there is no such object in it.
    """
    module, _, name = path.partition(":")
    here = str(Path.cwd())  # where a module that is no package stands
    sys.path.insert(0, here)
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:  # a module may raise anything while it is imported
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigError(f"{path} cannot be imported ({reason}).") from error
    finally:
        sys.path.remove(here)
        if here not in sys.path:
            # Last, where it hides nothing: processes that are started later import it too.
            sys.path.append(here)
