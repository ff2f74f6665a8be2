"""One measured figure and the ceiling it is held against."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A rate, or a duration in s or ms, beside its ceiling."""

    name: str
    value: float
    unit: str
    ceiling: float
    ceiling_name: str

    @property
    def ratio(self) -> float:
        """Return measured / ceiling for a rate, ceiling / measured for a duration."""
        is_duration = self.unit in {"s", "ms"}
        return self.ceiling / self.value if is_duration else self.value / self.ceiling

    def line(self) -> str:
        """Return the figure as one line."""
        digits = {"s": 2, "ms": 1}.get(self.unit, 0)
        return (
            f"{self.name:<46} {self.value:>10,.{digits}f} {self.unit:<9}"
            f" {self.ceiling:>10,.{digits}f} {self.ceiling_name:<40} {self.ratio:.2f}"
        )
