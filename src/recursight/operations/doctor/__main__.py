"""One check, in a process of its own."""

from recursight.operations.doctor.examination import main

main()
