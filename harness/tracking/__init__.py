"""Records shown elsewhere: MLflow."""
