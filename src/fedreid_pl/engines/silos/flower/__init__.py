"""Transports the payloads of a federation through Flower, over an existing SuperLink.

`transport.py` is the coordinator's end, inside a ServerApp. `client.py` is a silo's end, inside a ClientApp. Both use
only the documented API of Flower, in the one tested version (`version.py`). `fedreid_pl.flower_apps` makes both apps.
"""
