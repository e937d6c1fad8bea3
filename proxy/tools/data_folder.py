"""Where nixfront keeps its files. It loads little, so that a quick command may ask."""

import os
from pathlib import Path


def data_folder(configured: str) -> Path:
    """The absolute data folder. An empty `configured` means the usual one of this user."""
    if configured:
        return Path(configured).expanduser().absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/nixfront")
    state = os.environ.get("XDG_STATE_HOME") or "~/.local/state"
    return Path(state).expanduser().absolute() / "nixfront"
