"""What differs between two versions, and a data set of DICOM, as rows for a page."""

from console.dicom_view import rows
from console.differences import Difference, changed, differences, elements

_WAS = {
    "resourceType": "Task",
    "id": "1",
    "meta": {"versionId": "1", "lastUpdated": "2026-11-29T08:00:00Z"},
    "status": "requested",
    "identifier": [{"value": "a"}, {"value": "b"}],
    "restriction": {"period": {"start": "08:00"}},
}


def test_each_element_that_differs_is_a_row_and_what_always_differs_is_none() -> None:
    now = _WAS | {"meta": {"versionId": "2", "lastUpdated": "x"}, "status": "accepted", "note": [{"text": "n"}]}
    now.pop("restriction")
    assert differences(_WAS, now) == (
        [
            Difference("status", "requested", "accepted"),
            Difference("note[0].text", None, "n"),
            Difference("restriction.period.start", "08:00", None),
        ],
        0,
    )
    assert [d.kind for d in differences(_WAS, now)[0]] == ["changed", "added", "removed"]
    assert changed(_WAS, now) == ["status", "note", "restriction"]
    assert differences(_WAS, _WAS) == ([], 0)


def test_one_more_item_at_the_beginning_of_a_list_is_one_row() -> None:
    now = _WAS | {"identifier": [{"value": "0"}, {"value": "a"}, {"value": "b"}]}
    assert differences(_WAS, now)[0] == [Difference("identifier[0].value", None, "0")]
    assert differences(now, _WAS)[0] == [Difference("identifier[0].value", "0", None)]


def test_values_are_shown_as_json_has_them_and_long_ones_are_cut() -> None:
    found = differences({"a": 1, "b": True, "c": "x" * 5}, {"a": 0, "b": False, "c": "y" * 1000, "d": {"e": 1}})[0]
    assert [(d.path, d.before, (d.after or "")[:3]) for d in found] == [
        ("a", "1", "0"),
        ("b", "true", "fal"),
        ("c", "xxxxx", "yyy"),
        ("d.e", None, "1"),
    ]
    assert (found[2].after or "").endswith("… (1,000)")


def test_an_element_of_another_kind_goes_and_comes() -> None:
    found = differences({"a": "text"}, {"a": {"b": [1]}})[0]
    assert found == [Difference("a", "text", None), Difference("a.b[0]", None, "1")]


def test_too_many_rows_are_counted_and_long_lists_compared_in_place() -> None:
    shown, left_off = elements({"list": [{"n": n} for n in range(1000)]})
    assert (len(shown), left_off) == (400, 600)


def test_a_data_set_has_names_values_and_its_sequences_inside() -> None:
    before = {"00400252": {"vr": "CS", "Value": ["IN PROGRESS"]}}
    data = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Roe^Jane"}]},
        "00400252": {"vr": "CS", "Value": ["COMPLETED"]},
        "00400270": {"vr": "SQ", "Value": [{"00080050": {"vr": "SH", "Value": ["A1"]}}, {"00080050": {"vr": "SH"}}]},
        "00091001": {"vr": "UN", "InlineBinary": "AAAA"},
    }
    found = rows(data, before)
    assert [(r.tag, r.name, r.value, r.depth, r.item) for r in found] == [
        ("0009,1001", "", "(3 bytes)", 0, 0),
        ("0010,0010", "Patient's Name", "Roe^Jane", 0, 0),
        ("0040,0252", "Performed Procedure Step Status", "COMPLETED", 0, 0),
        ("0040,0270", "Scheduled Step Attributes Sequence", "", 0, 0),
        ("0008,0050", "Accession Number", "A1", 1, 1),
        ("0008,0050", "Accession Number", "", 1, 2),
    ]
    assert [r.fresh for r in found[:3]] == [True, True, True]
    assert not any(r.fresh for r in rows(data, data))
    assert not any(r.fresh for r in rows(data))
