"""Ranks proportional to the norm of the frozen weight: an example of a method in a package of its own."""

from dataclasses import dataclass

from rankbench.plugin import AdapterSet, Allocator, Probe, number


@dataclass
class Config:
    """Settings of the method.

    Attributes:
        power: of the norm; > 0, large is uneven.
    """

    name: str
    power: float = number(above=0)


class WeightNorm(Allocator):
    """s_i = |W_i|^power (Frobenius); the budget is dealt in proportion."""

    needs = frozenset({"weights"})
    source = "an example"
    deviations = ("A quantised weight is dequantised before its norm is taken.",)
    summary = "ranks from the norm of the frozen weight"
    acts = "before training"
    signal = "norm of the frozen weight"
    Config = Config

    def initial_ranks(self) -> dict[str, int]:
        """Uniform, until the weights have been looked at."""
        return self.setting.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Score the sites, then begin at the ranks found."""
        self.scores = {
            site.name: float(adapters.weight(site.name).norm()) ** self.config.power for site in adapters.sites
        }
        adapters.restart(self.setting.budget.allocate(self.scores), "weight norm", draw="start")
