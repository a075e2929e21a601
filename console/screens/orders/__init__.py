"""Orders: the inbox, what is done with an order, and what people must decide on besides (work items)."""

from console.screen import Door, Screen, does, shows
from console.screens.orders import coverage, decisions, inbox, items, new_order, order_page, records

SCREEN = Screen("orders", "/orders", "o", "$order-cancel")

DOORS: list[Door] = [
    shows("/orders", inbox.show),
    # Before the order pages, whose address would take them for an id.
    shows("/orders/new", new_order.show, "$create-order"),
    does("/orders/new", new_order.create, new_order.show, "$create-order"),
    does("/orders/new/patient", new_order.look_for, new_order.show, "$create-order"),
    shows("/orders/records", records.show, "Patient.u"),
    does("/orders/records", records.look_for, records.show, "Patient.u"),
    does("/orders/records/merge", records.merge, records.show, "Patient.u"),
    does("/orders/records/unmerge", records.unmerge, records.show, "Patient.u"),
    shows("/orders/items/{id}", items.show, "Task.r"),
    does("/orders/items/{id}/settle", items.settle, items.show, "Task.u"),
    shows("/orders/{id}", order_page.show),
    *(does(f"/orders/{{id}}/{name}", decisions.decide, order_page.show, f"$order-{name}") for name in decisions.DECISIONS),
    does("/orders/{id}/add-procedure", decisions.add_procedure, order_page.show, "$order-add-procedure"),
    does("/orders/{id}/coverage", coverage.submit, order_page.show, "$submit"),
    does("/orders/{id}/override", coverage.override, order_page.show, "$override-authorization"),
]
