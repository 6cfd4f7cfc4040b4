"""What a case is."""

import dataclasses


@dataclasses.dataclass
class Row:
    """One line of the table. `goal` is in seconds, or `beyond_floor`: seconds more than the floor; without either, to be the fastest."""

    title: str
    goal: float | None = None
    beyond_floor: float | None = None
    unit: str = "s"
    memory: int = 100  # MiB, kiln's largest process at most


class Case:
    """Inputs, what is timed, and the check. A turn is one builder's; turns alternate, and each begins with another builder."""

    name = ""
    rows: dict[str, Row] = {}
    disk = 20  # GiB that it may take with all builders
    peer_turns = None  # how often the others have their turn, where it takes them long

    def __init__(self):
        self.ready = {}

    def prepare(self, bench):
        """Makes what all turns share."""

    def floor(self, bench, floors):
        """Takes the floor of each row that has one; once a turn."""

    def turn(self, bench, kind, number):
        """Times one builder, and checks what it made."""

    def finish(self, bench):
        """Looks at all numbers together."""
