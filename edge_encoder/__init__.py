"""Camera device: capture, faces, analysis transform, payload, uplink."""
