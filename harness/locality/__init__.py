"""What self-attention looks at."""
