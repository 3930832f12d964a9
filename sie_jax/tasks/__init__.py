"""What one example is: its features, outputs, loss and score."""
