"""Reading: the worklist of the radiologists, the report with its editor, and critical results.

worklist.py   what waits to be read, and who takes it        examination.py  what a report is about, for whoever reads it
editor.py     the report page of a reading, and autosave      finished.py     a report as it stands, and as it goes out
comparison.py  the earlier studies that it was compared with   compared.py    these in words
findings.py   its structured findings
after.py      what may follow: addendum, correction, withdrawal, and that somebody must be told
critical.py   critical results, and who was told
"""

from console.screen import Door, Screen, does, shows
from console.screens.reading import after, comparison, critical, editor, findings, finished, worklist

SCREEN = Screen("reading", "/reading", "r", "$claim")
_READS = "DiagnosticReport.r"
_REPORT = "/reading/reports/{id}"

DOORS: list[Door] = [
    shows("/reading", worklist.show),
    does("/reading/next", worklist.claim_next, worklist.show),
    # Referrers acknowledge what they were told, and read their patients' reports.
    shows("/reading/critical", critical.show_list, "$acknowledge", alone=True),
    shows("/reading/critical/{id}", critical.show, "$acknowledge", alone=True),
    does("/reading/critical/{id}", critical.acknowledge, critical.show, "$acknowledge", alone=True),
    shows(_REPORT, finished.show, _READS, alone=True),
    shows(_REPORT + "/documents/{n}", finished.document, _READS, alone=True),
    shows(_REPORT + "/text", editor.text, "$write"),
    does(_REPORT + "/write", editor.write, editor.show_of_report, "$write"),
    does(_REPORT + "/compare", comparison.change, editor.show_of_report, "$write"),
    does(_REPORT + "/finding", findings.change, editor.show_of_report, "$write"),
    does(_REPORT + "/sign", editor.sign, editor.show_of_report, "$sign"),
    *(shows(f"{_REPORT}/{act}", after.show, f"${act}") for act in after.ACTS),
    *(does(f"{_REPORT}/{act}", after.do, after.show, f"${act}") for act in after.ACTS),
    shows("/reading/{id}", editor.show),
    does("/reading/{id}/claim", worklist.claim, worklist.again, "$claim"),
    does("/reading/{id}/release", worklist.release, worklist.again, "$release"),
    does("/reading/{id}/reassign", worklist.reassign, editor.show, "$reassign"),
    does("/reading/{id}/start", editor.start, editor.show, "$start-report"),
]
