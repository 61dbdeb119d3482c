"""What a number is and how it is kept: cases, readings, records, the store, machines. No torch."""
