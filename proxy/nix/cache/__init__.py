"""Store paths of binary caches, without a Nix store: layers come straight from the archives (NARs) that a cache has.

`closure` walks the narinfos of an image. `files` turns NARs into the members of layers, while they arrive.
"""
