"""`python -m fhir_server` is `fhir-ris`."""

from fhir_server.cli import main

main()
