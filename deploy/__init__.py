"""What is made of this project: lock files, images and what they hold."""
