"""Training and scoring: the mesh, the loss of a pair, the steps, the loop, what a run keeps."""
