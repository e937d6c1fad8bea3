"""The only place where settings become objects. It opens them, connects them, and closes them in reverse order."""
