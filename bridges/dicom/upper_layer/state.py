"""The state machine of the upper layer protocol (PS3.8 9.2, table 9-10): which action an event has in a state.

States and actions have the names of the standard's tables, so that one can be held against the other.
"""

from typing import Final, Literal, get_args

# Sta1 idle; Sta2 connection open, awaiting A-ASSOCIATE-RQ; Sta3 awaiting the local response; Sta4 awaiting the connection;
# Sta5 awaiting A-ASSOCIATE-AC or -RJ; Sta6 established; Sta7 awaiting A-RELEASE-RP; Sta8 awaiting the local release response;
# Sta9 to Sta12 both sides release; Sta13 awaiting the end of the connection.
State = Literal[
    "Sta1", "Sta2", "Sta3", "Sta4", "Sta5", "Sta6", "Sta7", "Sta8", "Sta9", "Sta10", "Sta11", "Sta12", "Sta13"
]  # fmt: skip
Action = Literal[
    "AE-1", "AE-2", "AE-3", "AE-4", "AE-5", "AE-6", "AE-7", "AE-8", "DT-1", "DT-2",
    "AR-1", "AR-2", "AR-3", "AR-4", "AR-5", "AR-6", "AR-7", "AR-8", "AR-9", "AR-10",
    "AA-1", "AA-2", "AA-3", "AA-4", "AA-5", "AA-6", "AA-7", "AA-8",
]  # fmt: skip
Event = Literal[
    "associate request", "connected", "associate-ac", "associate-rj", "connection indication", "associate-rq", "accept",
    "reject", "data request", "data", "release request", "release-rq", "release-rp", "release response", "abort request",
    "abort", "connection closed", "artim expired", "invalid pdu",
]  # fmt: skip

# In the order of the standard's events Evt1 to Evt19.
EVENTS: Final[tuple[Event, ...]] = get_args(Event)

_STATES: Final[tuple[State, ...]] = get_args(State)
_RELEASING: Final[tuple[State, ...]] = ("Sta7", "Sta8", "Sta9", "Sta10", "Sta11", "Sta12")


def _row(**actions: Action) -> dict[State, Action]:
    return {state: actions[state] for state in _STATES if state in actions}


def _out_of_turn(last: Action = "AA-6", **actions: Action) -> dict[State, Action]:
    """A PDU that is wrong in each state that isn't named."""
    otherwise: dict[State, Action] = {"Sta2": "AA-1", "Sta13": last}
    otherwise |= dict.fromkeys(("Sta3", "Sta5", "Sta6", *_RELEASING), "AA-8")
    return otherwise | _row(**actions)


_ABORTED: Final[dict[State, Action]] = dict.fromkeys(("Sta3", "Sta5", "Sta6", *_RELEASING), "AA-3")
_CLOSED: Final[dict[State, Action]] = dict.fromkeys(("Sta3", "Sta4", "Sta5", "Sta6", *_RELEASING), "AA-4")
_ABORTING: Final[dict[State, Action]] = dict.fromkeys(("Sta3", "Sta5", "Sta6", *_RELEASING), "AA-1")

TABLE: Final[dict[Event, dict[State, Action]]] = {
    "associate request": _row(Sta1="AE-1"),
    "connected": _row(Sta4="AE-2"),
    "associate-ac": _out_of_turn(Sta5="AE-3"),
    "associate-rj": _out_of_turn(Sta5="AE-4"),
    "connection indication": _row(Sta1="AE-5"),
    "associate-rq": _out_of_turn("AA-7", Sta2="AE-6"),
    "accept": _row(Sta3="AE-7"),
    "reject": _row(Sta3="AE-8"),
    "data request": _row(Sta6="DT-1", Sta8="AR-7"),
    "data": _out_of_turn(Sta6="DT-2", Sta7="AR-6"),
    "release request": _row(Sta6="AR-1"),
    "release-rq": _out_of_turn(Sta6="AR-2", Sta7="AR-8"),
    "release-rp": _out_of_turn(Sta7="AR-3", Sta10="AR-10", Sta11="AR-3"),
    "release response": _row(Sta8="AR-4", Sta9="AR-9", Sta12="AR-4"),
    "abort request": _ABORTING | _row(Sta4="AA-2"),
    "abort": _ABORTED | _row(Sta2="AA-2", Sta13="AA-2"),
    "connection closed": _CLOSED | _row(Sta2="AA-5", Sta13="AR-5"),
    "artim expired": _row(Sta2="AA-2", Sta13="AA-2"),
    "invalid pdu": _out_of_turn("AA-7"),
}
