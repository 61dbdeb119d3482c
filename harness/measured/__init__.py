"""What is timed or weighed where it runs."""
