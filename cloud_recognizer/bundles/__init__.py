"""The bundles that are served: found, checked, chosen for a device, compared, rolled back."""
