"""Bytecode of what a build imports: Python writes it below PYTHONPYCACHEPREFIX when it imports a module."""

import importlib

# tarfile imports these two when it meets such an archive.
for name in ("build", "bz2", "lzma"):
    importlib.import_module(name)
