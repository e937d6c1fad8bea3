"""Helpers for asyncio and processes. No word here belongs to registries, images or Nix."""
