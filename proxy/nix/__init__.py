"""Everything that runs Nix or reads what Nix prints.

`runner` runs a command line of `commands`. `evaluate` turns names into derivations, `store` builds and fetches them,
`binary_cache` copies them for other machines. `sets` has the package sets, a module for each kind.
"""
