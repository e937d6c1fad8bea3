"""Who builds what, and when: the coordinator, the board of builds, logs, and tags that move."""
