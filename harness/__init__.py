"""The sockets and the run: cases, records, models, metrics, distillation, and the sweep that joins them."""
