"""Offline training of codec and classifier, evaluation and export."""
