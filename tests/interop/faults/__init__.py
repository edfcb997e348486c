"""The faults, by name. Each is a function that runs a node under traffic, breaks something and returns its `Result`."""

from . import clock, disk, process, receivers

ALL = {
    fault.__name__.replace("_", "-"): fault
    for module in (process, disk, receivers, clock)
    for fault in module.FAULTS
}
