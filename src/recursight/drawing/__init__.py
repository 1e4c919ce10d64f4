"""Drawing as SVG text: what the report and the pictures of tasks are made of."""
