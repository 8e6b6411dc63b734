"""Recognizer: decode, batch, classify, publish."""
