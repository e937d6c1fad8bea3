"""What nixfront changes in a reply of the registry: which manifest a client gets, conditions, and lists of tags."""
