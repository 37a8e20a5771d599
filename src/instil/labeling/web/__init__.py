"""The pages of the labeling server: what labelers, leads and viewers see in a browser."""
