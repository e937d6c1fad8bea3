"""nixfront: an aiohttp proxy before a stock registry that makes images with Nix when they are asked for."""

__version__ = "0.1.0"
