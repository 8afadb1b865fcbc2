"""End to end: images of functions, run as Kubernetes runs them."""
