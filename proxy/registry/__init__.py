"""The backing registry: its address, login, client, the embedded program, and its management side."""
