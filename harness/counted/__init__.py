"""What is computed without running: FLOPs, parameters, projected memory."""
