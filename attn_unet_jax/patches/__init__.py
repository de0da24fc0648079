"""From cases to the patches of a step: which patch when, cropped on the device or on the host."""
