"""The rules of FHIR R4 search, written down as a program: slow, plain, and independent of the server's own search.

A list of resources is judged one by one, in memory, without any index. `tests/test_search_oracle.py` compares what the server
finds with what is found here; `tests/test_search_oracle_itself.py` shows each rule by examples. Only the extraction of values
(`fhir_server.search.paths`) and the tables of the standard (`fhir_server.definitions`) are shared with the server.

One file a group of parameter types; section numbers are those of the R4 search page (hl7.org/fhir/R4/search.html).
"""

from tests.search_oracle.oracle import Oracle

__all__ = ["Oracle"]
