"""From source files to the store: readers, validation, splits, and the store itself."""
