"""Compare images of a new function, in both shapes, with the shape of the official python3-http template."""
