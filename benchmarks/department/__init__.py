"""A day of a department, played by all whom it has to do with over real sockets; at its end all books must balance.

`stage.py`: the server, the partners and the catalogue; `exam.py`: what can happen to an order; `lives.py`: the courses that it
takes, each with what must be there at its end; `books.py`: whether it is; `day.py`: many at a time.
"""
