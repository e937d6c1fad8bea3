"""nixfront: an aiohttp proxy before a stock registry that makes images with Nix when clients pull them."""

__version__ = "0.1.0"
