"""Flower as a guest: the payloads of a federation travel through a SuperLink that somebody operates already.

`transport.py` is the coordinator's end, inside a ServerApp. `client.py` is a silo's end, inside a ClientApp. Both use
the documented API of Flower alone, in the one version that is tested (`version.py`). `fedreid_pl.flower_apps` makes
both apps.
"""
