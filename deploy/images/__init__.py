"""Build the images of this project: the shared base, every sample and a new function."""
