"""Everything that starts Nix or reads what Nix prints. `sets` has one module for each kind of package set."""
