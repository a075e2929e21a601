"""The console: the web pages for the people of a radiology department, at `/`.

It is server-rendered (docs/decisions/0031-console.md). A screen asks and does everything through the FHIR edge's own `Rest`, in
the rights of who is logged in (`asking.py`), so that no rule is written twice; what FHIR has no word for (messages, users), it
asks of the part of the product that has it.

    screens/      a module a screen: what it asks, what it does, and its addresses
    templates/    the pages, a folder a screen      texts/    every text on them, a file a language
    assets/       one style sheet, and small scripts of our own
"""
