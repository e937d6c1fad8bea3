"""What an image is, byte for byte. Standard library alone, because a Nix build runs this folder too (`nix_build`)."""
