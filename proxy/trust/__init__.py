"""What can be said about an image beside its bytes, such as who made it. Pure."""
