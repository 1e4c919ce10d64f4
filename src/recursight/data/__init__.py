"""From anybody's images to one store: readers, validation, splits, and the store itself."""
