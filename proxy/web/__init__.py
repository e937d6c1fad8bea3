"""What becomes of an HTTP request: pass it through, intercept it, let it wait, or refuse it."""
