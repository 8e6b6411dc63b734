"""The networks: pixel classifier, analysis and synthesis transform, prior, latent classifier."""
