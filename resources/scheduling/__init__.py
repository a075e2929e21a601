"""Scheduling: slots made from weekly hours, free times found, held and booked, and what becomes of bookings.

IHE ITI Scheduling 1.0.0: `$find` (ITI-115), `$hold` (ITI-116), `$book` (ITI-117); the other operations are our own.
"""
