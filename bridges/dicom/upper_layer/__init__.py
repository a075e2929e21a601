"""The DICOM Upper Layer (PS3.8) and DIMSE message exchange (PS3.7) on asyncio, as acceptor and as requestor.

`pdu` and `items` are bytes, `state` is the state machine of PS3.8 9.2, `provider` runs it on a connection, `command` and
`messages` are DIMSE, `association` ties them together. What uses it sees `Acceptor` with `Service`, `Request` and `Response`
(`services`), and `requestor.associate`.
"""
