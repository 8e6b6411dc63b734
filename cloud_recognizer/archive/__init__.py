"""Payloads on disk, where the operator asks for it, and another classifier's answers to them."""
