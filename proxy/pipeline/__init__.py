"""One image, from a request to a manifest in a destination."""
