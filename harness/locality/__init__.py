"""What self-attention looks at: how near, how flat, and what is lost where it is replaced."""
