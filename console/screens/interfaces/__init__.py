"""Interfaces: partners and scanners, their messages and queues, and what is done when something is not as usual."""

from console.screen import Door, Screen, does, shows
from console.screens.interfaces import messages, overview, partners, scanners

SCREEN = Screen("interfaces", "/interfaces", "i", "Endpoint.u")

DOORS: list[Door] = [
    shows("/interfaces", overview.show),
    does("/interfaces/alerts/{id}", overview.settle, again=overview.show),
    shows("/interfaces/messages", messages.show),
    does("/interfaces/messages", messages.find),
    shows("/interfaces/messages/{id}", messages.show_one),
    does("/interfaces/messages/{id}/replay", messages.replay, again=messages.show_one),
    does("/interfaces/messages/{id}/cancel", messages.cancel, again=messages.show_one),
    shows("/interfaces/partners/{id}", partners.show),
    does("/interfaces/partners/{id}", partners.change, again=partners.show),
    does("/interfaces/partners/{id}/test", partners.test, again=partners.show),
    does("/interfaces/partners/{id}/replay", partners.replay_all, again=partners.show),
    shows("/interfaces/scanners/{id}", scanners.show),
    does("/interfaces/scanners/{id}", scanners.change, again=scanners.show),
    does("/interfaces/scanners/{id}/test", scanners.test, again=scanners.show),
]
