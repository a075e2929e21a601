"""Safety of an examination: what patients are asked (`screening.toml`), what their charts say (`facts.toml`), and what that does.

`tables.py` reads the two tables, `questionnaires.py` makes them FHIR Questionnaires, `answers.py` judges what was answered and
tells it to the chart, `findings.py` finds what speaks against an examination, `issues.py` keeps that as DetectedIssues,
`clearance.py` lets a radiologist decide.
"""
