"""What the steps of a training cost, added up over its phases."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

from bench.api.column import Value
from bench.api.instrument import Probe
from bench.audit.phases import Course, PhaseOf, phases

Row = dict[str, Value]

CLIMB = 8  # steps by which a budget is filled up, one at a time
ROUNDS = 50


@dataclass(frozen=True)
class Cost:
    """What probes have found. steps: of a step, by phase; prediction: of a prediction.

    phase_of: the phase of each step; None where steps differ and follow no plan: then nothing is said of them.
    """

    probes: Sequence[Probe]
    phase_of: PhaseOf | None
    steps: Mapping[Hashable, Row]
    prediction: Row

    def row(self, course: Course, taken: int | None = None) -> Row:
        """All columns, over the phases of the first `taken` steps; over those of all where none has been taken."""
        if self.phase_of is None:
            return dict(self.prediction)
        found = phases(self.phase_of, course, taken or None)
        if len(found) == 1:
            return {**self.steps[next(iter(found))], **self.prediction}
        row = Row()
        for probe in self.probes:
            own = {column.name for column in probe.columns}
            readings = [
                (phase.steps, {column: value for column, value in self.steps[name].items() if column in own})
                for name, phase in found.items()
            ]
            if all(reading.keys() == readings[0][1].keys() for _, reading in readings) and readings[0][1]:
                row |= probe.over_phases(readings)
        return row | self.prediction

    def flops(self, course: Course, taken: int | None = None, since: int = 0) -> float | None:
        """FLOPs of steps `since` to `taken`, by default of all; None where a step's are unknown."""
        if self.phase_of is None:
            return None
        of_phases = phases(self.phase_of, course, taken, since)
        found = [(phase.steps, self.steps[name].get("flops_per_step")) for name, phase in of_phases.items()]
        known = [steps * flops for steps, flops in found if isinstance(flops, (int, float)) and flops > 0]
        return sum(known) if len(known) == len(found) else None

    def affordable(self, budget: float, most: int, course: Callable[[int], Course]) -> int | None:
        """Steps for which a budget of FLOPs suffices; None where a step's FLOPs are unknown.

        course: that of so many steps, since phases may stretch over all steps that there are. Where `most` steps leave
        something of the budget: more than `most`, at their mean price.
        """
        n = most
        for _ in range(ROUNDS):
            spent = self.flops(course(n))
            if not spent:
                return None if spent is None or n else 0
            if spent <= budget:
                break
            n = min(n - 1, int(n * budget // spent))
        else:
            return 0
        if n == most:
            return int(budget * n // spent)
        for _ in range(CLIMB):
            more = self.flops(course(n + 1))
            if more is None or more > budget or n + 1 > most:
                break
            n += 1
        return n
