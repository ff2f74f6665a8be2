"""`standpipe demo`: the main job on a simulated network, with every claim checked.

`command` owns the folder and draws the screens, `story` is what happens, `stage` the service and
the network it happens on, `fold` the reader that checks the change log.
"""

from sync.cli.demo.command import demo

__all__ = ["demo"]
