"""The world outside in small: an EHR, apps and a scanner, and the play of one imaging order between them and fhir-ris.

Nothing here is part of the product. The play, the failure tests and the benchmarks share these clients.
"""
