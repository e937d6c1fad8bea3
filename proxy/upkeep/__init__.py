"""What an operator does to a registry from outside: warm, prune, reindex, explain, take a census."""
