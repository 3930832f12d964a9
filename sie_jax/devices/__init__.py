"""Where work runs: the mesh, whether a step fits, what the devices can do."""
