"""What operators see of a running nixfront: log, metrics, traces, one line for each request."""
