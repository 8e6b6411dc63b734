"""Recognitions to whoever watches: in this process, or through NATS to several recognizers."""
