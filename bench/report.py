"""One measured figure and the ceiling it is held against."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A rate (or a duration in seconds) beside its ceiling; more is better unless in seconds."""

    name: str
    value: float
    unit: str
    ceiling: float
    ceiling_name: str

    @property
    def ratio(self) -> float:
        """Return measured / ceiling for a rate, ceiling / measured for a duration."""
        return self.ceiling / self.value if self.unit == "s" else self.value / self.ceiling

    def line(self) -> str:
        """Return the figure as one line."""
        digits = 2 if self.unit == "s" else 0
        return (
            f"{self.name:<46} {self.value:>10,.{digits}f} {self.unit:<9}"
            f" {self.ceiling:>10,.{digits}f} {self.ceiling_name:<40} {self.ratio:.2f}"
        )
