"""Technologist: today by room, the examination and all that is done with it, and whose it was.

board.py      the rooms of a day           step.py       the page of an examination (`doing.py`: what its forms do)
questions.py  what the patient is asked    settling.py   performed steps and studies without their order
coded.py      codes to choose from         said.py       what pages say alike
"""

from console.screen import Door, Screen, does, shows
from console.screens.rooms import board, doing, questions, settling, step

SCREEN = Screen("rooms", "/rooms", "t", "$start $reconcile")
_STEP = "/rooms/steps/{id}"
_SETTLE = "/rooms/settle/{kind}/{id}"

DOORS: list[Door] = [
    shows("/rooms", board.show),
    shows(_STEP, step.show, "$start"),
    shows("/rooms/of/{id}", step.find, "$start"),
    does(f"{_STEP}/move", doing.move, step.show, "$track"),
    does(f"{_STEP}/complete", doing.complete, step.show, "$complete"),
    does(f"{_STEP}/stop", doing.stop, step.show, "$stop"),
    does(f"{_STEP}/repeat", doing.repeat, step.show, "$repeat"),
    does(f"{_STEP}/contrast", doing.give_contrast, step.show, "$give-contrast"),
    does(f"{_STEP}/protocol", doing.decide_protocol, step.show, "$protocol"),
    does(f"{_STEP}/clear", doing.clear, step.show, "$clear-safety"),
    does(f"{_STEP}/check-in", doing.check_in, step.show, "$appointment-check-in"),
    does(f"{_STEP}/no-show", doing.no_show, step.show, "$appointment-no-show"),
    shows(f"{_STEP}/questions/{{name}}", questions.show, "QuestionnaireResponse.c"),
    does(f"{_STEP}/questions/{{name}}", questions.answer, questions.show, "QuestionnaireResponse.c"),
    shows("/rooms/settle", settling.show),
    does("/rooms/items/{id}", settling.done_with, settling.show, "Task.u"),
    shows(_SETTLE, settling.compare, "$reconcile"),
    does(f"{_SETTLE}/find", settling.compare, settling.compare, "$reconcile"),
    does(_SETTLE, settling.settle, settling.compare, "$reconcile"),
]
