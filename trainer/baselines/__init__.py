"""Image codecs that everybody has, as the yardstick of the learned one."""
