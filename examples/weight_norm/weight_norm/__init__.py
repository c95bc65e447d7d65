"""Ranks proportional to the norm of the frozen weight: an example of a method in a package of its own."""

from rankbench.plugin import AdapterSet, Allocator, Field, Probe, Settings


class Config(Settings):
    """Settings of the method.

    Attributes:
        power: exponent of the norm; the larger, the more uneven the ranks.
    """

    power: float = Field(gt=0)


class WeightNorm(Allocator[Config]):
    """s_i = |W_i|^power (Frobenius); the budget is distributed in proportion."""

    needs = frozenset({"weights"})
    source = "an example"
    deviations = ("A quantised weight is dequantised before its norm is taken.",)
    summary = "ranks from the norm of the frozen weight"
    decides = "before training"
    signal = "norm of the frozen weight"

    def initial_ranks(self) -> dict[str, int]:
        """Uniform ranks until the weights are scored."""
        return self.context.budget.uniform()

    def calibrate(self, adapters: AdapterSet, probe: Probe) -> None:
        """Score the sites, then begin at the ranks that the scores give."""
        self.scores = {
            site.name: float(adapters.weight(site.name).norm()) ** self.config.power for site in adapters.sites
        }
        adapters.restart(self.context.budget.allocate(self.scores), "weight norm", draw="start")
