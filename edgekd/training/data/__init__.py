"""Data sets: readers, lint, augmentation and training batches. Only `loader` imports torch."""
