"""What stands behind live sources: opening, reading, watching and scoring cameras."""
