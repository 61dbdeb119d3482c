"""What looks at images and says how good they are."""
