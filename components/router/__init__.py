"""The router in front of several machines: what HAProxy is told; knows no cloud and no engine."""
