"""Native kernels for recurrences on the CPU: compiled at first use, and done without where there is no compiler."""
