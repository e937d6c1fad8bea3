"""Where the files are that come with the package but are not Python: Nix expressions and sample settings."""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def _shipped(installed: str, checkout: str) -> Path:
    inside = _PACKAGE / installed
    return inside if inside.is_dir() else _PACKAGE.parent / checkout


#: The folder of the Nix expressions: inside an installed package, or `nix/` of a checkout.
EXPRESSIONS = _shipped("expressions", "nix")
#: The folder of the sample settings: inside an installed package, or `config/` of a checkout.
SAMPLES = _shipped("samples", "config")
