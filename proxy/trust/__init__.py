"""What can be said about an image beside its bytes: bills of materials, provenance, and the artifacts that hold them. Pure.

The libraries of the formats take long to load, so only the child process that `__main__` describes loads them.
"""
