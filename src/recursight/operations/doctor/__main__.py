"""Runs one check in a separate process."""

from recursight.operations.doctor.examination import main

main()
