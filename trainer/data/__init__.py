"""Faces with labels, from the layouts in which datasets are published."""
