"""Listeners of other kinds, told what the events say. None of them acts: parts pass or leave by the gate socket alone.

A bridge is given every message of the streams q and a, the heartbeats (`schema: insp.hb`), and `{"schema": "insp.stale"}` once when nothing
was heard for 1.5 s: from then on what it shows is old.
"""
